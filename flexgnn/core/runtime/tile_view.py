"""What a step works on, and the rows of one tile out of it.

Shape legend: B rows of a block, T rows of a tile, D width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flexgnn.core.plan.names import EVALUATION, KNOWN_EDGES
from flexgnn.core.plan.packing import ALIGNMENT_BYTES
from flexgnn.core.plan.workload import Phase
from flexgnn.core.program.adjacency import AdjacencyVectors
from flexgnn.core.program.convolution import Convolution, Neighborhood, neighborhood
from flexgnn.core.program.edge_inputs import EdgeInput
from flexgnn.core.program.negatives import PairRows
from flexgnn.core.program.neighbors import Neighbors
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.program.row_kernels import RowKernels
from flexgnn.core.tier import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class StepData:
    """Everything in the compute tier that a step works on."""

    phase: Phase
    kernels: RowKernels
    rows: dict[str, Tensor]
    """Fields at the block's rows (B x D, or B), read or written."""
    neighbors: dict[str, Neighbors]
    """By pulled field: of the pass that is under way."""
    slices: Mapping[str, Sequence[str]]
    """By field that comes in slices of columns: the fields of these."""
    moments: Mapping[str, Tensor]
    """Those of earlier stages (2 x D)."""
    moment_shares: Mapping[str, Tensor]
    """Of later stages, for :func:`~flexgnn.core.program.moments.moments_gradient`."""
    partial: dict[str, Tensor]
    """Sums (B x D, float32) of pulls in several passes, by pulled field, where no field takes them as they grow."""
    device: torch.device
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

    def rows(self, name: str) -> Tensor:
        # Apart from other views of the same memory for autograd, which counts what is written to any of them.
        return self.data.rows[name][self.first : self._stop].data

    def tensor(self, name: str) -> Tensor:
        """A view, or a copy of what comes in slices or is stored as bfloat16."""
        parts = [self.rows(part) for part in self._parts(name)]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return whole.float() if whole.dtype == torch.bfloat16 else whole

    def write(self, name: str, values: Tensor, scale: str | None = None) -> None:
        """Fill the rows of a field (T x D), with each row of ``values`` times its element of the vector ``scale``."""
        first = 0
        for part in self._parts(name):
            out = self.rows(part)
            columns = values[:, first : first + out.shape[1]]
            if scale is None:
                out.copy_(columns)
            else:
                torch.mul(columns, self.tensor(scale)[:, None], out=out)
            first += out.shape[1]

    def partial(self, name: str) -> Tensor:
        return self.data.partial[name][self.first : self._stop]

    def pull_sum(self, source: str, vectors: AdjacencyVectors, out: Tensor, *, weighted: bool) -> None:
        """Weighted sum over neighbours of ``source`` into ``out`` (T x D)."""
        n = self.data.neighbors[source]
        loops = None if vectors.loops is None else self.data.rows[vectors.loops]
        scale = None if vectors.row is None else self.data.rows[vectors.row]
        self.data.kernels.pull_sum(n, self.first, n.weights if weighted else None, loops, scale, out)

    def sum_into(self, output: str, source: str, vectors: AdjacencyVectors, *, weighted: bool) -> None:
        """A pass of the weighted sum over neighbours of ``source`` into field ``output``, rounded after the last."""
        out = self.rows(output)
        if out.dtype == torch.float32:
            self.pull_sum(source, vectors, out, weighted=weighted)
            return
        sums = self.partial(source) if source in self.data.partial else self.empty(out.shape[1])
        self.pull_sum(source, vectors, sums, weighted=weighted)
        if self.data.neighbors[source].last_pass:
            out.copy_(sums)

    def pull_max(self, source: str, out: Tensor, ties: Tensor) -> None:
        """Maximum over neighbours of ``source`` into ``out`` (T x D), and how many reach it into ``ties``."""
        self.data.kernels.pull_max(self.data.neighbors[source], self.first, out, ties)

    def pull_max_gradient(self, source: str, value: Tensor, out: Tensor) -> None:
        """Gradient of the maximum for the rows ``value`` into ``out`` (T x D each)."""
        self.data.kernels.pull_max_gradient(self.data.neighbors[source], self.first, value, out)

    def empty(self, columns: int) -> Tensor:
        """T x ``columns`` float32, to be filled."""
        return torch.empty(self.num_rows, columns, device=self.data.device)

    def neighborhood(self, source: str, convolution: Convolution, rows: RowContext) -> tuple[Tensor, Neighborhood]:
        """The tile's part of the graph, and the rows of ``source``, which is whole, at its nodes ((T + H) x D).

        On a CPU: nothing else runs convolutions as they are.
        """
        n = self.data.neighbors[source]
        pointers, edges = self._edges(n.indptr.numpy())
        reached = PairRows(indptr=pointers, sources=n.indices.numpy()[edges])
        edge_data = {given: n.edge_data[given].numpy()[edges] for given in convolution.edge_inputs}
        if convolution.sampler is not None and rows.training:
            first_pair, kinds = int(n.indptr[self.first]), edge_data[EdgeInput.TYPES]
            extended = convolution.sampler.extend(reached, kinds, self._known_edges(), rows, first_pair)
            reached, edge_data[EdgeInput.TYPES] = extended
        part = neighborhood(reached.indptr, reached.sources, edge_data, n.own + self.first)
        # With mode "clip" numpy looks at each index once; every one is in range.
        return torch.from_numpy(n.local.numpy().take(part.rows, axis=0, mode="clip")), part

    def _known_edges(self) -> PairRows:
        """The graph's edges into the tile."""
        indptr, indices = (self.data.rows[name].numpy() for name in KNOWN_EDGES)
        pointers, edges = self._edges(indptr)
        return PairRows(indptr=pointers, sources=indices[edges])

    def _edges(self, indptr: Array) -> tuple[Array, slice]:
        """Where the edges of each node begin (from 0, T + 1), and which of the block's they are."""
        pointers = indptr[self.first : self._stop + 1]
        first, stop = int(pointers[0] - indptr[0]), int(pointers[-1] - indptr[0])
        return pointers - pointers[0], slice(first, stop)


def aligned_rows(tensor: Tensor) -> Tensor:
    """``tensor``, or a copy where it does not begin at a cache line.

    Where a tile begins in its buffer depends on the blocks, and products of a BLAS library may depend on the alignment.
    With a multiple of 16 rows in a chunk, as is the default, every tile is aligned.
    """
    return tensor if tensor.data_ptr() % ALIGNMENT_BYTES == 0 else tensor.clone()
