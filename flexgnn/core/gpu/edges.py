"""How Triton kernels walk the edges of a row, in the order of the graph, and find the rows of its neighbours.

Shape legend: B rows of a block, E edges of the block, D width, and those of ``neighbors.py``.

One program makes some columns of one row, edge after edge, and keeps them in registers meanwhile: no sum over edges is
ever split, so that neither passes nor blocks change a bit. Several edges are unrolled into each turn of a loop. Those
among them that do not belong to the row, or to this pass, load nothing and leave sums as they are. What a compiler
makes of a product and a sum depends on what is around them, and so must not be left to it: fusing is off in every
launch, and asked for where it is wanted.

Whether an edge counts is one truth value for all columns. Triton's interpreter does not take such a one beside those of
columns as a mask; so what is loaded of other edges is limited to no columns.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from flexgnn.core.program.neighbors import Neighbors

NUMBERS = ["num_local", "num_resident", "halo_start", "halo_stop", "last_pass", "own", "first"]
"""Parameters of kernels that change from pass to pass. Triton would compile anew for those that 16 divides."""


def reach_of(n: Neighbors, first: int) -> tuple[Tensor | int, ...]:
    """What all pulls take first, for the tile that begins at block row ``first``.

    Three arrays of rows, two cursors, ``indptr``, ``indices``, then :data:`NUMBERS`.
    """
    # What is not there is never read, but the compiler wants a pointer of the type of what is.
    rows = n.local, n.hubs if n.hubs.numel() else n.local, n.halo if n.halo.numel() else n.local
    cursors = (n.indptr if cursor is None else cursor for cursor in (n.cursor, n.next_cursor))
    num_local = n.local.shape[0]
    numbers = num_local, num_local + n.hubs.shape[0], n.halo_start, n.halo_stop, int(n.last_pass), n.own, first
    return *rows, *cursors, n.indptr, n.indices, *numbers


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int, **constants: Any) -> None:
    """Run ``kernel``, if the grid has any program."""
    if all(grid):
        kernel[grid](*arguments, **constants, num_warps=warps, enable_fp_fusion=False)


def column_blocks(width: int) -> tuple[int, int, int]:
    """How many blocks of columns ``width`` columns are, how many columns one has, and the warps for it."""
    columns = min(max(triton.next_power_of_2(width), 32), 256)
    return triton.cdiv(width, columns), columns, max(columns // 128, 1)


@triton.jit
def begin(indptr, cursor, row, halo_start):
    """The first and the last edge of a row, and where this pass goes on; all counted from the block's first."""
    base = tl.load(indptr)
    start = tl.load(indptr + row) - base
    end = tl.load(indptr + row + 1) - base
    later = halo_start > 0
    return start, end, tl.where(later, tl.load(cursor + row, mask=later, other=0), start)


@triton.jit
def row_of(local, hubs, halo, index, num_local, num_resident, halo_start, width):
    """Where the row of a neighbour begins."""
    j = index.to(tl.int64)
    resident = tl.where(j < num_local, local + j * width, hubs + (j - num_local) * width)
    return tl.where(j < num_resident, resident, halo + (j - num_resident - halo_start) * width)
