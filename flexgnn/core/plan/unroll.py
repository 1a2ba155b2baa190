"""Program and graph to workload: which fields there are, and what each phase does with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flexgnn.core.graph.layout import LINKS
from flexgnn.core.graph.store import GraphInfo
from flexgnn.core.plan.aggregating import (
    gradient_columns,
    input_gradient_reads,
    kept_beside,
    publishing_reads,
    query_gradient_reads,
    vectors_of,
)
from flexgnn.core.plan.blocks import Blocks
from flexgnn.core.plan.decisions import Recomputed
from flexgnn.core.plan.field_table import FieldTable
from flexgnn.core.plan.locality import Locality
from flexgnn.core.plan.moments import differentiated_moments, moments_made
from flexgnn.core.plan.names import (
    EVALUATION,
    KNOWN_EDGES,
    LABELS,
    SPLIT,
    gradient_name,
    partial_gradient_name,
    prefixed,
    published_name,
    pulled_gradient_name,
    softmax_name,
    ties_name,
)
from flexgnn.core.plan.slices import sliced_aggregations
from flexgnn.core.plan.topology import Direction, HaloCounts
from flexgnn.core.plan.uses import (
    backward_stages,
    consumers,
    is_differentiated,
    local_consumers,
    queried,
    retaining,
)
from flexgnn.core.plan.work import Work
from flexgnn.core.plan.workload import Phase, PhaseKind, Pull, Workload
from flexgnn.core.program.adjacency import vector_names
from flexgnn.core.program.program import Aggregation, Program, Segment


@dataclass(frozen=True, kw_only=True)
class PhaseCost:
    """What a phase needs beside its fields; see :class:`Phase`."""

    workspace_bytes: int
    work: Work


CostOf = Callable[[PhaseKind, Segment], PhaseCost]


@dataclass(frozen=True)
class SlicedPull:
    """An aggregation, or its gradient, that is made slice by slice."""

    aggregation: Aggregation
    source: str
    """The field that is pulled from, whose slices are fields."""
    output: str
    """Likewise, that is pulled into."""
    vectors: tuple[str, ...]
    """Read at the block's own rows."""
    direction: Direction


class Unroller:
    """Builds the :class:`Workload` of one program over one grouping of blocks."""

    def __init__(
        self,
        program: Program,
        info: GraphInfo,
        blocks: Blocks,
        halos: dict[Direction, HaloCounts],
        localities: dict[Direction, Locality],
        cost_of: CostOf,
        recomputed: Recomputed,
        column_slices: int,
        rounded: frozenset[str],
    ) -> None:
        self._program, self._info, self._blocks, self._halos = program, info, blocks, halos
        self._localities, self._cost_of, self._recomputed = localities, cost_of, recomputed
        self._rounded = rounded
        self._labels = [] if info.task == LINKS else [LABELS, SPLIT]
        self._phases: list[Phase] = []
        self._published: dict[str, Pull] = {}
        self._sliced = sliced_aggregations(program, column_slices)
        self._added_up = {gradient_name(a) for a in program.aggregations if a.convolution is not None}
        self._table = FieldTable(program, info, blocks, halos, self._sliced, column_slices, rounded)

    def build(self, *, training: bool, evaluation: bool) -> Workload:
        """The workload of epochs that train, evaluate, or do both."""
        last = self._program.last_stage
        if training:
            for stage in range(last):
                self._forward(stage, "forward", keep=True)
            self._loss(last)
            for stage in backward_stages(self._program):
                self._backward(stage)
        if evaluation:
            for stage in range(last + 1):
                self._forward(stage, "evaluate", keep=False)
        return Workload(
            program=self._program,
            blocks=self._blocks,
            halos=self._halos,
            localities=self._localities,
            fields=self._table.fields,
            phases=tuple(self._phases),
            published=self._published,
            slices={name: slices for name, slices in self._table.slices.items() if slices},
            rounded=self._rounded,
        )

    # Phases

    def _descending(self, column_slice: int | None) -> bool:
        """A phase begins where the one before ended, so that what was used last is used first.

        But sums over blocks are in the order of visits, and must be the same with and without phases of slices.
        """
        if column_slice is not None:
            return not self._phases[-1].descending
        return sum(phase.column_slice is None for phase in self._phases) % 2 == 1

    def _topology(self, direction: Direction) -> Direction:
        return "in" if self._info.symmetric else direction

    def _pull(
        self,
        kind: PhaseKind,
        field: str,
        aggregation: Aggregation,
        direction: Direction,
        output: str,
        width: int,
        *,
        in_slices: bool = False,
    ) -> Pull:
        attention, convolution = aggregation.attention, aggregation.convolution
        over_pairs = convolution is not None and convolution.over == "pairs"
        pull = Pull(
            field=field,
            direction=direction,
            topology="pairs" if over_pairs else self._topology(direction),
            weighted=aggregation.adjacency.weighted,
            width=width,
            reduce=aggregation.reduce,
            in_slices=in_slices,
            rounded=output in self._rounded,
            attention=attention,
            edge_inputs=() if convolution is None else convolution.edge_inputs,
            positions=attention is not None and attention.dropout > 0 and kind != "evaluate",
        )
        self._published[field] = pull
        return pull

    def _append(self, kind: PhaseKind, stage: int, reads: list[str], pulls: list[Pull], writes: list[str]) -> None:
        segment = self._program.segments[stage]
        retained = self._retaining(segment) if kind in ("forward", "backward") else None
        costs = [self._cost_of(kind, retained or segment)]
        recomputes = [name for name in reads if kind == "backward" and name in self._recomputed.values]
        for name in recomputes:
            producer = self._producer(name)
            costs.append(self._cost_of("forward", producer))
            reads = [read for read in reads if read != name] + list(producer.inputs)
        self._phases.append(
            Phase(
                index=len(self._phases),
                kind=kind,
                stage=stage,
                reads=tuple(self._table.in_slices(reads)),
                pulls=tuple(pulls),
                writes=tuple(self._table.in_slices(writes)),
                adds_to=tuple(name for name in writes if name in self._added_up),
                recomputes=tuple(recomputes),
                retains=retained is not None,
                workspace_bytes=sum(cost.workspace_bytes for cost in costs),
                work=sum((cost.work for cost in costs), self._publishing(kind, stage, reads, writes)),
                descending=self._descending(None),
            )
        )

    def _pull_slices(self, kind: PhaseKind, stage: int, pulls: list[SlicedPull]) -> None:
        """Phases that pull slice after slice."""
        for number in range(max((len(self._table.slices[pull.source]) for pull in pulls), default=0)):
            now = [pull for pull in pulls if number < len(self._table.slices[pull.source])]
            outputs = [self._table.slices[pull.output][number] for pull in now]
            self._phases.append(
                Phase(
                    index=len(self._phases),
                    kind=kind,
                    stage=stage,
                    reads=tuple(dict.fromkeys(name for pull in now for name in pull.vectors)),
                    pulls=tuple(
                        self._pull(
                            kind,
                            self._table.slices[pull.source][number],
                            pull.aggregation,
                            pull.direction,
                            pull.output,
                            self._table.fields[out].width or 1,
                            in_slices=True,
                        )
                        for pull, out in zip(now, outputs, strict=True)
                    ),
                    writes=tuple(outputs),
                    recomputes=(),
                    workspace_bytes=0,
                    work=Work(),
                    descending=self._descending(number),
                    column_slice=number,
                )
            )

    def _publishing(self, kind: PhaseKind, stage: int, reads: list[str], writes: list[str]) -> Work:
        """What a tile does beside its segment: it copies, scales or rounds what it leaves, and adds up gradients."""
        rows = min(self._blocks.tile_rows, self._info.num_nodes)
        prefix = EVALUATION if kind == "evaluate" else ""
        pulled = set()
        if kind != "backward":
            aggregations = self._program.aggregations_at(stage)
            pulled = {prefix + a.output for a in aggregations}
            pulled |= {prefix + name for a in aggregations for name in (ties_name(a), softmax_name(a))}
        copied = [name for name in dict.fromkeys(writes) if name not in pulled or name in self._rounded]
        # Sums that were rounded are read at once.
        copied += [n for n in (*reads, *pulled.intersection(writes)) if n in self._table.slices or n in self._rounded]
        parts = [[self._table.fields[part] for part in self._table.in_slices([name])] for name in copied]
        sizes = [rows * sum(f.row_bytes + 4 * (f.width or 1) for f in of_name) for of_name in parts]
        segment = self._program.segments[stage]
        if kind == "backward":
            for value in segment.outputs:
                sources = len(consumers(self._program, value)) + len(local_consumers(self._program, value, stage))
                if value in self._program.needs_grad and sources > 1:
                    sizes += [3 * rows * 4 * self._program.widths[value]] * (sources - 1)
        if kind in ("loss", "backward"):
            sizes += [3 * 4 * parameter.numel() for parameter in segment.parameters]
        return Work(elementwise_bytes=tuple(sizes), calls=len(sizes))

    def _retaining(self, segment: Segment) -> Segment | None:
        """The segment with its hidden values, if these are kept for backward."""
        again = segment.stage in self._recomputed.segments
        return None if again else retaining(self._program, segment.stage, self._rounded)

    def _producer(self, value: str) -> Segment:
        return next(s for s in self._program.segments if value in s.outputs)

    def _aggregate(self, stage: int, kind: PhaseKind) -> tuple[list[str], list[Pull], list[str]]:
        """Fields read, pulls made and fields written by the aggregations of ``stage``.

        Those in slices have phases of their own, before.
        """
        program, prefix = self._program, EVALUATION if kind == "evaluate" else ""
        reads, pulls, writes, sliced = list[str](), list[Pull](), list[str](), list[SlicedPull]()
        for aggregation in program.aggregations_at(stage):
            width = program.widths[aggregation.output]
            source = prefixed(published_name(aggregation.input, aggregation), prefix)
            output = self._table.add(prefix + aggregation.output, width)
            vectors = vectors_of(vector_names(aggregation.adjacency))
            if aggregation in self._sliced:
                sliced.append(SlicedPull(aggregation, source, output, vectors, "in"))
                reads.append(output)
                continue
            reads += vectors
            reads += () if aggregation.query is None else [prefix + aggregation.query]
            if aggregation.convolution is not None and aggregation.convolution.sampler is not None and not prefix:
                reads += KNOWN_EDGES
            pulls.append(self._pull(kind, source, aggregation, "in", output, width))
            writes.append(output)
            differentiated = is_differentiated(program, aggregation)
            kept = kept_beside(aggregation, width, training=kind != "evaluate", needs_grad=differentiated)
            writes += [self._table.add(prefix + name, columns) for name, columns in kept.items()]
        self._pull_slices("evaluate" if prefix else "forward", stage, sliced)
        return reads, pulls, writes

    def _carried(self, stage: int) -> list[str]:
        """Inputs of segment ``stage`` that are not of its own stage's aggregations."""
        aggregated = {a.output for a in self._program.aggregations_at(stage)}
        return [value for value in self._program.segments[stage].inputs if value not in aggregated]

    def _forward(self, stage: int, kind: PhaseKind, *, keep: bool) -> None:
        """One forward phase; ``keep`` holds on to what backward will read."""
        program, prefix = self._program, "" if keep else EVALUATION
        reads, pulls, writes = self._aggregate(stage, kind)
        reads += [prefixed(value, prefix) for value in self._carried(stage)]
        for value in program.segments[stage].outputs:
            if local_consumers(program, value, stage) or queried(program, value):
                writes.append(self._table.add(prefix + value, program.widths[value]))
            writes += self._publish(value, prefix, reads)
        retained = self._retaining(program.segments[stage])
        if keep and retained is not None:
            writes += [self._table.add(value, width) for value, width in retained.hidden.items()]
        if kind == "evaluate" and stage == program.last_stage and program.labelled:
            reads += self._labels
        if writes or stage == program.last_stage or moments_made(program, stage, kind):
            self._append(kind, stage, reads, pulls, writes)

    def _publish(self, value: str, prefix: str, reads: list[str]) -> list[str]:
        """The fields that other blocks pull ``value`` from, with the vectors that scale it added to ``reads``."""
        names = []
        for aggregation in consumers(self._program, value):
            neighbor = vector_names(aggregation.adjacency).neighbor
            if neighbor is not None:
                reads.append(neighbor)
            names.append(self._table.add(prefix + published_name(value, aggregation), self._program.widths[value]))
        return names

    def _gradient_writes(self, segment: Segment, reads: list[str]) -> list[str]:
        """The gradients that the backward pass of ``segment`` leaves for others; adds what making them reads."""
        program, writes = self._program, []
        for aggregation in program.aggregations_at(segment.stage):
            if not is_differentiated(program, aggregation):
                continue
            columns = gradient_columns(aggregation, program.widths)
            writes.append(self._table.add(gradient_name(aggregation), columns))
            reads += publishing_reads(aggregation)
        for value in self._carried(segment.stage):
            if value in program.needs_grad:
                writes.append(self._table.add(partial_gradient_name(value, segment.stage), program.widths[value]))
        return writes

    def _loss(self, stage: int) -> None:
        """The last stage: forward, loss and backward of each block in one step."""
        reads, pulls, writes = self._aggregate(stage, "loss")
        reads += [*self._carried(stage), *self._labels]
        writes += self._gradient_writes(self._program.segments[stage], reads)
        self._append("loss", stage, reads, pulls, writes)

    def _backward(self, stage: int) -> None:
        program = self._program
        segment = program.segments[stage]
        reads, pulls, sliced = list(segment.inputs), list[Pull](), list[SlicedPull]()
        retained = self._retaining(segment)
        reads += () if retained is None else retained.hidden
        for value in segment.outputs:
            if value not in program.needs_grad:
                continue
            for aggregation in consumers(program, value):
                source, width = gradient_name(aggregation), program.widths[value]
                if aggregation.convolution is not None:
                    reads.append(source)
                    continue
                output, beside = pulled_gradient_name(aggregation), input_gradient_reads(aggregation)
                if aggregation in self._sliced:
                    self._table.add(output, width)
                    sliced.append(SlicedPull(aggregation, source, output, tuple(beside), "out"))
                    reads.append(output)
                    continue
                reads += beside
                pulls.append(self._pull("backward", source, aggregation, "out", output, width))
            for aggregation in queried(program, value):
                # Scores are computed again, from what was published forward.
                source, width = published_name(aggregation.input, aggregation), program.widths[value]
                reads += query_gradient_reads(aggregation, gradient_name(aggregation))
                pulls.append(self._pull("backward", source, aggregation, "in", value, width))
            reads += [partial_gradient_name(value, s.stage) for s in local_consumers(program, value, stage)]
            reads += [value] if differentiated_moments(program, value) else []
        for aggregation in program.aggregations_at(stage):
            if aggregation.convolution is not None and aggregation.output in program.needs_grad:
                # It is run again, to be differentiated.
                source, width = published_name(aggregation.input, aggregation), program.widths[aggregation.output]
                pulls.append(self._pull("backward", source, aggregation, "in", aggregation.output, width))
        writes = self._gradient_writes(segment, reads)
        self._pull_slices("backward", stage, sliced)
        self._append("backward", stage, reads, pulls, writes)
