"""A plan but for what stays: the gaps that are left open, the room there is for them, and what filling them saves.

All planners work on the same gaps. A *gap* is a tensor's absence from the compute tier between two stays, or, for a
tensor of the store or the setup, its absence from the run but for its uses. Filling it takes memory while it lasts, and
saves a read; when every gap of a tensor is filled, its write is saved too. Everything is in arrays over gaps, so that a
choice is costed in a few operations.

Shape legend: G gaps, S steps, K phases, C channels (the processor first).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numba
import numpy as np

from flexgnn.core.errors import BudgetError
from flexgnn.core.plan.decisions import Decisions
from flexgnn.core.plan.packing import aligned
from flexgnn.core.plan.plan import arena_estimate
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.slots import SETUP_STEP, Slot, SlotBuilder
from flexgnn.core.plan.traffic import PROCESSOR, Traffic, Transfer
from flexgnn.core.plan.workload import Source, Workload
from flexgnn.core.tier import Array

GapKey = tuple[str, int, int]
"""As in :attr:`Decisions.kept`: field, block, and the step that ends the gap (-1: kept for the whole run)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Gaps:
    """All gaps of a sketch."""

    keys: list[GapKey]
    sizes: Array
    """int64 [G], bytes as the arena rounds them."""
    spans: Array
    """int64 [I, 3]: gap, first step, step after the last. A gap is one or more spans of steps."""
    savings: Array
    """float64 [R, 4]: gap, phase, channel, seconds saved by filling it."""
    tensors: Array
    """int64 [G]: gaps of one tensor have the same number."""
    writes: Array
    """float64 [W, 4]: tensor, phase, channel, seconds saved when all gaps of the tensor are filled."""

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def tensor_counts(self) -> Array:
        """int64: gaps of each tensor."""
        counts: Array = np.bincount(self.tensors, minlength=1)
        return counts

    @cached_property
    def steps(self) -> Array:
        """int64 [G]: steps in each gap."""
        counts = np.zeros(len(self), dtype=np.int64)
        np.add.at(counts, self.spans[:, 0], self.spans[:, 2] - self.spans[:, 1])
        return counts

    @cached_property
    def seconds(self) -> Array:
        """float64 [G]: what filling each saves, channels added up, its share of the write included."""
        saved = np.zeros(len(self))
        np.add.at(saved, self.savings[:, 0].astype(int), self.savings[:, 3])
        written = np.zeros(len(self.tensor_counts))
        np.add.at(written, self.writes[:, 0].astype(int), self.writes[:, 3])
        shares: Array = (written / np.maximum(self.tensor_counts, 1))[self.tensors]
        total: Array = saved + shares
        return total

    @cached_property
    def densities(self) -> Array:
        """float64 [G]: seconds saved per byte and step of residence."""
        densities: Array = self.seconds / (self.sizes * np.maximum(self.steps, 1))
        return densities


class Sketch:
    """Everything decided but what stays in the gaps."""

    def __init__(self, problem: PlanningProblem, workload: Workload, decisions: Decisions) -> None:
        """``decisions`` keep nothing, and place nothing yet."""
        self.problem, self.workload, self._decisions = problem, workload, decisions
        slots = SlotBuilder(workload, decisions).build()
        workspace = max(phase.workspace_bytes for phase in workload.phases)
        live = arena_estimate(slots, len(workload.steps), problem.alignment_bytes)
        self.room: Array = problem.budget_bytes - workspace - live
        """int64 [S]: bytes that gaps may fill at each step; negative where the sketch needs more than there is."""
        placed = replace(decisions, placed=self._base_placement(slots))
        traffic = Traffic(workload, slots, problem.storage_tiers, placed)
        self.busy = traffic.busy_seconds(problem.rates)
        """float64 [K, C]: busy seconds with no gap filled."""
        self.channels = traffic.channels
        self.gaps = _find_gaps(problem, workload, decisions, slots, traffic)

    def _base_placement(self, slots: list[Slot]) -> dict[str, tuple[str, ...]]:
        """Where parts are while nothing is kept. With too little room for that, some gap will have to be filled."""
        try:
            return self.problem.placed(self.workload, slots)
        except BudgetError:
            return {}

    @property
    def overlapped(self) -> bool:
        """Whether channels work side by side."""
        return self._decisions.lookahead > 0

    @property
    def nothing(self) -> Array:
        """Bool [G]: no gap filled."""
        return np.zeros(len(self.gaps), dtype=np.bool_)

    @property
    def feasible(self) -> bool:
        """Whether it fits with no gap filled, as far as live bytes tell."""
        return bool(self.room.min() >= 0)

    @cached_property
    def optimistic_seconds(self) -> float:
        """An epoch with every gap filled, whatever the room: no choice is faster."""
        return self.seconds(np.ones(len(self.gaps), dtype=bool))

    def busy_with(self, kept: Array) -> Array:
        """float64 [K, C]: busy seconds with the gaps ``kept`` (bool [G]) filled."""
        gaps, busy = self.gaps, self.busy.copy()
        chosen = gaps.savings[kept[gaps.savings[:, 0].astype(int)]]
        open_gaps = np.bincount(gaps.tensors[~kept], minlength=len(gaps.tensor_counts))
        unwritten = gaps.writes[open_gaps[gaps.writes[:, 0].astype(int)] == 0]
        for saved in (chosen, unwritten):
            np.subtract.at(busy, (saved[:, 1].astype(int), saved[:, 2].astype(int)), saved[:, 3])
        return busy

    def seconds(self, kept: Array) -> float:
        """An epoch, phase by phase, with the gaps ``kept`` (bool [G]) filled."""
        busy = self.busy_with(kept)
        return float((busy.max(axis=1) if self.overlapped else busy.sum(axis=1)).sum())

    def room_left(self, room_fraction: float) -> Array:
        """int64 [S]: the room where only ``room_fraction`` of the budget may be used."""
        room: Array = self.room - int((1 - room_fraction) * self.problem.budget_bytes)
        return room

    def filled_by_density(self, room_fraction: float) -> Array:
        """Bool [G]: gaps filled by what they save per byte and step."""
        return self.filled(self.gaps.densities, room_fraction)

    def filled(self, scores: Array, room_fraction: float) -> Array:
        """Bool [G]: gaps filled from the highest of ``scores`` (float [G]) down, where the room still allows."""
        order = np.argsort(-scores, kind="stable")
        spans = self.gaps.spans
        first = np.searchsorted(spans[:, 0], np.arange(len(self.gaps) + 1))
        kept = self.nothing
        _fill(order, first, spans, self.gaps.sizes, self.room_left(room_fraction), kept)
        return kept

    def decided(self, kept: Array) -> Decisions:
        """The decisions with the gaps ``kept`` (bool [G]) filled, and a storage tier for everything.

        Raises:
            BudgetError: if the storage tiers have too little room.
        """
        chosen = frozenset(key for key, keep in zip(self.gaps.keys, kept.tolist(), strict=True) if keep)
        decisions = replace(self._decisions, kept=chosen)
        slots = SlotBuilder(self.workload, decisions).build()
        return replace(decisions, placed=self.problem.placed(self.workload, slots))


@numba.njit(nogil=True, cache=True)
def _fill(order: Array, first: Array, spans: Array, sizes: Array, room: Array, kept: Array) -> None:
    """Fill gaps in ``order``; gap g has the spans ``first[g] : first[g + 1]``."""
    for g in order:
        fits = True
        for i in range(first[g], first[g + 1]):
            for s in range(spans[i, 1], spans[i, 2]):
                fits = fits and room[s] >= sizes[g]
        if fits:
            kept[g] = True
            for i in range(first[g], first[g + 1]):
                for s in range(spans[i, 1], spans[i, 2]):
                    room[s] -= sizes[g]


def _find_gaps(
    problem: PlanningProblem, workload: Workload, decisions: Decisions, slots: list[Slot], traffic: Traffic
) -> Gaps:
    keys: list[GapKey] = []
    spans: list[tuple[int, int, int]] = []
    savings: list[tuple[int, int, int, float]] = []
    writes: list[tuple[int, int, int, float]] = []
    sizes: list[int] = []
    tensors: list[int] = []
    for tensor, stays in enumerate(_stays(workload, decisions, slots)):
        name, block, source = stays[0].field, stays[0].block, workload.fields[stays[0].field].source
        size = aligned(stays[0].size_bytes, problem.alignment_bytes)
        if source is Source.STEP:
            found = [
                (
                    (name, block, after.first_step + decisions.lookahead),
                    [(before.last_step + 1, after.first_step)],
                    [after],
                )
                for before, after in pairwise(stays)
            ]
        else:
            found = [((name, block, SETUP_STEP), list(_outside(stays, len(workload.steps))), stays)]
        for key, absent, loaded in found:
            gap = len(keys)
            keys.append(key)
            sizes.append(size)
            tensors.append(tensor)
            spans += [(gap, first, stop) for first, stop in absent if stop > first]
            for stay in loaded:
                savings += [(gap, *cost) for move in traffic.reads(stay) for cost in _costs(traffic, problem, move)]
        if not (name in workload.published and workload.published[name].whole_blocks):
            writes += [(tensor, *cost) for move in traffic.writes(stays[0]) for cost in _costs(traffic, problem, move)]
    return Gaps(
        keys=keys,
        sizes=np.array(sizes, dtype=np.int64),
        spans=np.array(spans, dtype=np.int64).reshape(-1, 3),
        savings=np.array(savings, dtype=np.float64).reshape(-1, 4),
        tensors=np.array(tensors, dtype=np.int64),
        writes=np.array(writes, dtype=np.float64).reshape(-1, 4),
    )


def _stays(workload: Workload, decisions: Decisions, slots: list[Slot]) -> Iterator[list[Slot]]:
    """For every tensor with gaps, its stays in order."""
    whole = {name for name, access in decisions.access.items() if access in ("resident", "held")}
    found: dict[tuple[str, int], list[Slot]] = {}
    for slot in slots:
        if slot.role == "own" and slot.field not in whole:
            found.setdefault((slot.field, slot.block), []).append(slot)
    for (name, _), stays in found.items():
        if len(stays) > 1 or workload.fields[name].source is not Source.STEP:
            yield sorted(stays, key=lambda slot: slot.first_step)


def _outside(stays: list[Slot], num_steps: int) -> Iterator[tuple[int, int]]:
    """The spans of steps outside ``stays``."""
    ends = [0, *(stay.last_step + 1 for stay in stays)]
    begins = [*(stay.first_step for stay in stays), num_steps]
    yield from zip(ends, begins, strict=True)


def _costs(traffic: Traffic, problem: PlanningProblem, move: Transfer) -> Iterator[tuple[int, int, float]]:
    """(phase, channel, seconds) that ``move`` keeps busy: its channel, and the processor."""
    cost = traffic.cost(move, problem.rates)
    yield cost.phase, cost.channel, cost.seconds
    yield cost.phase, PROCESSOR, cost.handling_seconds
