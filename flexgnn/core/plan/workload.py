"""A program unrolled over blocks: every step of an epoch, and what it reads and writes.

A workload says what has to happen; decisions (``decisions.py``) say where the data is meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np

from flexgnn.core.plan.blocks import Blocks
from flexgnn.core.plan.locality import Locality
from flexgnn.core.plan.topology import Direction, HaloCounts, HaloPass
from flexgnn.core.plan.work import Work
from flexgnn.core.program.attention import Attention
from flexgnn.core.program.edge_inputs import EdgeInput
from flexgnn.core.program.program import Program, Reduce
from flexgnn.core.tier import Array

PhaseKind = Literal["forward", "loss", "backward", "evaluate"]


class Source(Enum):
    """Where a field comes from."""

    STORE = "store"
    """The graph store, which keeps it."""
    SETUP = "setup"
    """Computed from the store before the first epoch."""
    STEP = "step"
    """Written by a step of every epoch."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A tensor over all nodes (or edges), cut by blocks."""

    name: str
    dtype: str
    """As numpy names it; bfloat16 is kept as the bits of ``uint16``."""
    rows: tuple[int, ...]
    """First dimension of each block's part."""
    width: int | None
    """Second dimension; None for a vector."""
    source: Source
    array: str | None = None
    """The store's array that it is read from, with :attr:`Source.STORE`."""

    def shape(self, block: int) -> tuple[int, ...]:
        return (self.rows[block],) if self.width is None else (self.rows[block], self.width)

    @cached_property
    def row_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * (self.width or 1)

    @cached_property
    def sizes(self) -> Array:
        """int64, bytes of each block's part."""
        sizes: Array = np.array(self.rows, dtype=np.int64) * self.row_bytes
        return sizes

    def size_bytes(self, block: int) -> int:
        return self.rows[block] * self.row_bytes

    @property
    def total_bytes(self) -> int:
        return sum(self.rows) * self.row_bytes


@dataclass(frozen=True, kw_only=True)
class Pull:
    """A step's reading of a field's rows at the neighbours of its block."""

    field: str
    direction: Direction
    """As in the graph: which way the edges are followed."""
    topology: Direction
    """The stored adjacency that is read: that of ``in`` for both ways where the graph is symmetric."""
    weighted: bool
    width: int
    """Columns of what is pulled into."""
    reduce: Reduce
    in_slices: bool = False
    """Whether ``field`` is a slice of columns of a field, and this all that its phase does (see ``slices.py``)."""
    rounded: bool = False
    """Whether the sums are written to a field that is stored as bfloat16, and so only once they are complete."""
    attention: Attention | None = None
    """Of ``attention``."""
    positions: bool = False
    """Whether it has to know where in the graph neighbours are."""
    edge_inputs: tuple[EdgeInput, ...] = ()
    """What a convolution reads of edges; what sums do is told by :attr:`weighted`."""
    whole_blocks: bool = False
    """Whether halos are whole blocks (see ``whole_blocks.py``), else of the rows that are needed."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """The same work for every block: one stage in one direction."""

    index: int
    kind: PhaseKind
    stage: int
    reads: tuple[str, ...]
    """Fields read at the block's own rows."""
    pulls: tuple[Pull, ...]
    writes: tuple[str, ...]
    """Fields written at the block's own rows."""
    recomputes: tuple[str, ...]
    """Values computed again from other reads instead of being read."""
    retains: bool = False
    """Whether hidden values of the segment are fields, which forward writes and backward reads."""
    workspace_bytes: int
    """Memory of a step beside fields: activations and gradients of the tiles in work."""
    work: Work
    """Of a full tile, aggregations excepted."""
    descending: bool
    """Whether blocks are visited from the last to the first."""
    column_slice: int | None = None
    """Of a phase that does nothing but pull: which slice of the fields that its stage pulls from (``slices.py``)."""
    adds_to: tuple[str, ...] = ()
    """Those of the fields that it writes to which every step adds at any rows: each is whole, and 0 as it begins."""

    @property
    def training(self) -> bool:
        return self.kind != "evaluate"

    @property
    def pulled(self) -> dict[str, Pull]:
        """One pull for each field: aggregations share its rows, and whatever any of them reads of edges."""
        merged: dict[str, Pull] = {}
        for pull in self.pulls:
            other = merged.setdefault(pull.field, pull)
            if other is pull:
                continue
            merged[pull.field] = replace(
                other,
                weighted=other.weighted or pull.weighted,
                positions=other.positions or pull.positions,
                edge_inputs=tuple(dict.fromkeys((*other.edge_inputs, *pull.edge_inputs))),
            )
        return merged


@dataclass(frozen=True, kw_only=True)
class Step:
    """A phase at one block."""

    index: int
    phase: Phase
    block: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """One epoch: training phases, then evaluation phases where the epoch has any."""

    program: Program
    blocks: Blocks
    halos: dict[Direction, HaloCounts]
    """By stored adjacency."""
    localities: dict[Direction, Locality]
    """By stored adjacency."""
    fields: dict[str, Field]
    phases: tuple[Phase, ...]
    published: dict[str, Pull]
    """Fields that other blocks pull from, and how."""
    slices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By field that comes in slices of columns: the fields of these."""
    rounded: frozenset[str] = frozenset()
    """Fields, those in slices among them, that are stored as bfloat16 (see ``stored_types.py``)."""
    block_halos: dict[Direction, HaloCounts] = field(default_factory=dict)
    """By stored adjacency, for pulls of whole blocks."""
    known: dict[Any, Any] = field(default_factory=dict)
    """What planners derive from it again and again."""

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        return tuple(
            Step(index=self.step_index(phase, block), phase=phase, block=block)
            for phase in self.phases
            for block in self.visits(phase)
        )

    def visits(self, phase: Phase) -> range:
        """The blocks in the order in which ``phase`` visits them."""
        count = self.blocks.count
        return range(count - 1, -1, -1) if phase.descending else range(count)

    @cached_property
    def whole(self) -> frozenset[str]:
        """Fields that have to be whole where they are pulled from.

        Convolutions that are run as they are take rows from everywhere at once.
        """
        return frozenset(p.field for phase in self.phases for p in phase.pulls if p.reduce == "convolution")

    @cached_property
    def added_up(self) -> frozenset[str]:
        """Fields that steps add to at any rows."""
        return frozenset(name for phase in self.phases for name in phase.adds_to)

    @property
    def workspace_bytes(self) -> int:
        """The most of any phase."""
        return max(phase.workspace_bytes for phase in self.phases)

    @property
    def flops(self) -> int:
        """Of an epoch: the matrix products of all phases at all rows, and two a column and edge of every pull."""
        return sum(round(p.work.flops * self._tiles) for p in self.phases) + sum(
            2 * pull.width * sum(self.halos[pull.topology].edges) for phase in self.phases for pull in phase.pulls
        )

    @property
    def touched_bytes(self) -> int:
        """Of an epoch: read and written by operators that are no products, and read by pulls."""
        return sum(round(p.work.size_bytes * self._tiles) for p in self.phases) + sum(
            self.fields[pull.field].row_bytes * sum(self.halos[pull.topology].edges)
            for phase in self.phases
            for pull in phase.pulls
        )

    @property
    def _tiles(self) -> Fraction:
        """How many full tiles the graph's rows make."""
        return Fraction(self.blocks.num_nodes, min(self.blocks.tile_rows, self.blocks.num_nodes))

    def step_index(self, phase: Phase, block: int) -> int:
        return phase.index * self.blocks.count + self.visits(phase)[block]

    def steps_of(self, phase: Phase) -> Array:
        """int64: the step of ``phase`` at each block."""
        return self.first_step(phase) + np.array(self.visits(phase), dtype=np.int64)

    def first_step(self, phase: Phase) -> int:
        return phase.index * self.blocks.count

    @property
    def first_evaluation_step(self) -> int:
        """Where training ends."""
        return self.blocks.count * sum(phase.training for phase in self.phases)

    def steps_of_loads(self, phase: Phase, *, ahead: bool) -> Array:
        """int64: at whose start the rows of each block are asked for, of fields that ``phase`` wants whole.

        If ``ahead``, each after the step of the phase before that visits the block, and may write it.
        """
        before = self.phases[phase.index - 1]
        if not ahead or phase.index == 0 or before.training != phase.training:
            return np.full(self.blocks.count, self.first_step(phase))
        return self.steps_of(before) + 1

    def loading_phase(self, name: str, first_step: int, *, ahead: bool) -> Phase:
        """The phase for which field ``name`` is asked for whole from ``first_step`` on; others after it may use it."""
        pullers = (phase for phase in self.phases if name in phase.pulled)
        return next(p for p in pullers if self.steps_of_loads(p, ahead=ahead).min() == first_step)

    def last_step(self, phase: Phase) -> int:
        return self.first_step(phase) + self.blocks.count - 1

    def halo_counts(self, pull: Pull) -> HaloCounts:
        """Sizes of the halos of ``pull``."""
        return (self.block_halos if pull.whole_blocks else self.halos)[pull.topology]

    def halo_passes(self, pull: Pull, block: int) -> list[HaloPass]:
        """The parts in which ``block`` gets its halo: each about a block's rows, since hubs need almost everything."""
        return self.halo_counts(pull).halo_passes(block, self.blocks.rows_per_block)

    def pack_groups(self, name: str, block: int) -> list[range]:
        """The groups of receivers for which ``block`` writes its rows of field ``name`` next to each other."""
        return self.halos[self.published[name].topology].pack_groups(block, self.blocks.rows_per_block)

    def halo_pass_counts(self, pull: Pull) -> Array:
        """int64, one a block: passes of its halo."""
        return self.halo_counts(pull).part_counts("halo", self.blocks.rows_per_block)

    def pack_group_counts(self, name: str) -> Array:
        """int64, one a block: groups of receivers."""
        return self.halos[self.published[name].topology].part_counts("pack", self.blocks.rows_per_block)

    def halo_sizes(self, pull: Pull) -> Array:
        """int64, one a block: bytes of the rows of ``pull.field`` that it needs from other blocks."""
        sizes: Array = self.halo_counts(pull).needed.sum(axis=1) * self.fields[pull.field].row_bytes
        return sizes

    def pack_sizes(self, name: str) -> Array:
        """int64, one a block: bytes of its rows of field ``name`` that other blocks need."""
        sizes: Array = self.halos[self.published[name].topology].needed.sum(axis=0) * self.fields[name].row_bytes
        return sizes

    def hub_bytes(self, name: str) -> int:
        """Bytes of the rows of field ``name`` at all hubs."""
        return self.halo_counts(self.published[name]).num_hubs * self.fields[name].row_bytes

    def window_bytes(self, name: str, total_bytes: Array) -> Array:
        """Memory through which ``total_bytes`` of a halo or pack of field ``name`` go: two passes, or all of it."""
        sizes: Array = np.minimum(total_bytes, 2 * self.blocks.rows_per_block * self.fields[name].row_bytes)
        return sizes

    def producers(self) -> dict[str, Phase]:
        """The phase that writes each field of :attr:`Source.STEP`."""
        return {name: phase for phase in self.phases for name in phase.writes}

    def own_reads(self, packed: frozenset[str]) -> dict[str, list[Phase]]:
        """Phases that read each field at a block's own rows, given which published fields are reached by halos.

        Such a field's own rows are read by its pulls too, and adjacency is read in the form that pulls need.
        """
        reads: dict[str, list[Phase]] = {}
        for phase in self.phases:
            for name in dict.fromkeys(self._phase_reads(phase, packed)):
                reads.setdefault(name, []).append(phase)
        return reads

    def _phase_reads(self, phase: Phase, packed: frozenset[str]) -> Iterator[str]:
        yield from phase.reads
        for pull in phase.pulls:
            yield from topology_fields(pull, pull.field in packed)
            yield from (edge_field(pull, given) for given in pull.edge_inputs)
            if pull.field in packed:
                yield pull.field
        for name in phase.writes:
            if name in packed and not self.published[name].whole_blocks:
                yield f"{self.published[name].topology}/sends"


def edge_field(pull: Pull, given: EdgeInput) -> str:
    """Name of the field that holds it of the edges that ``pull`` follows, in the order of edges by destination."""
    return f"{'pairs' if pull.topology == 'pairs' else 'in'}/{given.array}"


def topology_fields(pull: Pull, packed: bool) -> list[str]:
    """Names of the adjacency ``pull`` reads: indices into block, hubs and halo if ``packed``, else into the graph.

    Pointers, indices and weights come first; positions that are not the indices last.
    """
    localized = "blocks" if pull.whole_blocks else "packed"
    names = [f"{pull.topology}/indptr", f"{pull.topology}/{localized if packed else 'indices'}"]
    names += [f"{pull.topology}/weights"] if pull.weighted else []
    return names + ([f"{pull.topology}/indices"] if pull.positions and packed else [])
