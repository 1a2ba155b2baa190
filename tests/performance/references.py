"""Plain loops that touch the same memory as the kernels do, and are compiled in the same way."""

from __future__ import annotations

import numpy as np

from flexgnn.core.compiling import compiled
from flexgnn.core.tier import Array

_compile = compiled(fastmath={"contract"}, boundscheck=False)
_MULTIPLIER, _HALF, _LOW = np.uint64(0xD2511F53), np.uint64(32), np.uint64(0xFFFFFFFF)


@_compile
def plain_sum(indptr: Array, indices: Array, z: Array, out: Array) -> None:
    """Each row of ``out`` becomes the sum of its neighbours' rows of ``z``."""
    for r in range(out.shape[0]):
        for c in range(out.shape[1]):
            out[r, c] = np.float32(0)
        for e in range(indptr[r], indptr[r + 1]):
            j = indices[e]
            for c in range(out.shape[1]):
                out[r, c] += z[j, c]


@_compile
def plain_max(indptr: Array, indices: Array, z: Array, out: Array, ties: Array) -> None:
    """The maxima of neighbours' rows, and how many reach them."""
    for r in range(out.shape[0]):
        for c in range(out.shape[1]):
            out[r, c], ties[r, c] = np.float32(-np.inf), np.float32(0)
        for e in range(indptr[r], indptr[r + 1]):
            j = indices[e]
            for c in range(out.shape[1]):
                value, greatest, reached = z[j, c], out[r, c], ties[r, c]
                reached = np.float32(0) if value > greatest else reached
                out[r, c] = value if value > greatest else greatest
                ties[r, c] = reached + (np.float32(1) if value >= greatest else np.float32(0))


@_compile
def plain_max_gradient(indptr: Array, indices: Array, z: Array, value: Array, out: Array) -> None:
    """Sums of the first half of neighbours' rows, where the second half equals ``value``."""
    width = out.shape[1]
    for r in range(out.shape[0]):
        for c in range(width):
            out[r, c] = np.float32(0)
        for e in range(indptr[r], indptr[r + 1]):
            j = indices[e]
            for c in range(width):
                gradient, greatest, own = z[j, c], z[j, width + c], value[r, c]
                out[r, c] += gradient if greatest == own else np.float32(0)


@_compile
def plain_row_sums(indptr: Array, indices: Array, weights: Array, sums: Array) -> None:
    """Each row's sum of weights, without those of loops."""
    for r in range(sums.shape[0]):
        total = np.float32(0)
        for e in range(indptr[r], indptr[r + 1]):
            if indices[e] != r:
                total += weights[e]
        sums[r] = total


@_compile
def plain_mixing(words: Array, values: Array, out: Array) -> None:
    """``values`` where mixed ``words`` (uint32) are odd: as many multiplications an element as Philox4x32-10 has."""
    for n in range(out.shape[0]):
        word = np.uint64(words[n])
        for _ in range(5):
            product = (word & _LOW) * _MULTIPLIER
            word = product ^ (product >> _HALF)
        out[n] = values[n] if word & np.uint64(1) else np.float32(0)
