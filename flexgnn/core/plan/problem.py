"""What a planner is asked: a model, a graph and budgets, and the workloads they make over any grouping of blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from flexgnn.core.compute import CPU_TIER
from flexgnn.core.graph.layout import ALIGNED_ROWS, MULTI_LABEL, REGRESSION
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plan.blocks import Blocks, block_choices
from flexgnn.core.plan.convolutions import TileShape, convolutions_bytes, convolutions_run, convolutions_work
from flexgnn.core.plan.cost import Rates
from flexgnn.core.plan.counting import PullCounts, count_pairs, count_pulls
from flexgnn.core.plan.decisions import Recomputed
from flexgnn.core.plan.locality import Locality, measure_locality
from flexgnn.core.plan.machines import laptop_rates
from flexgnn.core.plan.moments import differentiated_moments, moments_made, moments_work
from flexgnn.core.plan.packing import ALIGNMENT_BYTES
from flexgnn.core.plan.paper import PaperGraph
from flexgnn.core.plan.placement import StorageTier, stored_parts
from flexgnn.core.plan.placing import place
from flexgnn.core.plan.setup_memory import setup_lists_bytes
from flexgnn.core.plan.slots import SlotGroup
from flexgnn.core.plan.stored_types import rounded_names
from flexgnn.core.plan.topology import Direction, HaloCounts
from flexgnn.core.plan.unroll import PhaseCost, Unroller
from flexgnn.core.plan.uses import backward_stages, consumers, local_consumers, queried, retaining
from flexgnn.core.plan.whole_blocks import with_whole_blocks
from flexgnn.core.plan.work import LossWork, Work, tile_work
from flexgnn.core.plan.workload import PhaseKind, Workload
from flexgnn.core.plan.workspace import bytes_for_rows, measured_bytes
from flexgnn.core.program.convolution import Convolution
from flexgnn.core.program.criterion import TrainingLoss, default_loss
from flexgnn.core.program.loss import tile_loss, tile_scores
from flexgnn.core.program.moments import moments_gradient
from flexgnn.core.program.program import Program, Segment
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.program.segments import NamedTensors, run_backward, run_forward
from flexgnn.core.tier import Array

_MOST_BLOCKS = 1024
"""What blocks need of each other is a matrix."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanningProblem:
    """Everything that a planner may look at. Planners touch no tensor."""

    program: Program
    store: GraphStore | PaperGraph
    budget_bytes: int
    """Of the compute tier."""
    compute_tier: str
    """Its name, as in ``ram``."""
    storage_tiers: tuple[StorageTier, ...]
    """What lies below it; one or more."""
    threads: int
    """Tiles in work at the same time."""
    least_tile_rows: int = 1
    """A tile is as many chunks as make so many rows: one, if a chunk does."""
    training: bool
    evaluation: bool
    """Whether the plan covers an evaluation pass: after training, or by itself."""
    rates: Rates = field(default_factory=laptop_rates)
    wanted: Mapping[str, str] = field(default_factory=dict)
    """By tensor class, the storage tier that the user wants it on."""
    storage_dtype: str = "float32"
    """Of values and gradients, one of :data:`~flexgnn.core.plan.stored_types.STORAGE_DTYPES`."""
    loss: TrainingLoss | None = None
    """None: the default for the graph's labels."""

    @property
    def tile_rows(self) -> int:
        """Of every tile but the last."""
        chunk_rows = self.store.info.chunk_rows
        return chunk_rows * -(-min(self.least_tile_rows, self.store.info.num_nodes) // chunk_rows)

    @property
    def separate(self) -> bool:
        """Whether the compute tier is apart from host memory."""
        return self.compute_tier != CPU_TIER

    @property
    def alignment_bytes(self) -> int:
        """Of every slot in the compute tier."""
        return max(ALIGNMENT_BYTES, *(tier.alignment_bytes for tier in self.storage_tiers))

    def placed(self, workload: Workload, groups: Sequence[SlotGroup]) -> dict[str, tuple[str, ...]]:
        """A storage tier for all that the slots of ``groups`` leave on storage.

        Raises:
            BudgetError: if it does not fit.
        """
        return place(workload, stored_parts(workload, groups), self.tiers_for(workload, groups), self.wanted)

    def tiers_for(self, workload: Workload, groups: Sequence[SlotGroup]) -> tuple[StorageTier, ...]:
        """The storage tiers: those in host memory with as much less room as the setup needs of that.

        Raises:
            BudgetError: if there is none left.
        """
        if not any(tier.in_host_memory for tier in self.storage_tiers):
            return self.storage_tiers
        lists_bytes = setup_lists_bytes(workload, groups)
        return tuple(tier.without(lists_bytes) if tier.in_host_memory else tier for tier in self.storage_tiers)

    @cached_property
    def choices(self) -> list[Blocks]:
        """Groupings of tiles into blocks, coarsest first."""
        choices = block_choices(self.store.info.num_nodes, self.tile_rows)
        return [blocks for blocks in choices if blocks.count <= _MOST_BLOCKS]

    @cached_property
    def _pulls(self) -> dict[tuple[int, Direction], PullCounts]:
        return {}

    @cached_property
    def _halos(self) -> dict[tuple[int, Direction, int], HaloCounts]:
        return {}

    @cached_property
    def _costs(self) -> dict[tuple[PhaseKind, int, bool, bool], PhaseCost]:
        return {}

    @cached_property
    def localities(self) -> dict[Direction, Locality]:
        """Of every stored adjacency."""
        store = self.store
        if isinstance(store, PaperGraph):
            return {"in": store.locality(self.tile_rows)}
        return {direction: measure_locality(store, direction, self.tile_rows) for direction in self._directions}

    @cached_property
    def _rounded(self) -> frozenset[str]:
        """Fields that are stored as bfloat16."""
        return rounded_names(self.program, self.storage_dtype)

    @property
    def _directions(self) -> tuple[Direction, ...]:
        of_edges: tuple[Direction, ...] = ("in",) if self.store.info.symmetric else ("in", "out")
        return (*of_edges, "pairs") if self.store.info.num_pairs else of_edges

    def blocks(self, tiles_per_block: int) -> Blocks:
        """So many tiles to a block."""
        return Blocks(num_nodes=self.store.info.num_nodes, tile_rows=self.tile_rows, tiles_per_block=tiles_per_block)

    def halos(self, blocks: Blocks, hub_blocks: int = 0) -> dict[Direction, HaloCounts]:
        """Halo counts of every stored adjacency, with hubs as in :class:`Decisions`."""
        for direction in self._directions:
            key = (blocks.tiles_per_block, direction, hub_blocks)
            if key not in self._halos:
                self._halos[key] = self._counted(blocks, direction).halos(hub_blocks)
        return {direction: self._halos[blocks.tiles_per_block, direction, hub_blocks] for direction in self._directions}

    def _counted(self, blocks: Blocks, direction: Direction) -> PullCounts:
        """Counts over ``blocks``. Those of all choices are made in one reading of the graph."""
        if (blocks.tiles_per_block, direction) not in self._pulls:
            groupings = self.choices if blocks in self.choices else [blocks]
            for grouping, counts in zip(groupings, self._count(groupings, direction), strict=True):
                self._pulls[grouping.tiles_per_block, direction] = counts
        return self._pulls[blocks.tiles_per_block, direction]

    def _count(self, groupings: list[Blocks], direction: Direction) -> list[PullCounts]:
        if isinstance(self.store, PaperGraph):
            return [self.store.count_pulls(blocks) for blocks in groupings]
        if direction == "pairs":
            return count_pairs(self.store, groupings)
        return count_pulls(self.store, groupings, direction)

    def workload(
        self,
        blocks: Blocks,
        recomputed: Recomputed = Recomputed(),  # noqa: B008  # it is frozen
        hub_blocks: int = 0,
        by_blocks: frozenset[str] = frozenset(),
        column_slices: int = 1,
    ) -> Workload:
        """The epoch over ``blocks``.

        Args:
            blocks: what the graph is cut into.
            recomputed: as in :class:`Decisions`.
            hub_blocks: as in :class:`Decisions`.
            by_blocks: fields with access ``blocks``.
            column_slices: as in :class:`Decisions`.
        """
        key = blocks, recomputed, hub_blocks, by_blocks, column_slices
        if key not in self._last_workload:
            # Planners ask for the same several times in a row; all of them together would take too much memory.
            self._last_workload.clear()
            self._last_workload[key] = self._unrolled(*key)
        return self._last_workload[key]

    @cached_property
    def _last_workload(self) -> dict[Any, Workload]:
        return {}

    def _unrolled(
        self,
        blocks: Blocks,
        recomputed: Recomputed,
        hub_blocks: int,
        by_blocks: frozenset[str],
        column_slices: int,
    ) -> Workload:
        halos = self.halos(blocks, hub_blocks)
        unroller = Unroller(
            self.program,
            self.store.info,
            blocks,
            halos,
            self.localities,
            partial(self._phase_cost, joined=column_slices > 1),
            recomputed,
            column_slices,
            self._rounded,
        )
        workload = unroller.build(training=self.training, evaluation=self.evaluation)
        if not by_blocks:
            return workload
        whole = {direction: self._counted(blocks, direction).whole_blocks(blocks) for direction in halos}
        return with_whole_blocks(workload, by_blocks, whole)

    def recomputable(self) -> list[Recomputed]:
        """Choices of what to compute again: hidden values alone, nothing, and all that can be."""
        if not self.training:
            return [Recomputed()]
        segments = frozenset(s for s in backward_stages(self.program) if retaining(self.program, s, self._rounded))
        choices = Recomputed(segments=segments), Recomputed()
        return list(dict.fromkeys([*choices, Recomputed(segments=segments, values=self._recomputable_values())]))

    def _recomputable_values(self) -> frozenset[str]:
        """Values that backward could compute again in one step from what is stored anyway."""
        read_again = {v for stage in backward_stages(self.program) for v in self.program.segments[stage].inputs}
        outputs = {v: s for s in self.program.segments for v in s.outputs}
        return frozenset(
            value
            for value in read_again & outputs.keys()
            if local_consumers(self.program, value, outputs[value].stage)
            and not any(a.reduce != "sum" for a in consumers(self.program, value))
            and not queried(self.program, value)
            and not any(name in outputs for name in outputs[value].inputs)
        )

    def with_budget(self, budget_bytes: int) -> PlanningProblem:
        """The same problem under another budget, sharing what was counted."""
        other = replace(self, budget_bytes=budget_bytes)
        other.__dict__.update(_pulls=self._pulls, _halos=self._halos, _costs=self._costs, localities=self.localities)
        return other

    def evaluating(self, program: Program) -> PlanningProblem:
        """One pass of another program over the same graph, in float32, sharing what was counted."""
        other = replace(self, program=program, training=False, evaluation=True, storage_dtype="float32")
        other.__dict__.update(_pulls=self._pulls, _halos=self._halos, localities=self.localities)
        return other

    def _phase_cost(self, kind: PhaseKind, segment: Segment, *, joined: bool) -> PhaseCost:
        """Of a phase with ``segment``; ``joined``: with inputs that are put together from slices."""
        key = kind, segment.stage, bool(segment.hidden), joined
        if key not in self._costs:
            rows = min(self.tile_rows, self.store.info.num_nodes)
            per_tile = bytes_for_rows(lambda r: self._tile_bytes(segment, kind, r, joined), rows)
            work = self._tile_work(segment, kind, rows)
            if convolutions_run(self.program, segment.stage, kind):
                per_tile += convolutions_bytes(self.program, segment.stage, kind, self._largest_tile)
                work += convolutions_work(self.program, segment.stage, kind, self._usual_tile)
            self._costs[key] = PhaseCost(workspace_bytes=self.threads * per_tile, work=work)
        return self._costs[key]

    def _largest_tile(self, convolution: Convolution) -> TileShape:
        """As many edges as any tile has, all from nodes outside of it if there are so many."""
        return self._tile_with(convolution, lambda edges: int(edges.max()))

    def _usual_tile(self, convolution: Convolution) -> TileShape:
        return self._tile_with(convolution, lambda edges: round(float(edges.mean())))

    def _tile_with(self, convolution: Convolution, of_tiles: Callable[[Array], int]) -> TileShape:
        info, sampler = self.store.info, convolution.sampler
        rows, edges = min(self.tile_rows, info.num_nodes), of_tiles(self.localities[convolution.over].tile_edges)
        compared = 0 if sampler is None else of_tiles(self.localities["in"].tile_edges)
        edges *= 1 if sampler is None else 1 + sampler.number
        return TileShape(rows=rows, edges=edges, others=min(edges, info.num_nodes - rows), compared=compared)

    def _tile_bytes(self, segment: Segment, kind: PhaseKind, rows: int, joined: bool) -> int:
        """Bytes that a tile of ``rows`` takes, beside the fields that it reads and writes."""
        widths = self.program.widths
        beside = 4 * rows * sum(widths[name] for name in self.program.segments[segment.stage].outputs)
        copied = joined or self.tile_rows % ALIGNED_ROWS
        read = (*segment.inputs, *segment.hidden) if kind == "backward" else segment.inputs
        if kind == "backward":
            read = (*read, *(name for name in segment.outputs if differentiated_moments(self.program, name)))
        beside += 4 * rows * sum(widths[name] for name in read if copied or name in self._rounded)
        if self._rounded:  # One of them at a time is on its way: read in slices, or scaled before it is written.
            beside += 4 * rows * max(widths[name] for name in (*segment.inputs, *segment.outputs))
        if self.separate:
            beside += self._device_bytes(segment, kind, rows)
        return beside + measured_bytes(self._prepared(segment, kind, rows, self._loss_gradient))

    def _device_bytes(self, segment: Segment, kind: PhaseKind, rows: int) -> int:
        """Of what takes no memory on a CPU: moments in float64, and a look at all logits of a row for its score."""
        moments = max((moment.width for moment in moments_made(self.program, segment.stage, kind)), default=0)
        scored = segment.stage == self.program.last_stage and kind != "forward"
        columns = self.program.widths[self.program.logits] if scored else 0
        return rows * (16 * moments + 8 * columns)

    def _tile_work(self, segment: Segment, kind: PhaseKind, rows: int) -> Work:
        """What ``kind`` computes on a tile of ``rows``; the loss is not among its operators."""
        work = tile_work(lambda r: self._prepared(segment, kind, r, torch.empty_like), rows)
        work += moments_work(self.program, segment.stage, kind, rows)
        if kind != "loss":
            return work
        columns, task = self.program.widths[self.program.logits], self.store.info.task
        loss = tile_work(lambda r: partial(self._loss_gradient, torch.zeros(r, columns)), rows)
        if self.loss is not None or task == REGRESSION:
            return work + loss
        # Of these, rates of machines have figures.
        multi_label = task == MULTI_LABEL
        return work + Work(loss=LossWork(columns=columns, multi_label=multi_label, size_bytes=loss.size_bytes))

    def _prepared(
        self, segment: Segment, kind: PhaseKind, rows: int, loss_gradient: Callable[[Tensor], Tensor]
    ) -> Callable[[], object]:
        """A tile of zeros as a step of ``kind`` runs it: what is left to do once its inputs are there."""
        program = self.program
        values = {name: torch.zeros(rows, program.widths[name]) for name in (*segment.inputs, *segment.hidden)}
        values |= {moment.name: torch.ones(2, moment.width) for moment in program.moments}
        context = RowContext(start=0, seed=0, epoch=0, training=kind != "evaluate")
        if kind in ("forward", "evaluate"):
            return lambda: self._evaluate(segment, values, context, kind)

        def gradients_of(outputs: NamedTensors) -> NamedTensors:
            if kind == "loss":
                return {program.logits: loss_gradient(outputs[program.logits])}
            needed = [name for name in segment.outputs if name in program.needs_grad]
            found = {name: torch.empty(rows, program.widths[name]) for name in needed}
            for name, total in found.items():
                for moment in differentiated_moments(program, name):
                    total.add_(moments_gradient(torch.zeros_like(total), values[moment.name], values[moment.name]))
            return found

        return lambda: run_backward(segment, values, context, program.needs_grad, gradients_of)

    def _labels(self, logits: Tensor) -> Tensor:
        columns = self.store.info.label_columns
        return torch.zeros(len(logits), dtype=torch.int64) if columns is None else torch.zeros(len(logits), columns)

    def _loss_gradient(self, logits: Tensor) -> Tensor:
        split = torch.full((len(logits),), 7, dtype=torch.uint8)
        labels, task = self._labels(logits), self.store.info.task
        tile_scores(logits, labels, split, task)
        return tile_loss(logits, labels, split, self.loss or default_loss(task), 1).gradient

    def _evaluate(self, segment: Segment, values: NamedTensors, context: RowContext, kind: PhaseKind) -> None:
        outputs = run_forward(segment, values, context)
        if kind == "evaluate" and segment.stage == self.program.last_stage and self.program.labelled:
            logits = outputs[self.program.logits]
            split = torch.full((len(logits),), 7, dtype=torch.uint8)
            tile_scores(logits, self._labels(logits), split, self.store.info.task)
