"""Program and graph to workload: which fields there are, and what each phase does with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flexgnn.core.graph.store import GraphInfo
from flexgnn.core.plan.blocks import Blocks
from flexgnn.core.plan.decisions import Recomputed
from flexgnn.core.plan.locality import Locality
from flexgnn.core.plan.moments import differentiated_moments, moments_made
from flexgnn.core.plan.names import (
    EVALUATION,
    LABELS,
    SPLIT,
    gradient_name,
    partial_gradient_name,
    prefixed,
    published_name,
    pulled_gradient_name,
    slice_name,
    ties_name,
)
from flexgnn.core.plan.slices import columns_of, sliced_aggregations, sliced_names
from flexgnn.core.plan.topology import Direction, HaloCounts
from flexgnn.core.plan.uses import backward_stages, consumers, local_consumers, retaining
from flexgnn.core.plan.work import Work
from flexgnn.core.plan.workload import Field, Phase, PhaseKind, Pull, Source, Workload
from flexgnn.core.program.adjacency import vector_names
from flexgnn.core.program.bfloat16 import BITS_DTYPE
from flexgnn.core.program.program import FEATURES, Aggregation, Program, Segment


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
        self._fields: dict[str, Field] = {}
        self._phases: list[Phase] = []
        self._published: dict[str, Pull] = {}
        self._num_slices = column_slices
        self._sliced = sliced_aggregations(program, column_slices)
        self._slices: dict[str, tuple[str, ...]] = dict.fromkeys(sliced_names(self._sliced), ())
        self._block_rows = tuple(blocks.rows(b) for b in range(blocks.count))
        self._add_constants()

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
            fields=self._fields,
            phases=tuple(self._phases),
            published=self._published,
            slices={name: slices for name, slices in self._slices.items() if slices},
            rounded=self._rounded,
        )

    # Fields

    def _add(
        self, name: str, width: int | None, source: Source = Source.STEP, dtype: str = "float32", **more: str
    ) -> str:
        dtype = BITS_DTYPE if name in self._rounded else dtype
        if name in self._slices:
            assert width is not None
            self._slices[name] = tuple(
                self._add_field(slice_name(name, columns), len(columns), source, dtype)
                for columns in columns_of(width, self._num_slices)
            )
            return name
        return self._add_field(name, width, source, dtype, **more)

    def _add_field(self, name: str, width: int | None, source: Source, dtype: str, **more: str) -> str:
        self._fields.setdefault(
            name, Field(name=name, dtype=dtype, rows=self._block_rows, width=width, source=source, **more)
        )
        return name

    def _in_slices(self, names: Iterable[str]) -> list[str]:
        """``names``, or those of their slices."""
        return [part for name in dict.fromkeys(names) for part in self._slices.get(name, (name,))]

    def _add_constants(self) -> None:
        info = self._info
        self._add(FEATURES, info.num_features, Source.STORE, array="features")
        for folded in self._program.folded:
            self._add(folded.name, self._program.widths[folded.name], Source.STORE, array=folded.array)
        columns = info.label_columns
        self._add(LABELS, columns, Source.STORE, dtype="int64" if columns is None else "float32", array="labels")
        self._add(SPLIT, None, Source.STORE, dtype="uint8", array="split")
        for direction, halos in self._halos.items():
            self._add_topology(direction, halos)
        for aggregation in self._program.aggregations:
            names = vector_names(aggregation.adjacency)
            for name in (names.row, names.loops):
                if name is not None:
                    self._add(name, None, Source.SETUP)

    def _add_topology(self, direction: Direction, halos: HaloCounts) -> None:
        sent = tuple(hubs + halos.sent_rows(b) for b, hubs in enumerate(halos.hub_rows))
        pointers = tuple(rows + 1 for rows in self._block_rows)
        edges = halos.edges
        rows_of = {"indptr": pointers, "indices": edges, "packed": edges, "sends": sent}
        if self._info.weighted:
            rows_of["weights"] = edges
        dtypes = {"indptr": "int64", "weights": "float32"}
        for array, rows in rows_of.items():
            name = f"{direction}/{array}"
            stored = array not in ("packed", "sends")
            self._fields[name] = Field(
                name=name,
                dtype=dtypes.get(array, "int32"),
                rows=rows,
                width=None,
                source=Source.STORE if stored else Source.SETUP,
                array=name if stored else None,
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
        self, field: str, aggregation: Aggregation, direction: Direction, output: str, slice_width: int | None = None
    ) -> Pull:
        pull = Pull(
            field=field,
            direction=direction,
            topology=self._topology(direction),
            weighted=aggregation.adjacency.weighted,
            width=self._program.widths[aggregation.output] if slice_width is None else slice_width,
            reduce=aggregation.reduce,
            in_slices=slice_width is not None,
            rounded=output in self._rounded,
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
                reads=tuple(self._in_slices(reads)),
                pulls=tuple(pulls),
                writes=tuple(self._in_slices(writes)),
                recomputes=tuple(recomputes),
                retains=retained is not None,
                workspace_bytes=sum(cost.workspace_bytes for cost in costs),
                work=sum((cost.work for cost in costs), self._publishing(kind, stage, reads, writes)),
                descending=self._descending(None),
            )
        )

    def _pull_slices(self, kind: PhaseKind, stage: int, pulls: list[SlicedPull]) -> None:
        """Phases that pull slice after slice."""
        for number in range(max((len(self._slices[pull.source]) for pull in pulls), default=0)):
            now = [pull for pull in pulls if number < len(self._slices[pull.source])]
            outputs = [self._slices[pull.output][number] for pull in now]
            self._phases.append(
                Phase(
                    index=len(self._phases),
                    kind=kind,
                    stage=stage,
                    reads=tuple(dict.fromkeys(name for pull in now for name in pull.vectors)),
                    pulls=tuple(
                        self._pull(
                            self._slices[pull.source][number],
                            pull.aggregation,
                            pull.direction,
                            pull.output,
                            self._fields[out].width,
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
        rows = min(self._info.chunk_rows, self._info.num_nodes)
        prefix = EVALUATION if kind == "evaluate" else ""
        pulled = set()
        if kind != "backward":
            aggregations = self._program.aggregations_at(stage)
            pulled = {prefix + a.output for a in aggregations} | {ties_name(a) for a in aggregations}
        copied = [name for name in dict.fromkeys(writes) if name not in pulled or name in self._rounded]
        # Sums that were rounded are read at once.
        copied += [n for n in (*reads, *pulled.intersection(writes)) if n in self._slices or n in self._rounded]
        parts = [[self._fields[part] for part in self._in_slices([name])] for name in copied]
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
            output = self._add(prefix + aggregation.output, width)
            names = vector_names(aggregation.adjacency)
            vectors = tuple(name for name in (names.row, names.loops) if name is not None)
            if aggregation in self._sliced:
                sliced.append(SlicedPull(aggregation, source, output, vectors, "in"))
                reads.append(output)
                continue
            reads += vectors
            pulls.append(self._pull(source, aggregation, "in", output))
            writes.append(output)
            if kind != "evaluate" and aggregation.reduce == "max" and aggregation.input in program.needs_grad:
                writes.append(self._add(ties_name(aggregation), width))
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
            if local_consumers(program, value, stage):
                writes.append(self._add(prefix + value, program.widths[value]))
            writes += self._publish(value, prefix, reads)
        retained = self._retaining(program.segments[stage])
        if keep and retained is not None:
            writes += [self._add(value, width) for value, width in retained.hidden.items()]
        if kind == "evaluate" and stage == program.last_stage and program.labelled:
            reads += [LABELS, SPLIT]
        if writes or stage == program.last_stage or moments_made(program, stage, kind):
            self._append(kind, stage, reads, pulls, writes)

    def _publish(self, value: str, prefix: str, reads: list[str]) -> list[str]:
        """The fields that other blocks pull ``value`` from, with the vectors that scale it added to ``reads``."""
        names = []
        for aggregation in consumers(self._program, value):
            neighbor = vector_names(aggregation.adjacency).neighbor
            if neighbor is not None:
                reads.append(neighbor)
            names.append(self._add(prefix + published_name(value, aggregation), self._program.widths[value]))
        return names

    def _gradient_writes(self, segment: Segment, reads: list[str]) -> list[str]:
        """The gradients that the backward pass of ``segment`` leaves for others; adds what making them reads."""
        program, writes = self._program, []
        for aggregation in program.aggregations_at(segment.stage):
            if aggregation.input not in program.needs_grad:
                continue
            width = program.widths[aggregation.output]
            columns = 2 * width if aggregation.reduce == "max" else width
            writes.append(self._add(gradient_name(aggregation), columns))
            row = vector_names(aggregation.adjacency).row
            reads += [row] if row is not None else []
        for value in self._carried(segment.stage):
            if value in program.needs_grad:
                writes.append(self._add(partial_gradient_name(value, segment.stage), program.widths[value]))
        return writes

    def _loss(self, stage: int) -> None:
        """The last stage: forward, loss and backward of each block in one step."""
        reads, pulls, writes = self._aggregate(stage, "loss")
        reads += [*self._carried(stage), LABELS, SPLIT]
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
                names = vector_names(aggregation.adjacency).transposed
                vectors = tuple(name for name in (names.row, names.loops) if name is not None)
                source = gradient_name(aggregation)
                if aggregation in self._sliced:
                    output = self._add(pulled_gradient_name(aggregation), program.widths[aggregation.output])
                    sliced.append(SlicedPull(aggregation, source, output, vectors, "out"))
                    reads.append(output)
                    continue
                reads += vectors
                pulls.append(self._pull(source, aggregation, "out", pulled_gradient_name(aggregation)))
                # Which inputs reached the maximum is seen by comparing them with it.
                reads += [value] if aggregation.reduce == "max" else []
            reads += [partial_gradient_name(value, s.stage) for s in local_consumers(program, value, stage)]
            reads += [value] if differentiated_moments(program, value) else []
        reads += [
            ties_name(a) for a in program.aggregations_at(stage) if a.reduce == "max" and a.input in program.needs_grad
        ]
        writes = self._gradient_writes(segment, reads)
        self._pull_slices("backward", stage, sliced)
        self._append("backward", stage, reads, pulls, writes)
