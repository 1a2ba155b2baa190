"""The work of one step on one tile: pull from neighbours, run the segment, differentiate, publish.

Shape legend: B rows of a block, T rows of a tile, D width. Tiles write to rows of their own only, so that several can
be in work at once; what they sum into (loss, parameter gradients) they return, to be added up in order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from flexgnn.core.plan.names import (
    EVALUATION,
    LABELS,
    SPLIT,
    gradient_name,
    partial_gradient_name,
    prefixed,
    published_name,
    pulled_gradient_name,
    ties_name,
)
from flexgnn.core.plan.packing import ALIGNMENT_BYTES
from flexgnn.core.plan.uses import consumers, local_consumers
from flexgnn.core.plan.workload import Phase, Workload
from flexgnn.core.program.adjacency import AdjacencyVectors, vector_names
from flexgnn.core.program.bfloat16 import as_stored, stored_tensor
from flexgnn.core.program.criterion import TrainingLoss
from flexgnn.core.program.kernels import NO_VECTOR, pull_max, pull_max_gradient, pull_sum
from flexgnn.core.program.loss import tile_loss, tile_scores
from flexgnn.core.program.moments import Moments
from flexgnn.core.program.program import Aggregation, RowContext, Segment
from flexgnn.core.program.segments import NamedTensors, run_backward, run_forward
from flexgnn.core.runtime.moments import add_moments_gradients, tile_moments
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


@dataclass(frozen=True, kw_only=True, eq=False)
class TileResult:
    """What a tile adds to the epoch's sums."""

    loss: float = 0.0
    scores: tuple[float, float, float] = (0, 0, 0)
    """Of training, validation and test nodes: right decisions, or absolute errors."""
    gradients: list[tuple[torch.nn.Parameter, Tensor]] = field(default_factory=list)
    moments: Mapping[str, Moments] = field(default_factory=dict)
    moment_gradients: Mapping[str, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None
    """T x C, where the step evaluates."""


class TileRunner:
    """Runs tiles of one workload."""

    def __init__(self, workload: Workload, loss: TrainingLoss, divisor: float, task: str) -> None:
        """``divisor``: of the loss; ``task``: what the labels are."""
        self._program, self._slices = workload.program, workload.slices
        self._loss_of_rows, self._divisor, self._task = loss, divisor, task
        self._rounded = workload.rounded

    def advance(self, data: StepData, field: str, tile: tuple[int, int]) -> None:
        """One pass of the pulls from ``field`` on one tile, by itself."""
        view = _TileView(data, tile)
        if view.phase.kind == "backward":
            for value in self._segment(view).outputs:
                for aggregation in consumers(self._program, value):
                    if gradient_name(aggregation) == field:
                        self._pull_gradient(view, aggregation, view.partial(field))
        else:
            self._aggregate(view, [field])

    def run(self, data: StepData, tile: tuple[int, int], rows: RowContext) -> TileResult:
        """One tile (rows of the block, from and to) of a step, with the last pass of its pulls if that is to come."""
        view = _TileView(data, tile)
        if view.phase.column_slice is not None:
            self._pull_slice(view, view.phase.column_slice)
            return TileResult()
        if view.phase.kind == "loss":
            return self._loss(view, rows)
        if view.phase.kind == "backward":
            return self._backward(view, rows)
        return self._forward(view, rows)

    def _segment(self, view: _TileView) -> Segment:
        segment = self._program.segments[view.phase.stage]
        if not view.phase.retains:
            return segment
        assert segment.retaining is not None, "the plan keeps hidden values of a segment that has none"
        return segment.retaining

    def _values(self, view: _TileView, segment: Segment) -> NamedTensors:
        values = {name: aligned_rows(view.tensor(prefixed(name, view.prefix))) for name in segment.inputs}
        return {**values, **view.data.moments}

    # Slices of columns

    def _pull_slice(self, view: _TileView, number: int) -> None:
        """Slice ``number`` of all that the phase pulls."""
        if view.phase.kind == "backward":
            for value in self._segment(view).outputs:
                for aggregation in consumers(self._program, value):
                    vectors, output = vector_names(aggregation.adjacency).transposed, pulled_gradient_name(aggregation)
                    self._pull_slice_of(view, number, aggregation, gradient_name(aggregation), output, vectors)
            return
        for aggregation in self._program.aggregations_at(view.phase.stage):
            source = prefixed(published_name(aggregation.input, aggregation), view.prefix)
            output, vectors = view.prefix + aggregation.output, vector_names(aggregation.adjacency)
            self._pull_slice_of(view, number, aggregation, source, output, vectors)

    def _pull_slice_of(
        self,
        view: _TileView,
        number: int,
        aggregation: Aggregation,
        source: str,
        output: str,
        vectors: AdjacencyVectors,
    ) -> None:
        if output in self._slices and number < len(self._slices[output]):
            out, weighted = self._slices[output][number], aggregation.adjacency.weighted
            view.sum_into(out, self._slices[source][number], vectors, weighted=weighted)

    # Forward

    def _aggregate(self, view: _TileView, fields: Collection[str]) -> None:
        """A pass of this stage's aggregations that pull from ``fields``."""
        for aggregation in self._program.aggregations_at(view.phase.stage):
            source = prefixed(published_name(aggregation.input, aggregation), view.prefix)
            if source not in fields:
                continue
            output, adjacency = view.prefix + aggregation.output, aggregation.adjacency
            if aggregation.reduce == "max":
                name, out = ties_name(aggregation), view.rows(output)
                view.pull_max(source, out, view.rows(name) if view.has(name) else np.empty_like(out))
            else:
                view.sum_into(output, source, vector_names(adjacency), weighted=adjacency.weighted)

    def _forward(self, view: _TileView, rows: RowContext) -> TileResult:
        program, segment, prefix = self._program, self._segment(view), view.prefix
        self._aggregate(view, view.awaited)
        outputs = run_forward(segment, self._values(view, segment), rows)
        if segment.stage == program.last_stage:
            logits = outputs[program.logits]
            return TileResult(logits=logits, scores=self._scores(view, logits) if program.labelled else (0, 0, 0))
        for value, tensor in outputs.items():
            if view.has(prefix + value):
                view.write(prefix + value, tensor)
            for aggregation in consumers(program, value):
                neighbor = vector_names(aggregation.adjacency).neighbor
                if neighbor is not None:
                    view.write(prefix + published_name(value, aggregation), tensor, scale=neighbor)

        def stored(value: str) -> Tensor:
            tensor = outputs[value] if value in outputs else view.tensor(value)
            return as_stored(tensor) if value in self._rounded else tensor

        return TileResult(moments=tile_moments(program, view.phase, stored))

    def _scores(self, view: _TileView, logits: Tensor) -> tuple[float, float, float]:
        return tile_scores(logits, view.tensor(LABELS), view.tensor(SPLIT), self._task)

    # Backward

    def _loss(self, view: _TileView, rows: RowContext) -> TileResult:
        logits_name = self._program.logits
        self._aggregate(view, view.awaited)
        loss, scores = 0.0, (0.0, 0.0, 0.0)

        def gradients_of(outputs: NamedTensors) -> NamedTensors:
            nonlocal loss, scores
            logits = outputs[logits_name]
            labels, split = view.tensor(LABELS), view.tensor(SPLIT)
            found = tile_loss(logits, labels, split, self._loss_of_rows, self._divisor)
            loss, scores = found.loss, self._scores(view, logits)
            return {logits_name: found.gradient}

        segment = self._segment(view)
        values = self._values(view, segment)
        inputs, parameters = run_backward(segment, values, rows, self._program.needs_grad, gradients_of)
        of_moments = self._leave_gradients(view, segment, inputs)
        gradients = _present(segment, parameters)
        return TileResult(loss=loss, scores=scores, gradients=gradients, moment_gradients=of_moments)

    def _backward(self, view: _TileView, rows: RowContext) -> TileResult:
        segment = self._segment(view)
        values = dict(view.data.moments)
        for name in (*segment.inputs, *segment.hidden):
            values[name] = self._read_again(view, name, rows)
        inputs, parameters = run_backward(
            segment,
            values,
            rows,
            self._program.needs_grad,
            lambda _: self._output_gradients(view, segment, rows),
        )
        of_moments = self._leave_gradients(view, segment, inputs)
        return TileResult(gradients=_present(segment, parameters), moment_gradients=of_moments)

    def _read_again(self, view: _TileView, name: str, rows: RowContext) -> Tensor:
        """A value in backward: read, or computed again."""
        if name not in view.phase.recomputes:
            return aligned_rows(view.tensor(name))
        producer = next(s for s in self._program.segments if name in s.outputs)
        value = run_forward(producer, self._values(view, producer), rows)[name]
        return as_stored(value) if name in self._rounded else value

    def _output_gradients(self, view: _TileView, segment: Segment, rows: RowContext) -> NamedTensors:
        """Gradients of a segment's outputs: pulled from those who aggregated them, plus what later segments left."""
        needed = [name for name in segment.outputs if name in self._program.needs_grad]
        return {name: self._output_gradient(view, segment.stage, name, rows) for name in needed}

    def _output_gradient(self, view: _TileView, stage: int, name: str, rows: RowContext) -> Tensor:
        total: Tensor | None = None
        for aggregation in consumers(self._program, name):
            gradient = self._pulled_gradient(view, aggregation)
            total = gradient if total is None else total.add_(gradient)
        for later in local_consumers(self._program, name, stage):
            partial = view.tensor(partial_gradient_name(name, later.stage))
            total = partial.clone() if total is None else total.add_(partial)
        total = torch.zeros(view.num_rows, self._program.widths[name]) if total is None else total
        moments, shares = view.data.moments, view.data.moment_shares
        add_moments_gradients(self._program, name, total, moments, shares, lambda: self._read_again(view, name, rows))
        return total

    def _pulled_gradient(self, view: _TileView, aggregation: Aggregation) -> Tensor:
        """The gradient that reaches a value through an aggregation of it: the last pass, and the sum."""
        name = gradient_name(aggregation)
        if name in self._slices:
            return view.tensor(pulled_gradient_name(aggregation))
        in_parts = name in view.data.partial
        shape = (view.num_rows, self._program.widths[aggregation.input])
        sums = view.partial(name) if in_parts else np.empty(shape, dtype=np.float32)
        if name in view.awaited:
            self._pull_gradient(view, aggregation, sums)
        return torch.from_numpy(sums)

    def _pull_gradient(self, view: _TileView, aggregation: Aggregation, sums: Array) -> None:
        name = gradient_name(aggregation)
        if aggregation.reduce == "max":
            view.pull_max_gradient(name, view.rows(aggregation.input), sums)
        else:
            view.pull_sum(
                name, vector_names(aggregation.adjacency).transposed, sums, weighted=aggregation.adjacency.weighted
            )

    def _leave_gradients(self, view: _TileView, segment: Segment, inputs: NamedTensors) -> NamedTensors:
        """Write gradients of a segment's inputs where earlier stages will look for them; return those of moments."""
        of_moments = {name: inputs.pop(name) for name in segment.moments if name in inputs}
        aggregated = {a.output: a for a in self._program.aggregations_at(segment.stage)}
        for name, gradient in inputs.items():
            if name not in aggregated:
                view.write(partial_gradient_name(name, segment.stage), gradient)
            elif aggregated[name].input in self._program.needs_grad:
                self._publish_gradient(view, aggregated[name], gradient)
        return of_moments

    def _publish_gradient(self, view: _TileView, aggregation: Aggregation, gradient: Tensor) -> None:
        name = gradient_name(aggregation)
        if aggregation.reduce == "max":
            out, width = view.tensor(name), gradient.shape[1]
            torch.div(gradient, view.tensor(ties_name(aggregation)).clamp(min=1), out=out[:, :width])
            out[:, width:] = view.tensor(aggregation.output)
        else:
            view.write(name, gradient, scale=vector_names(aggregation.adjacency).row)


class _TileView:
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
        pull_sum(*self._reach(n), n.indptr, n.indices, weights, loops, scale, n.own, self.first, out)

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
        pull_max(*self._reach(n), n.indptr, n.indices, self.first, out, ties)

    def pull_max_gradient(self, source: str, value: Array, out: Array) -> None:
        """Gradient of the maximum for the rows ``value`` into ``out`` (T x D each)."""
        n = self.data.neighbors[source]
        pull_max_gradient(*self._reach(n), n.indptr, n.indices, self.first, value, out)

    def _reach(self, n: Neighbors) -> tuple[Array, Array, Array, int, int, Array, Array, bool]:
        return n.local, n.hubs, n.halo, n.halo_start, n.halo_stop, n.cursor, n.next_cursor, n.last_pass


def aligned_rows(tensor: Tensor) -> Tensor:
    """``tensor``, or a copy where it does not begin at a cache line.

    Where a tile begins in its buffer depends on the blocks, and products of a BLAS library may depend on the alignment.
    With a multiple of 16 rows in a chunk, as is the default, every tile is aligned.
    """
    return tensor if tensor.data_ptr() % ALIGNMENT_BYTES == 0 else tensor.clone()


def _present(segment: Segment, gradients: list[Tensor | None]) -> list[tuple[torch.nn.Parameter, Tensor]]:
    return [(p, g) for p, g in zip(segment.parameters, gradients, strict=True) if g is not None]
