"""A plan but for what stays: the gaps that are left open, the room there is for them, and what filling them saves.

All planners work on the same gaps. A *gap* is a tensor's absence from the compute tier between two stays, or, for a
tensor of the store or the setup, its absence from the run but for its uses. Filling it takes memory while it lasts, and
saves a read; when every gap of a tensor is filled, its write is saved too. Everything is in arrays over gaps, so that a
choice is costed in a few operations.

Shape legend: G gaps, S steps, K phases, C channels (the processor first).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from flexgnn.core.compiling import compiled
from flexgnn.core.errors import BudgetError
from flexgnn.core.plan.decisions import Decisions
from flexgnn.core.plan.gaps import CollectedGaps, FieldGaps, GapFinder, Gaps
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.slots import SlotBuilder, SlotGroup, is_always_written, live_bytes
from flexgnn.core.plan.traffic import Traffic
from flexgnn.core.plan.workload import Source, Workload
from flexgnn.core.tier import Array

_PRICED_ROUNDS = 3
_SHARPNESS = 4.0
"""How much more a channel is worth that a phase waits for than one that is less busy."""
_FREE_STEP = 0.02
"""Price of a byte at steps where everything fits, beside one at a step where twice as much is asked as there is."""


class Sketch:
    """Everything decided but what stays in the gaps."""

    def __init__(self, problem: PlanningProblem, workload: Workload, decisions: Decisions) -> None:
        """``decisions`` keep nothing, and place nothing yet."""
        self.problem, self.workload, self.decisions = problem, workload, decisions
        groups = SlotBuilder(workload, decisions).build()
        live = live_bytes(groups, len(workload.steps), problem.alignment_bytes)[1:]
        self.room: Array = problem.budget_bytes - workload.workspace_bytes - live
        """int64 [S]: bytes that gaps may fill at each step; negative where the sketch needs more than there is."""
        self._groups = groups

    @cached_property
    def _traffic(self) -> Traffic:
        """With no gap filled. Not made of sketches that turn out not to fit."""
        placed = replace(self.decisions, placed=self._base_placement(self._groups))
        return Traffic(self.workload, self._groups, self.problem.storage_tiers, placed)

    @cached_property
    def busy(self) -> Array:
        """float64 [K, C]: busy seconds with no gap filled."""
        return self._traffic.busy_seconds(self.problem.rates)

    @cached_property
    def moved_bytes(self) -> int:
        """That an epoch moves with no gap filled."""
        return sum(self._traffic.bytes_by_channel().values())

    @cached_property
    def gaps(self) -> Gaps:
        """What may be filled."""
        collected = CollectedGaps()
        traffic, rates = self._traffic, self.problem.rates
        whole = {name for name, access in self.decisions.access.items() if access in ("resident", "held")}
        for group in self._groups:
            if group.role == "own" and group.field not in whole:
                found = traffic.once(group, "gaps", rates, lambda: self._gaps_of(group))  # noqa: B023
                collected.add(group.field, found)
        return collected.gaps()

    def _gaps_of(self, group: SlotGroup) -> FieldGaps:
        finder = GapFinder(self.problem, self.workload, self._traffic, group)
        if self.workload.fields[group.field].source is not Source.STEP:
            return finder.constant()
        return finder.made(write_saved=not is_always_written(self.workload, self.decisions, group.field))

    def _base_placement(self, groups: list[SlotGroup]) -> dict[str, tuple[str, ...]]:
        """Where parts are while nothing is kept. With too little room for that, some gap will have to be filled."""
        if len(self.problem.storage_tiers) == 1:
            return {}
        try:
            return self.problem.placed(self.workload, groups)
        except BudgetError:
            return {}

    @property
    def overlapped(self) -> bool:
        """Whether channels work side by side."""
        return self.decisions.lookahead > 0

    @property
    def live_peak_bytes(self) -> int:
        """The most memory that is in use with no gap filled; packing may need more."""
        return self.problem.budget_bytes - int(self.room.min())

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
        """No filling is faster: not with every gap filled, nor with the room at any one step.

        The second bound is of the channel that each phase waits for with gaps filled greedily.
        """
        everything = self.seconds(~self.nothing)
        gaps, busy = self.gaps, self.busy_with(self.greedy_filling)
        counted = np.full(busy.shape, not self.overlapped)
        counted[np.arange(len(busy)), np.argmax(busy, axis=1)] = True
        saved = [counted[rows[:, 1].astype(int), rows[:, 2].astype(int)] * rows[:, 3] for rows in gaps.all_savings]
        return max(everything, float(self.busy[counted].sum()) - self._most_saved(gaps.by_gap(*saved)))

    @cached_property
    def greedy_seconds(self) -> float:
        """An epoch with gaps filled greedily, as far as live bytes tell."""
        return self.seconds(self.greedy_filling)

    @cached_property
    def optimistic_bytes(self) -> float:
        """No filling moves less: not with the room at any one step."""
        saved = [rows[:, 4] for rows in self.gaps.all_savings]
        return self.moved_bytes - self._most_saved(self.gaps.by_gap(*saved))

    def _most_saved(self, values: Array) -> float:
        """No filling saves more of ``values`` (float64 [G]) than with the room at one step, and none needed at others.

        Parts of gaps may be filled there. The least over the most crowded step of each phase.
        """
        gaps, total = self.gaps, float(values.sum())
        owner, first, stop = gaps.spans.T
        least = total
        for step in self._crowded_steps:
            there = owner[(first <= step) & (step < stop)]
            fitting = _fractional_knapsack(values[there], gaps.sizes[there], max(int(self.room[step]), 0))
            least = min(least, total - float(values[there].sum()) + fitting)
        return least

    @cached_property
    def _crowded_steps(self) -> list[int]:
        """Of each phase, the step at which gaps ask for most of the room."""
        asked = (self._asked / np.maximum(self.room, 1)).reshape(len(self.workload.phases), -1)
        steps: list[int] = (np.argmax(asked, axis=1) + np.arange(len(asked)) * asked.shape[1]).tolist()
        return steps

    @cached_property
    def _asked(self) -> Array:
        """float64 [S]: bytes that all gaps together would take at each step."""
        change = np.zeros(len(self.room) + 1)
        owner, first, stop = self.gaps.spans.T
        np.add.at(change, first, self.gaps.sizes[owner])
        np.subtract.at(change, stop, self.gaps.sizes[owner])
        asked: Array = np.cumsum(change[:-1])
        return asked

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

    @cached_property
    def greedy_filling(self) -> Array:
        """Bool [G]: gaps filled by what they save per byte and step, both at their price.

        The seconds of a channel are worth more in phases that wait for it, and room at steps where much is asked of it.
        Prices follow from the filling before (as in multiplicative weights; Arora, Hazan and Kale, 2012), beginning
        with one that takes all for equal. The fastest filling of all rounds.
        """
        if len(self.gaps) == 0:
            return self.nothing
        kept = fastest = self.filled(self.gaps.densities)
        waited = np.zeros_like(self.busy)
        for _ in range(_PRICED_ROUNDS):
            busy = self.busy_with(kept)
            waited += busy / np.maximum(busy.max(axis=1, keepdims=True), 1e-12)
            kept = self.filled(self._values(waited) / self._prices)
            fastest = min(fastest, kept, key=self.seconds)
        return fastest

    def _values(self, waited: Array) -> Array:
        """float64 [G]: seconds that filling each gap saves, those of a channel by how much phases ``waited`` for it."""
        weights = np.exp(_SHARPNESS * (waited - waited.max(axis=1, keepdims=True)))
        weights = weights / weights.sum(axis=1, keepdims=True) if self.overlapped else np.ones_like(weights)
        rows = self.gaps.all_savings
        return self.gaps.by_gap(*(weights[row[:, 1].astype(int), row[:, 2].astype(int)] * row[:, 3] for row in rows))

    @cached_property
    def _prices(self) -> Array:
        """float64 [G]: bytes of each gap, times its steps by how much more is asked of them than there is."""
        owner, first, stop = self.gaps.spans.T
        scarcity = np.maximum(self._asked / np.maximum(self.room, 1) - 1, 0) + _FREE_STEP
        sums = np.concatenate([[0.0], np.cumsum(scarcity)])
        prices: Array = self.gaps.sizes * np.bincount(owner, sums[stop] - sums[first], len(self.gaps))
        return np.maximum(prices, 1e-12)

    def filled(self, scores: Array) -> Array:
        """Bool [G]: gaps filled from the highest of ``scores`` (float [G]) down, where the room still allows."""
        order = np.argsort(-scores, kind="stable")
        gaps, kept = self.gaps, self.nothing
        _fill(order, gaps.first_spans, gaps.spans, gaps.sizes, self.room.copy(), kept)
        return kept

    def decided(self, kept: Array) -> Decisions:
        """The decisions with the gaps ``kept`` (bool [G]) filled, and a storage tier for everything.

        Raises:
            BudgetError: if the storage tiers have too little room.
        """
        names = self.gaps.fields
        chosen = frozenset((names[f], block, step) for f, block, step in self.gaps.keys[kept].tolist())
        decisions = replace(self.decisions, kept=chosen)
        groups = SlotBuilder(self.workload, decisions).build()
        return replace(decisions, placed=self.problem.placed(self.workload, groups))


def _fractional_knapsack(values: Array, sizes: Array, room: int) -> float:
    """The most of ``values`` that fits in ``room`` if parts are allowed."""
    sizes = np.maximum(sizes, 1)
    order = np.argsort(-values / sizes)
    taken = np.clip(room - np.cumsum(sizes[order]) + sizes[order], 0, sizes[order])
    return float((values[order] * taken / sizes[order]).sum())


@compiled()
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
