"""Elementwise maxima over neighbours on a GPU, and their gradients: see ``row_kernels.py``."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from flexgnn.core.gpu.edges import NUMBERS, begin, column_blocks, launch, reach_of, row_of
from flexgnn.core.program.neighbors import Neighbors

_UNROLLED = tl.constexpr(8)
"""Edges whose rows are asked for at once."""


def pull_max(n: Neighbors, first: int, out: Tensor, ties: Tensor) -> None:
    """As :meth:`~flexgnn.core.program.row_kernels.RowKernels.pull_max`; ``out`` and ``ties`` are T x D float32."""
    rows, width = out.shape
    blocks, columns, warps = column_blocks(width)
    launch(_pull_max, (rows, blocks), *reach_of(n, first), out, ties, width, COLUMNS=columns, warps=warps)


def pull_max_gradient(n: Neighbors, first: int, value: Tensor, out: Tensor) -> None:
    """As :meth:`~flexgnn.core.program.row_kernels.RowKernels.pull_max_gradient`; ``value`` and ``out`` are T x D."""
    rows, width = out.shape
    blocks, columns, warps = column_blocks(width)
    launch(_pull_max_gradient, (rows, blocks), *reach_of(n, first), value, out, width, COLUMNS=columns, warps=warps)


@triton.jit(do_not_specialize=NUMBERS)
def _pull_max(
    local,
    hubs,
    halo,
    cursor,
    next_cursor,
    indptr,
    indices,
    num_local,
    num_resident,
    halo_start,
    halo_stop,
    last_pass,
    own,
    first,
    out,
    ties,
    width,
    COLUMNS: tl.constexpr,
):
    """Some columns of one row of a tile."""
    t = tl.program_id(0).to(tl.int64)
    r = first + t
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    later = halo_start > 0
    start, end, e = begin(indptr, cursor, r, halo_start)
    at = t * width + columns
    kept = columns < tl.where(later, width, 0)
    count = tl.load(ties + at, mask=kept, other=0.0)
    greatest = tl.load(out + at, mask=kept, other=0.0)
    greatest = tl.where(later | (start == end), greatest, -float("inf"))
    reached = num_resident + halo_stop
    while e < end:
        going = e < end
        stop = e
        for ahead in tl.static_range(_UNROLLED):
            within = e + ahead < end
            j = tl.load(indices + e + ahead, mask=within, other=0)
            going = going & within & (j < reached)
            stop = tl.where(going, e + ahead + 1, stop)
            row = row_of(local, hubs, halo, j, num_local, num_resident, halo_start, width)
            value = tl.load(row + columns, mask=columns < tl.where(going, width, 0), other=0.0)
            # Compared as on a CPU: what is not a number is passed over.
            exceeds = going & (value > greatest)
            equals = going & (value >= greatest)
            count = tl.where(exceeds, 0.0, count) + tl.where(equals, 1.0, 0.0)
            greatest = tl.where(exceeds, value, greatest)
        end = tl.where(going, end, stop)
        e = stop
    tl.store(out + at, greatest, mask=inside)
    tl.store(ties + at, count, mask=inside)
    tl.store(next_cursor + r, e, mask=(last_pass == 0) & (tl.program_id(1) == 0))


@triton.jit(do_not_specialize=NUMBERS)
def _pull_max_gradient(
    local,
    hubs,
    halo,
    cursor,
    next_cursor,
    indptr,
    indices,
    num_local,
    num_resident,
    halo_start,
    halo_stop,
    last_pass,
    own,
    first,
    value,
    out,
    width,
    COLUMNS: tl.constexpr,
):
    """Some columns of one row of a tile."""
    t = tl.program_id(0).to(tl.int64)
    r = first + t
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    _, end, e = begin(indptr, cursor, r, halo_start)
    at = t * width + columns
    own_value = tl.load(value + at, mask=inside, other=0.0)
    sums = tl.load(out + at, mask=columns < tl.where(halo_start > 0, width, 0), other=0.0)
    reached = num_resident + halo_stop
    while e < end:
        going = e < end
        stop = e
        for ahead in tl.static_range(_UNROLLED):
            within = e + ahead < end
            i = tl.load(indices + e + ahead, mask=within, other=0)
            going = going & within & (i < reached)
            stop = tl.where(going, e + ahead + 1, stop)
            row = row_of(local, hubs, halo, i, num_local, num_resident, halo_start, 2 * width)
            wanted = columns < tl.where(going, width, 0)
            gradient = tl.load(row + columns, mask=wanted, other=0.0)
            greatest = tl.load(row + width + columns, mask=wanted, other=0.0)
            sums = tl.where(going & (greatest == own_value), sums + gradient, sums)
        end = tl.where(going, end, stop)
        e = stop
    tl.store(out + at, sums, mask=inside)
    tl.store(next_cursor + r, e, mask=(last_pass == 0) & (tl.program_id(1) == 0))
