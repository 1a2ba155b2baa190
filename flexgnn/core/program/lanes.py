"""Several float32 that a processor works on at once, for kernels whose loops are too short to be left to LLVM.

LLVM makes vectors of a loop for some dozens of elements at a time, and first compares the addresses of all that it
reads and writes. The channels of a head are fewer, and a kernel knows that rows don't overlap: it says what is done at
once.

Shape legend: L lanes, 8 of them on every processor, whatever its registers hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default
from numba.extending import intrinsic

LANES = np.uint64(8)
"""L."""

_ALIGNMENT_BYTES = 4
"""Rows begin anywhere."""
_VECTOR = ir.VectorType(ir.FloatType(), int(LANES))
_INTEGERS = ir.VectorType(ir.IntType(32), int(LANES))


class _Lanes(types.Type):
    """L float32."""

    def __init__(self) -> None:
        super().__init__(name="float32_lanes")


@register_default(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, of: Any) -> None:
        super().__init__(manager, of, _VECTOR)  # type: ignore[no-untyped-call]


_lanes = _Lanes()


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Code for the address of L columns of a row, from its address and the first of them."""
    row = builder.inttoptr(arguments[0], ir.FloatType().as_pointer())
    column = context.cast(builder, arguments[1], signature.args[1], types.intp)
    return builder.bitcast(builder.gep(row, [column], inbounds=True), _VECTOR.as_pointer())


def _load(typing_context: Any, address: Any, column: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, arguments), align=_ALIGNMENT_BYTES)

    return _lanes(types.uint64, column), generate


def _put(typing_context: Any, address: Any, column: Any, values: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _pointer(context, builder, signature, arguments), align=_ALIGNMENT_BYTES)
        return context.get_dummy_value()

    return types.void(types.uint64, column, _lanes), generate


def _spread(typing_context: Any, value: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _spread_out(builder, arguments[0])

    return _lanes(types.float32), generate


def _constant(value: float) -> Any:
    return ir.Constant(_VECTOR, [float(np.float32(value))] * int(LANES))


def _spread_out(builder: Any, value: Any, vector_type: Any = _VECTOR) -> Any:
    undefined = ir.Constant(vector_type, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(single, undefined, ir.Constant(_INTEGERS, None))


def _operation(generate_from: Callable[[Any, Any], Any], count: int) -> Any:
    """An intrinsic from ``count`` lanes to lanes."""

    def typed(typing_context: Any, *operands: Any) -> Any:

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return generate_from(builder, arguments)

        return _lanes(*[_lanes] * count), generate

    # Numba looks at the number of arguments.
    by_count: dict[int, Any] = {
        1: lambda t, a: typed(t, a),
        2: lambda t, a, b: typed(t, a, b),
        3: lambda t, a, b, c: typed(t, a, b, c),
    }
    return intrinsic(by_count[count])


def _selected(builder: Any, values: Any) -> Any:
    condition, where_above, otherwise = values
    above = builder.fcmp_ordered(">", condition, _constant(0.0))
    return builder.select(above, where_above, otherwise)


def _total(typing_context: Any, values: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (value,) = arguments
        count = int(LANES)
        while count > 1:  # halves are added to each other
            count //= 2
            lower, upper = (_part(builder, value, range(first, first + count)) for first in (0, count))
            value = builder.fadd(lower, upper)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return types.float32(_lanes), generate


def _part(builder: Any, value: Any, chosen: range) -> Any:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(chosen)), list(chosen))
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)


def _wanted(context: Any, builder: Any, count: Any, count_type: Any) -> Any:
    """Code for which lanes are below ``count``."""
    number = context.cast(builder, count, count_type, types.int32)
    lanes = ir.Constant(_INTEGERS, list(range(int(LANES))))
    return builder.icmp_signed("<", lanes, _spread_out(builder, number, _INTEGERS))


def _load_some(typing_context: Any, address: Any, column: Any, count: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wanted = _wanted(context, builder, arguments[2], signature.args[2])
        pointer = _pointer(context, builder, signature, arguments)
        function_type = ir.FunctionType(_VECTOR, [pointer.type, ir.IntType(32), wanted.type, _VECTOR])
        load = _function(builder, function_type, "llvm.masked.load.v8f32.p0")
        return builder.call(load, [pointer, ir.IntType(32)(_ALIGNMENT_BYTES), wanted, _constant(0.0)])

    return _lanes(types.uint64, column, count), generate


def _put_some(typing_context: Any, address: Any, column: Any, count: Any, values: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wanted = _wanted(context, builder, arguments[2], signature.args[2])
        pointer = _pointer(context, builder, signature, arguments)
        function_type = ir.FunctionType(ir.VoidType(), [_VECTOR, pointer.type, ir.IntType(32), wanted.type])
        put = _function(builder, function_type, "llvm.masked.store.v8f32.p0")
        builder.call(put, [arguments[3], pointer, ir.IntType(32)(_ALIGNMENT_BYTES), wanted])
        return context.get_dummy_value()

    return types.void(types.uint64, column, count, _lanes), generate


def _function(builder: Any, function_type: Any, name: str) -> Any:
    """One of LLVM's own."""
    return cgutils.get_or_insert_function(builder.module, function_type, name)  # type: ignore[no-untyped-call]


def _exponential(builder: Any, values: Any) -> Any:
    """A product of a power of two and the exponential of at most half a binary logarithm, from a Taylor polynomial."""
    x = _greater(builder, [values[0], _constant(-87.0)])
    floor = _function(builder, ir.FunctionType(_VECTOR, [_VECTOR]), "llvm.floor.v8f32")
    binary = builder.fadd(builder.fmul(x, _constant(1.4426950408889634)), _constant(0.5))
    power = builder.call(floor, [binary])
    r = builder.fsub(x, builder.fmul(power, _constant(0.693359375)))  # the logarithm of 2, the first part of few bits
    r = builder.fsub(r, builder.fmul(power, _constant(-2.12194440e-4)))
    y = _constant(1 / 5040)
    for factor in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        y = builder.fadd(builder.fmul(y, r), _constant(factor))
    exponent = builder.add(builder.fptosi(power, _INTEGERS), ir.Constant(_INTEGERS, [127] * int(LANES)))
    shifted = builder.shl(exponent, ir.Constant(_INTEGERS, [23] * int(LANES)))
    found = builder.fmul(y, builder.bitcast(shifted, _VECTOR))
    return builder.select(builder.fcmp_unordered("uno", values[0], values[0]), values[0], found)


def _greater(builder: Any, values: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", *values), *values)


def _any_above(typing_context: Any, a: Any, b: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        above = builder.fcmp_ordered(">", *arguments)
        bits = builder.bitcast(above, ir.IntType(int(LANES)))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(_lanes, _lanes), generate


load_lanes: Any = intrinsic(_load)
"""``load_lanes(address, column)``: L float32 from a column on, of the row that begins at ``address``."""

load_some: Any = intrinsic(_load_some)
"""``load_some(address, column, count)``: the same of at most ``count`` columns, and 0; those beyond are not touched."""

put_lanes: Any = intrinsic(_put)
"""``put_lanes(address, column, lanes)``: put them there."""

put_some: Any = intrinsic(_put_some)
"""``put_some(address, column, count, lanes)``: the same of at most ``count`` lanes."""

spread: Any = intrinsic(_spread)
"""``spread(value)``: a float32 in each lane."""

total_of: Any = intrinsic(_total)
"""``total_of(lanes)``: their sum."""

add_lanes: Any = _operation(lambda builder, values: builder.fadd(*values), 2)
"""``add_lanes(a, b)``."""

subtract_lanes: Any = _operation(lambda builder, values: builder.fsub(*values), 2)
"""``subtract_lanes(a, b)``."""

multiply_lanes: Any = _operation(lambda builder, values: builder.fmul(*values), 2)
"""``multiply_lanes(a, b)``."""

select_lanes: Any = _operation(_selected, 3)
"""``select_lanes(condition, a, b)``: ``a`` in lanes where ``condition`` is above 0, elsewhere ``b``."""

greater_lanes: Any = _operation(_greater, 2)
"""``greater_lanes(a, b)``: the greater one in each lane."""

exp_lanes: Any = _operation(_exponential, 1)
"""``exp_lanes(x)``: exponentials of numbers up to 88, within 2 units in the last place; below -87 that of -87.

What is not a number stays so."""

any_above: Any = intrinsic(_any_above)
"""``any_above(a, b)``: whether ``a`` exceeds ``b`` in any lane."""
