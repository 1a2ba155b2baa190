"""The rows that a block pulls from, as aggregation kernels of any device take them.

Shape legend: B rows of a block, L rows at hand locally, K hubs, E edges of the block, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from flexgnn.core.program.edge_inputs import EdgeInput


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbors:
    """What is at hand in one pass.

    Index ``j < L`` is row ``j`` of ``local``, ``j < L + K`` is row ``j - L`` of ``hubs``, any other is halo row
    ``j - L - K``. A field that is resident as a whole has neither hubs nor halo.

    A halo may be too large to be at hand at once. Then it comes in passes, in ascending order. Each row goes on where
    ``cursor`` says, stops at its first edge to a later halo row, and leaves that in ``next_cursor``. As edges are
    sorted, the order of summation is that of a single pass, and so are the bits.
    """

    local: Tensor
    """L x D float32, or for sums bfloat16, as the next two."""
    hubs: Tensor
    """K x D."""
    halo: Tensor
    """Rows ``halo_start : halo_stop`` of the halo."""
    halo_start: int
    halo_stop: int
    cursor: Tensor | None
    """int64, B: edges done; None if there is one pass, as the next."""
    next_cursor: Tensor | None
    last_pass: bool
    indptr: Tensor
    """int64, B + 1: absolute positions; the block's edges start at ``indptr[0]``."""
    indices: Tensor
    """int32, E."""
    weights: Tensor | None
    """float32, E."""
    edge_data: Mapping[EdgeInput, Tensor]
    """What convolutions read of edges."""
    positions: Tensor
    """int32, E: of the pulled nodes in the graph; where no pull asks for them, anything."""
    own: int
    """Local index of block row 0."""
