"""Asking for rows of memory before they are needed, from compiled kernels.

A pull reads rows from all over a large array, and spends most of its time waiting for them; only the kernel knows which
rows are next. Numba has no such call of its own, LLVM has (``llvm.prefetch``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_LINE_BITS = 64 * 8
"""Of a cache line."""

_READ, _KEEP, _DATA = 0, 3, 1
"""Arguments of ``llvm.prefetch``: to read it, in all levels of the cache, as data."""


def element_pointer(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
    """Code for the address of an element, from the arguments of an intrinsic: a 2-d array, and indices from 0 on."""
    array_type, *index_types = signature.args
    data = context.make_array(array_type)(context, builder, arguments[0])
    indices = [context.cast(builder, a, t, types.intp) for a, t in zip(arguments[1:], index_types, strict=True)]
    return cgutils.get_item_pointer(  # type: ignore[no-untyped-call]
        context, builder, array_type, data, indices, wraparound=False
    )


def _prefetch(typing_context: Any, array: Any, row: Any, column: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = element_pointer(context, builder, signature, arguments)
        byte_pointer, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [byte_pointer, flag, flag, flag])
        function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, function_type, "llvm.prefetch.p0i8"
        )
        builder.call(function, [builder.bitcast(pointer, byte_pointer), flag(_READ), flag(_KEEP), flag(_DATA)])
        return context.get_dummy_value()

    return types.void(array, row, column), generate


def _line_columns(typing_context: Any, array: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, _LINE_BITS // array.dtype.bitwidth)

    return types.intp(array), generate


prefetch: Any = intrinsic(_prefetch)
"""``prefetch(array, row, column)``: ask for the cache line of an element of a 2-d array; changes nothing."""

line_columns: Any = intrinsic(_line_columns)
"""``line_columns(array)``: how many elements of an array of numbers fill a cache line; known to the compiler."""
