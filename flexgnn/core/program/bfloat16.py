"""Rows that are stored as bfloat16: float32 without the lower half of its bits, rounded to nearest, ties to even.

Numpy has no such numbers. Arrays hold their bits as uint16, which every storage tier can keep; nothing else that steps
work on is uint16. Copying float32 into such a tensor rounds them. Nothing is computed with them: a float32 comes out of
each.
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


def stored_dtype(name: str) -> torch.dtype:
    """The type of tensors over memory that numpy knows as of type ``name``: bfloat16 where it holds such bits."""
    dtype: torch.dtype = torch.bfloat16 if name == BITS_DTYPE else getattr(torch, np.dtype(name).name)
    return dtype


def stored_array(tensor: Tensor) -> Array:
    """The memory of ``tensor``, on the CPU, as numpy and storage tiers know it: uint16 where it is bfloat16."""
    array: Array = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


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
