"""Asking for rows of memory before they are needed, from compiled kernels.

A pull reads rows from all over a large array, and spends most of its time waiting for them; only the kernel knows which
rows are next. Numba has no such call of its own, LLVM has (``llvm.prefetch``).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LINE_FLOATS = 16
"""float32 in a cache line of 64 bytes."""

_READ, _KEEP, _DATA = 0, 3, 1
"""Arguments of ``llvm.prefetch``: to read it, in all levels of the cache, as data."""


def _prefetch(typing_context: Any, array: Any, row: Any, column: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type, *index_types = signature.args
        data = context.make_array(array_type)(context, builder, arguments[0])
        indices = [context.cast(builder, a, t, types.intp) for a, t in zip(arguments[1:], index_types, strict=True)]
        pointer = cgutils.get_item_pointer(  # type: ignore[no-untyped-call]
            context, builder, array_type, data, indices, wraparound=False
        )
        byte_pointer, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [byte_pointer, flag, flag, flag])
        function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, function_type, "llvm.prefetch.p0i8"
        )
        builder.call(function, [builder.bitcast(pointer, byte_pointer), flag(_READ), flag(_KEEP), flag(_DATA)])
        return context.get_dummy_value()

    return types.void(array, row, column), generate


prefetch: Any = intrinsic(_prefetch)
"""``prefetch(array, row, column)``: ask for the cache line of an element of a 2-d array; changes nothing."""
