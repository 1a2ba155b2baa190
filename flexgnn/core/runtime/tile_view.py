"""What a step works on, and the rows of one tile out of it.

Shape legend: B rows of a block, T rows of a tile, D width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flexgnn.core.plan.names import EVALUATION, KNOWN_EDGES
from flexgnn.core.plan.packing import ALIGNMENT_BYTES
from flexgnn.core.plan.workload import Phase
from flexgnn.core.program.adjacency import AdjacencyVectors
from flexgnn.core.program.bfloat16 import stored_tensor
from flexgnn.core.program.convolution import Convolution, Neighborhood, neighborhood
from flexgnn.core.program.edge_inputs import EdgeInput
from flexgnn.core.program.kernels import NO_VECTOR, pull_max, pull_max_gradient, pull_sum
from flexgnn.core.program.negatives import PairRows
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.tier import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbors:
    """The rows that a block pulls from in one pass, as the kernels want them (``kernels.py``)."""

    local: Array
    hubs: Array
    halo: Array
    halo_start: int
    halo_stop: int
    cursor: Array
    next_cursor: Array
    last_pass: bool
    indptr: Array
    indices: Array
    weights: Array
    edge_data: Mapping[EdgeInput, Array]
    """What convolutions read of edges."""
    positions: Array
    """Of the pulled nodes in the graph, edge by edge; where no pull asks for them, anything."""
    own: int


@dataclass(frozen=True, kw_only=True, eq=False)
class StepData:
    """Everything in the compute tier that a step works on."""

    phase: Phase
    rows: dict[str, Array]
    """Fields at the block's rows (B x D, or B), read or written."""
    neighbors: dict[str, Neighbors]
    """By pulled field: of the pass that is under way."""
    slices: Mapping[str, Sequence[str]]
    """By field that comes in slices of columns: the fields of these."""
    moments: Mapping[str, Tensor]
    """Those of earlier stages (2 x D)."""
    moment_shares: Mapping[str, Tensor]
    """Of later stages, for :func:`~flexgnn.core.program.moments.moments_gradient`."""
    partial: dict[str, Array]
    """Sums (B x D, float32) of pulls in several passes, by pulled field, where no field takes them as they grow."""
    pulled: bool = False
    """Whether the last pass has been made as well."""


class TileView:
    """The rows of one tile, out of a step's data."""

    def __init__(self, data: StepData, tile: tuple[int, int]) -> None:
        self.data, self.phase = data, data.phase
        self.prefix = EVALUATION if data.phase.kind == "evaluate" else ""
        self.first, self._stop = tile
        self.num_rows = self._stop - self.first

    @property
    def awaited(self) -> Collection[str]:
        """The fields of which the last pass is yet to be made."""
        return () if self.data.pulled else self.data.neighbors

    def has(self, name: str) -> bool:
        return all(part in self.data.rows for part in self._parts(name))

    def _parts(self, name: str) -> Sequence[str]:
        return self.data.slices.get(name, (name,))

    def rows(self, name: str) -> Array:
        array: Array = self.data.rows[name][self.first : self._stop]
        return array

    def tensor(self, name: str) -> Tensor:
        """A view, or a copy of what comes in slices or is stored as bfloat16."""
        parts = [stored_tensor(self.rows(part)) for part in self._parts(name)]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return whole.float() if whole.dtype == torch.bfloat16 else whole

    def write(self, name: str, values: Tensor, scale: str | None = None) -> None:
        """Fill the rows of a field (T x D), with each row of ``values`` times its element of the vector ``scale``."""
        first = 0
        for part in self._parts(name):
            out = stored_tensor(self.rows(part))
            columns = values[:, first : first + out.shape[1]]
            if scale is None:
                out.copy_(columns)
            else:
                torch.mul(columns, self.tensor(scale)[:, None], out=out)
            first += out.shape[1]

    def partial(self, name: str) -> Array:
        array: Array = self.data.partial[name][self.first : self._stop]
        return array

    def pull_sum(self, source: str, vectors: AdjacencyVectors, out: Array, *, weighted: bool) -> None:
        """Weighted sum over neighbours of ``source`` into ``out`` (T x D)."""
        n = self.data.neighbors[source]
        loops = NO_VECTOR if vectors.loops is None else self.data.rows[vectors.loops]
        scale = NO_VECTOR if vectors.row is None else self.data.rows[vectors.row]
        weights = n.weights if weighted else NO_VECTOR
        pull_sum(*self.reach(n), n.indptr, n.indices, weights, loops, scale, n.own, self.first, out)

    def sum_into(self, output: str, source: str, vectors: AdjacencyVectors, *, weighted: bool) -> None:
        """A pass of the weighted sum over neighbours of ``source`` into field ``output``, rounded after the last."""
        out = self.rows(output)
        if out.dtype == np.float32:
            self.pull_sum(source, vectors, out, weighted=weighted)
            return
        sums = self.partial(source) if source in self.data.partial else np.empty(out.shape, dtype=np.float32)
        self.pull_sum(source, vectors, sums, weighted=weighted)
        if self.data.neighbors[source].last_pass:
            stored_tensor(out).copy_(torch.from_numpy(sums))

    def pull_max(self, source: str, out: Array, ties: Array) -> None:
        """Maximum over neighbours of ``source`` into ``out`` (T x D), and how many reach it into ``ties``."""
        n = self.data.neighbors[source]
        pull_max(*self.reach(n), n.indptr, n.indices, self.first, out, ties)

    def pull_max_gradient(self, source: str, value: Array, out: Array) -> None:
        """Gradient of the maximum for the rows ``value`` into ``out`` (T x D each)."""
        n = self.data.neighbors[source]
        pull_max_gradient(*self.reach(n), n.indptr, n.indices, self.first, value, out)

    def neighborhood(self, source: str, convolution: Convolution, rows: RowContext) -> tuple[Tensor, Neighborhood]:
        """The tile's part of the graph, and the rows of ``source``, which is whole, at its nodes ((T + H) x D)."""
        n = self.data.neighbors[source]
        pointers, edges = self._edges(n.indptr)
        reached = PairRows(indptr=pointers, sources=n.indices[edges])
        edge_data = {given: n.edge_data[given][edges] for given in convolution.edge_inputs}
        if convolution.sampler is not None and rows.training:
            first_pair, kinds = int(n.indptr[self.first]), edge_data[EdgeInput.TYPES]
            extended = convolution.sampler.extend(reached, kinds, self._known_edges(), rows, first_pair)
            reached, edge_data[EdgeInput.TYPES] = extended
        part = neighborhood(reached.indptr, reached.sources, edge_data, n.own + self.first)
        # With mode "clip" numpy looks at each index once; every one is in range.
        return torch.from_numpy(n.local.take(part.rows, axis=0, mode="clip")), part

    def _known_edges(self) -> PairRows:
        """The graph's edges into the tile."""
        indptr, indices = (self.data.rows[name] for name in KNOWN_EDGES)
        pointers, edges = self._edges(indptr)
        return PairRows(indptr=pointers, sources=indices[edges])

    def _edges(self, indptr: Array) -> tuple[Array, slice]:
        """Where the edges of each node begin (from 0, T + 1), and which of the block's they are."""
        pointers = indptr[self.first : self._stop + 1]
        first, stop = int(pointers[0] - indptr[0]), int(pointers[-1] - indptr[0])
        return pointers - pointers[0], slice(first, stop)

    def reach(self, n: Neighbors) -> tuple[Array, Array, Array, int, int, Array, Array, bool]:
        """The rows of neighbours, as kernels take them."""
        return n.local, n.hubs, n.halo, n.halo_start, n.halo_stop, n.cursor, n.next_cursor, n.last_pass


def aligned_rows(tensor: Tensor) -> Tensor:
    """``tensor``, or a copy where it does not begin at a cache line.

    Where a tile begins in its buffer depends on the blocks, and products of a BLAS library may depend on the alignment.
    With a multiple of 16 rows in a chunk, as is the default, every tile is aligned.
    """
    return tensor if tensor.data_ptr() % ALIGNMENT_BYTES == 0 else tensor.clone()
