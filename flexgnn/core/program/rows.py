"""Rows of memory by their address, for compiled kernels that find a row in one of several arrays.

An address is one number wherever the row is, so that what is done with a row stands once in a kernel: once in its
source, and once in what the compiler makes of it, which is the same arithmetic for every row.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from flexgnn.core.program.prefetch import element_pointer


def _row_address(typing_context: Any, array: Any, row: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zero = context.get_constant(types.intp, 0)
        full = signature.replace(args=(*signature.args, types.intp))
        pointer = element_pointer(context, builder, full, [*arguments, zero])
        return builder.ptrtoint(pointer, ir.IntType(64))

    return (types.uint64(array, row), generate) if array.dtype == types.float32 else None


def _element(typing_context: Any, address: Any, column: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.FloatType().as_pointer())
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        return builder.load(builder.gep(pointer, [index], inbounds=True))

    return types.float32(types.uint64, column), generate


def _store(typing_context: Any, address: Any, column: Any, value: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.FloatType().as_pointer())
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        builder.store(arguments[2], builder.gep(pointer, [index], inbounds=True))
        return context.get_dummy_value()

    return types.void(types.uint64, column, types.float32), generate


row_address: Any = intrinsic(_row_address)
"""``row_address(array, row)``: where a row of a 2-d array of float32 begins; rows are counted from 0 on."""

element: Any = intrinsic(_element)
"""``element(address, column)``: the float32 in a column of the row that begins at ``address``."""

store: Any = intrinsic(_store)
"""``store(address, column, value)``: put a float32 there."""
