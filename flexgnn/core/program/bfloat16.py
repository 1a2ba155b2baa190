"""Rows that are stored as bfloat16: float32 without the lower half of its bits, rounded to nearest, ties to even.

Numpy has no such numbers. Arrays hold their bits as uint16, which every storage tier can keep; nothing else that steps
work on is uint16. They are made and read here, and computed with nowhere: a float32 comes out of each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from torch import Tensor

from flexgnn.core.program.prefetch import element_pointer
from flexgnn.core.tier import Array

BITS_DTYPE = "uint16"
"""The numpy dtype of arrays that hold bfloat16."""


def stored_tensor(array: Array) -> Tensor:
    """The memory of ``array`` as a tensor: bfloat16 where it holds such bits. Copying float32 into it rounds them."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor


def as_stored(tensor: Tensor) -> Tensor:
    """float32 as they come back once they were stored as bfloat16."""
    return tensor.to(torch.bfloat16).to(torch.float32)


def _load(typing_context: Any, array: Any, row: Any, column: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(element_pointer(context, builder, signature, arguments))
        if array.dtype == types.float32:
            return value
        bits = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(value, bits), bits(16)), ir.FloatType())

    known = array.dtype in (types.float32, types.uint16)
    return (types.float32(array, row, column), generate) if known else None


load: Any = intrinsic(_load)
"""``load(array, row, column)``: for compiled kernels, an element of a 2-d array of float32 or bfloat16 as float32."""
