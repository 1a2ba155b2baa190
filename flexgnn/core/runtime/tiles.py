"""The work of one step on one tile: pull from neighbours, run the segment, differentiate, publish.

Shape legend: B rows of a block, T rows of a tile, D width. Tiles write to rows of their own only, so that several can
be in work at once; what they sum into (loss, parameter gradients) they return, to be added up in order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from flexgnn.core.graph.layout import LINKS
from flexgnn.core.plan.names import (
    LABELS,
    SPLIT,
    gradient_name,
    partial_gradient_name,
    prefixed,
    published_name,
    pulled_gradient_name,
)
from flexgnn.core.plan.uses import consumers, is_differentiated, local_consumers, queried
from flexgnn.core.plan.workload import Workload
from flexgnn.core.program.adjacency import AdjacencyVectors, vector_names
from flexgnn.core.program.bfloat16 import as_stored
from flexgnn.core.program.criterion import TrainingLoss
from flexgnn.core.program.loss import tile_loss, tile_scores
from flexgnn.core.program.moments import Moments
from flexgnn.core.program.program import Aggregation, Segment
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.program.segments import NamedTensors, run_backward, run_forward
from flexgnn.core.runtime.moments import add_moments_gradients, tile_moments
from flexgnn.core.runtime.reductions import (
    aggregate,
    differentiate,
    publish_gradient,
    pull_gradient,
    pull_query_gradient,
    source_of,
)
from flexgnn.core.runtime.tile_view import StepData, TileView, aligned_rows
from flexgnn.core.tier import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class TileResult:
    """What a tile adds to the epoch's sums."""

    counted: Tensor | None = None
    """float64 [4]: the loss, and of training, validation and test nodes right decisions, or absolute errors; None: of
    nothing. It stays on the device, since to read it would be to wait for it."""
    gradients: list[tuple[torch.nn.Parameter, Tensor]] = field(default_factory=list)
    moments: Mapping[str, Moments] = field(default_factory=dict)
    moment_gradients: Mapping[str, Tensor] = field(default_factory=dict)
    added: Mapping[str, tuple[Array, Tensor]] = field(default_factory=dict)
    """By field that steps add to: at which rows of the graph (int64, each once), and what."""
    logits: Tensor | None = None
    """T x C, where the step evaluates."""


class TileRunner:
    """Runs tiles of one workload."""

    def __init__(self, workload: Workload, loss: TrainingLoss, divisor: float, task: str) -> None:
        """``divisor``: of the loss; ``task``: what the labels are."""
        self._program, self._slices = workload.program, workload.slices
        self._loss_of_rows, self._divisor, self._task = loss, divisor, task
        self._rounded = workload.rounded

    def advance(self, data: StepData, field: str, tile: tuple[int, int], rows: RowContext) -> None:
        """One pass of the pulls from ``field`` on one tile, by itself."""
        view = TileView(data, tile)
        if view.phase.kind == "backward":
            for value in self._segment(view).outputs:
                for aggregation in consumers(self._program, value):
                    if gradient_name(aggregation) == field:
                        pull_gradient(view, aggregation, view.partial(field), rows)
                for aggregation in queried(self._program, value):
                    if source_of(view, aggregation) == field:
                        pull_query_gradient(view, aggregation, view.partial(field), rows)
        else:
            self._aggregate(view, [field], rows)

    def run(self, data: StepData, tile: tuple[int, int], rows: RowContext) -> TileResult:
        """One tile (rows of the block, from and to) of a step, with the last pass of its pulls if that is to come."""
        view = TileView(data, tile)
        if view.phase.column_slice is not None:
            self._pull_slice(view, view.phase.column_slice)
            return TileResult()
        if view.phase.kind == "loss":
            return self._loss(view, rows)
        if view.phase.kind == "backward":
            return self._backward(view, rows)
        return self._forward(view, rows)

    def _segment(self, view: TileView) -> Segment:
        segment = self._program.segments[view.phase.stage]
        if not view.phase.retains:
            return segment
        assert segment.retaining is not None, "the plan keeps hidden values of a segment that has none"
        return segment.retaining

    def _values(self, view: TileView, segment: Segment) -> NamedTensors:
        values = {name: aligned_rows(view.tensor(prefixed(name, view.prefix))) for name in segment.inputs}
        return {**values, **view.data.moments}

    # Slices of columns

    def _pull_slice(self, view: TileView, number: int) -> None:
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
        view: TileView,
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

    def _aggregate(self, view: TileView, fields: Collection[str], rows: RowContext) -> None:
        """A pass of this stage's aggregations that pull from ``fields``."""
        for aggregation in self._program.aggregations_at(view.phase.stage):
            if source_of(view, aggregation) in fields:
                aggregate(view, aggregation, rows)

    def _forward(self, view: TileView, rows: RowContext) -> TileResult:
        program, segment, prefix = self._program, self._segment(view), view.prefix
        self._aggregate(view, view.awaited, rows)
        outputs = run_forward(segment, self._values(view, segment), rows)
        if segment.stage == program.last_stage:
            logits = outputs[program.logits]
            return TileResult(logits=logits, counted=self._counted(view, logits) if program.labelled else None)
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

    def _counted(self, view: TileView, logits: Tensor, loss: Tensor | None = None) -> Tensor:
        """As in :class:`TileResult`; ``loss`` is float64, without dimensions."""
        scores = tile_scores(logits, *self._labels(view), self._task)
        return torch.cat([scores.new_zeros(1) if loss is None else loss.reshape(1), scores])

    def _labels(self, view: TileView) -> tuple[Tensor, Tensor]:
        """Labels and split; of no nodes where links are predicted."""
        if self._task == LINKS:
            return torch.empty(0), torch.empty(0, dtype=torch.uint8)
        return view.tensor(LABELS), view.tensor(SPLIT)

    # Backward

    def _loss(self, view: TileView, rows: RowContext) -> TileResult:
        logits_name = self._program.logits
        self._aggregate(view, view.awaited, rows)
        counted: Tensor | None = None

        def gradients_of(outputs: NamedTensors) -> NamedTensors:
            nonlocal counted
            logits = outputs[logits_name]
            found = tile_loss(logits, *self._labels(view), self._loss_of_rows, self._divisor)
            counted = self._counted(view, logits, found.loss)
            return {logits_name: found.gradient}

        segment = self._segment(view)
        values = self._values(view, segment)
        inputs, parameters = run_backward(segment, values, rows, self._program.needs_grad, gradients_of)
        left = self._leave_gradients(view, segment, inputs, rows)
        return replace(left, counted=counted, gradients=_present(segment, parameters) + left.gradients)

    def _backward(self, view: TileView, rows: RowContext) -> TileResult:
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
        left = self._leave_gradients(view, segment, inputs, rows)
        return replace(left, gradients=_present(segment, parameters) + left.gradients)

    def _read_again(self, view: TileView, name: str, rows: RowContext) -> Tensor:
        """A value in backward: read, or computed again."""
        if name not in view.phase.recomputes:
            return aligned_rows(view.tensor(name))
        producer = next(s for s in self._program.segments if name in s.outputs)
        value = run_forward(producer, self._values(view, producer), rows)[name]
        return as_stored(value) if name in self._rounded else value

    def _output_gradients(self, view: TileView, segment: Segment, rows: RowContext) -> NamedTensors:
        """Gradients of a segment's outputs: pulled from those who aggregated them, plus what later segments left."""
        needed = [name for name in segment.outputs if name in self._program.needs_grad]
        return {name: self._output_gradient(view, segment.stage, name, rows) for name in needed}

    def _output_gradient(self, view: TileView, stage: int, name: str, rows: RowContext) -> Tensor:
        total: Tensor | None = None
        for aggregation in consumers(self._program, name):
            gradient = self._gradient_through(view, aggregation, rows)
            total = gradient if total is None else total.add_(gradient)
        for aggregation in queried(self._program, name):
            source = source_of(view, aggregation)
            gradient = self._pulled(view, source, name, partial(pull_query_gradient, view, aggregation), rows)
            total = gradient if total is None else total.add_(gradient)
        for later in local_consumers(self._program, name, stage):
            given = view.tensor(partial_gradient_name(name, later.stage))
            total = given.clone() if total is None else total.add_(given)
        total = view.empty(self._program.widths[name]).zero_() if total is None else total
        moments, shares = view.data.moments, view.data.moment_shares
        add_moments_gradients(self._program, name, total, moments, shares, lambda: self._read_again(view, name, rows))
        return total

    def _gradient_through(self, view: TileView, aggregation: Aggregation, rows: RowContext) -> Tensor:
        """The gradient that reaches a value through an aggregation of it: the last pass, and the sum."""
        name = gradient_name(aggregation)
        if aggregation.convolution is not None:
            return view.tensor(name).clone()
        if name in self._slices:
            return view.tensor(pulled_gradient_name(aggregation))
        return self._pulled(view, name, aggregation.input, partial(pull_gradient, view, aggregation), rows)

    def _pulled(
        self, view: TileView, field: str, value: str, pull: Callable[[Tensor, RowContext], None], rows: RowContext
    ) -> Tensor:
        """The gradient of ``value`` that is pulled from ``field``, once ``pull`` has made the last pass."""
        sums = view.partial(field) if field in view.data.partial else view.empty(self._program.widths[value])
        if field in view.awaited:
            pull(sums, rows)
        return sums

    def _leave_gradients(self, view: TileView, segment: Segment, inputs: NamedTensors, rows: RowContext) -> TileResult:
        """Write gradients of a segment's inputs where earlier stages will look for them; the others are returned."""
        of_moments = {name: inputs.pop(name) for name in segment.moments if name in inputs}
        of_parameters: list[tuple[torch.nn.Parameter, Tensor]] = []
        added: dict[str, tuple[Array, Tensor]] = {}
        aggregated = {a.output: a for a in self._program.aggregations_at(segment.stage)}
        for name, gradient in inputs.items():
            if name not in aggregated:
                view.write(partial_gradient_name(name, segment.stage), gradient)
            elif aggregated[name].convolution is not None:
                of_input = is_differentiated(self._program, aggregated[name])
                found = differentiate(view, aggregated[name], gradient, rows, of_input=of_input)
                of_parameters += found.of_parameters
                if found.of_rows is not None:
                    added[gradient_name(aggregated[name])] = found.rows, found.of_rows
            elif is_differentiated(self._program, aggregated[name]):
                publish_gradient(view, aggregated[name], gradient)
        return TileResult(gradients=of_parameters, moment_gradients=of_moments, added=added)


def _present(segment: Segment, gradients: list[Tensor | None]) -> list[tuple[torch.nn.Parameter, Tensor]]:
    return [(p, g) for p, g in zip(segment.parameters, gradients, strict=True) if g is not None]
