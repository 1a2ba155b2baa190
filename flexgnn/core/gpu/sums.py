"""Weighted sums over neighbours on a GPU: ``pull_sum`` of ``row_kernels.py``."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from flexgnn.core.gpu.edges import NUMBERS, begin, column_blocks, launch, reach_of, row_of
from flexgnn.core.program.neighbors import Neighbors

_UNROLLED = tl.constexpr(8)
"""Edges whose rows are asked for at once."""


def pull_sum(
    n: Neighbors, first: int, weights: Tensor | None, loops: Tensor | None, scale: Tensor | None, out: Tensor
) -> None:
    """As :meth:`~flexgnn.core.program.row_kernels.RowKernels.pull_sum`; ``out`` is T x D float32."""
    rows, width = out.shape
    blocks, columns, warps = column_blocks(width)
    vectors = (out if vector is None else vector for vector in (weights, loops, scale))
    launch(
        _pull_sum,
        (rows, blocks),
        *reach_of(n, first),
        *vectors,
        out,
        width,
        WEIGHTED=weights is not None,
        LOOPED=loops is not None,
        SCALED=scale is not None,
        COLUMNS=columns,
        warps=warps,
    )


@triton.jit(do_not_specialize=NUMBERS)
def _pull_sum(
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
    weights,
    loops,
    scale,
    out,
    width,
    WEIGHTED: tl.constexpr,
    LOOPED: tl.constexpr,
    SCALED: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Some columns of one row of a tile."""
    t = tl.program_id(0).to(tl.int64)
    r = first + t
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    later = halo_start > 0
    _, end, e = begin(indptr, cursor, r, halo_start)
    sums = tl.load(out + t * width + columns, mask=columns < tl.where(later, width, 0), other=0.0)
    if LOOPED:
        own_row = tl.load(local + (own + r) * width + columns, mask=inside, other=0.0).to(tl.float32)
        sums = tl.where(later, sums, tl.load(loops + r) * own_row)
    reached = num_resident + halo_stop
    while e < end:
        going = e < end
        stop = e
        for ahead in tl.static_range(_UNROLLED):
            within = e + ahead < end
            j = tl.load(indices + e + ahead, mask=within, other=0)
            going = going & within & (j < reached)
            stop = tl.where(going, e + ahead + 1, stop)
            added = going
            if LOOPED:
                added = going & (j != own + r)
            row = row_of(local, hubs, halo, j, num_local, num_resident, halo_start, width)
            value = tl.load(row + columns, mask=columns < tl.where(added, width, 0), other=0.0).to(tl.float32)
            if WEIGHTED:
                weight = tl.load(weights + e + ahead, mask=within, other=0.0)
                sums = tl.where(added, tl.fma(weight, value, sums), sums)
            else:
                sums = tl.where(added, sums + value, sums)
        end = tl.where(going, end, stop)
        e = stop
    if SCALED:
        sums = tl.where(last_pass != 0, sums * tl.load(scale + r), sums)
    tl.store(out + t * width + columns, sums, mask=inside)
    tl.store(next_cursor + r, e, mask=(last_pass == 0) & (tl.program_id(1) == 0))
