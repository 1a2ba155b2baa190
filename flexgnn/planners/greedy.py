"""The greedy planner: what saves most time per byte and step of residence stays in the compute tier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from flexgnn.core.errors import BudgetError
from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.plan.blocks import Blocks
from flexgnn.core.plan.cost import TierRates, read_seconds, write_seconds
from flexgnn.core.plan.decisions import Access, Decisions
from flexgnn.core.plan.packing import aligned
from flexgnn.core.plan.plan import arena_estimate, freeze
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.slots import SETUP_STEP, SlotBuilder
from flexgnn.core.plan.traffic import Traffic
from flexgnn.core.plan.workload import Source, Workload
from flexgnn.core.planner import Planner
from flexgnn.core.sizes import format_size

_FILL_FRACTIONS = (1.0, 0.95, 0.88, 0.75, 0.0)
"""How much of the room to fill, tried in turn: packing can need more than what is live at any moment."""


@dataclass(frozen=True, kw_only=True)
class _Stay:
    """A tensor that could stay in the compute tier across steps in which it would otherwise not be there."""

    key: tuple[str, int, int]
    absent: slice
    """The steps that it would newly occupy memory in."""
    size_bytes: int
    saved_seconds: float

    @property
    def density(self) -> float:
        """Seconds saved per byte and step of residence."""
        num_steps = max(int(self.absent.stop) - int(self.absent.start), 1)
        return self.saved_seconds / (self.size_bytes * num_steps)


class GreedyPlanner(Planner):
    """Tries groupings of blocks; in each keeps whole fields first, then single tensors, by value density."""

    name = "greedy"

    def __init__(self, num_blocks: int | None = None) -> None:
        """``num_blocks`` fixes the number of blocks, as near as whole chunks allow; None: the planner's choice."""
        self._num_blocks = num_blocks

    def decide(self, problem: PlanningProblem) -> Decisions:
        best: tuple[float, Decisions | None] = (np.inf, None)
        for promised, draft in sorted(self._ranked(problem), key=lambda ranked: ranked[0]):
            if promised >= best[0]:
                break
            packed = next((d for f in _FILL_FRACTIONS if _packs(problem, d := draft.filled(f))), None)
            if packed is not None and packed.seconds < best[0]:
                best = packed.seconds, packed.decisions
        if best[1] is not None:
            return best[1]
        needed, decisions, shortage = self._smallest(problem)
        if needed <= problem.budget_bytes:
            return decisions
        if shortage is not None:
            raise BudgetError(
                f"{shortage} With these storage tiers the smallest budget of {problem.compute_tier} "
                f"that works is {needed} bytes ({format_size(needed)}).",
                needed,
            )
        raise BudgetError(
            f"A budget of {problem.budget_bytes} bytes ({format_size(problem.budget_bytes)}) of {problem.compute_tier} "
            "is too small for this model and graph: "
            f"the smallest that works is {needed} bytes ({format_size(needed)}).",
            needed,
        )

    def _ranked(self, problem: PlanningProblem) -> list[tuple[float, _Draft]]:
        """Drafts with the epoch seconds they promise. Finer groupings are given up once they only get slower."""
        ranked: list[tuple[float, _Draft]] = []
        best, worse = np.inf, 0
        for blocks in self._choices(problem):
            found = [
                (draft.filled(1.0).seconds, draft)
                for recomputed in _recomputations(problem)
                for draft in _drafts(problem, blocks, recomputed)
            ]
            ranked += found
            seconds = min((seconds for seconds, _ in found), default=np.inf)
            worse = worse + 1 if found and seconds >= best else 0
            best = min(best, seconds)
            if worse == 2:
                break
        return ranked

    def _smallest(self, problem: PlanningProblem) -> tuple[int, Decisions, BudgetError | None]:
        """The least memory that works, with everything spilled, how, and what of storage stands in the way of less."""
        drafts = []
        for blocks in self._choices(problem):
            for recomputed in _recomputations(problem):
                workload = problem.workload(blocks, recomputed)
                drafts.append(_Draft(problem, workload, _spilling(workload, 0, recomputed)))
        placed = [draft.decisions for draft in drafts if draft.shortage is None]
        if not placed and drafts[0].shortage is not None:
            raise drafts[0].shortage
        shortage = next((draft.shortage for draft in drafts if draft.feasible and draft.shortage is not None), None)
        needed, decisions = min(((_projected_peak(problem, d), d) for d in placed), key=lambda found: found[0])
        return needed, decisions, shortage

    def _choices(self, problem: PlanningProblem) -> Sequence[Blocks]:
        if self._num_blocks is None:
            return problem.choices
        info = problem.store.info
        num_chunks = -(-info.num_nodes // info.chunk_rows)
        return [problem.blocks(-(-num_chunks // min(self._num_blocks, num_chunks)))]


def _packs(problem: PlanningProblem, draft: _Draft) -> bool:
    """Whether the draft fits the budget, packing included, and the storage tiers."""
    return draft.shortage is None and _projected_peak(problem, draft.decisions) <= problem.budget_bytes


def _projected_peak(problem: PlanningProblem, decisions: Decisions) -> int:
    return freeze(problem.with_budget(2**62), decisions, GreedyPlanner.name).projected_peak_bytes


def _recomputations(problem: PlanningProblem) -> list[frozenset[str]]:
    """Sets of values to recompute that are worth trying: none, and all that can be."""
    return list(dict.fromkeys([frozenset[str](), frozenset(problem.recomputable())]))


def _spilling(workload: Workload, lookahead: int, recomputed: frozenset[str]) -> Decisions:
    """Nothing stays that could leave. A single block has no halo, so its fields are at hand whole."""
    access: Access = "held" if workload.blocks.count == 1 else "packed"
    return Decisions(
        chunks_per_block=workload.blocks.chunks_per_block,
        lookahead=lookahead,
        access=dict.fromkeys(workload.published, access),
        recomputed=recomputed,
    )


class _Draft:
    """Decisions under way: they fit the room as far as live bytes tell."""

    def __init__(self, problem: PlanningProblem, workload: Workload, decisions: Decisions) -> None:
        self.problem, self.workload, self._unplaced = problem, workload, decisions
        self._builder = SlotBuilder(workload, decisions)
        self._slots = self._builder.build()
        num_blocks = workload.blocks.count
        workspace = np.repeat([phase.workspace_bytes for phase in workload.phases], num_blocks)
        self._budget = problem.budget_bytes - int(workspace.max())
        self.room = self._budget - arena_estimate(self._slots, len(workload.steps), problem.alignment_bytes)

    @cached_property
    def shortage(self) -> BudgetError | None:
        """What the storage tiers have too little room for."""
        try:
            self._placed = self.problem.placed(self.workload, self._slots)
        except BudgetError as error:
            return error
        return None

    @cached_property
    def decisions(self) -> Decisions:
        """With a storage tier for everything, where there is room."""
        return self._unplaced if self.shortage is not None else replace(self._unplaced, placed=self._placed)

    @property
    def feasible(self) -> bool:
        return bool(self.room.min() >= 0)

    @property
    def seconds(self) -> float:
        """Of an epoch; infinite where the storage tiers have too little room."""
        if self.shortage is not None:
            return np.inf
        traffic = Traffic(self.workload, self._slots, self.problem.storage_tiers, self.decisions.placed)
        phases = traffic.phase_seconds(self.problem.rates, overlapped=self.decisions.lookahead > 0)
        return sum(phase.total for phase in phases)

    def _rates(self, part: str, block: int) -> TierRates:
        """Of the tier that the part is on when it does not stay."""
        placed = self.decisions.placed.get(part)
        tiers = self.problem.storage_tiers
        return next((t.rates for t in tiers if placed is not None and t.name == placed[block]), tiers[0].rates)

    def with_access(self, name: str, access: Access) -> _Draft:
        changed = replace(self._unplaced, access={**self._unplaced.access, name: access})
        return _Draft(self.problem, self.workload, changed)

    def filled(self, fraction: float) -> _Draft:
        """With as many tensors staying as ``fraction`` of the room takes."""
        room = self.room - int((1 - fraction) * self._budget)
        kept = set()
        for stay in sorted(self._stays(), key=lambda stay: -stay.density):
            if fraction > 0 and np.all(room[stay.absent] >= stay.size_bytes):
                room[stay.absent] -= stay.size_bytes
                kept.add(stay.key)
        return _Draft(self.problem, self.workload, replace(self._unplaced, kept=frozenset(kept)))

    def _stays(self) -> Iterator[_Stay]:
        workload, packed = self.workload, self._builder.packed
        reads = workload.own_reads(packed)
        producers = workload.producers()
        for name, phases in reads.items():
            field = workload.fields[name]
            if name in workload.published and name not in packed:
                continue
            for block in range(workload.blocks.count):
                steps = [workload.step_index(phase, block) for phase in phases]
                if field.source is Source.STEP:
                    made = workload.step_index(producers[name], block)
                    yield from self._gaps(name, block, made, steps)
                else:
                    yield self._constant(name, block, len(steps))

    def _gaps(self, name: str, block: int, made: int, steps: list[int]) -> Iterator[_Stay]:
        size = self.workload.fields[name].size_bytes(block)
        rates, ahead = self._rates(name, block), self.decisions.lookahead
        saved = read_seconds(rates, size) + write_seconds(rates, size) / len(steps)
        for before, step in zip([made, *steps], steps, strict=False):
            begin = before + 1 + (ahead if before == made else 0)
            absent = slice(begin, max(step - ahead, begin))
            rounded = aligned(size, self.problem.alignment_bytes)
            yield _Stay(key=(name, block, step), absent=absent, size_bytes=rounded, saved_seconds=saved)

    def _constant(self, name: str, block: int, num_reads: int) -> _Stay:
        field = self.workload.fields[name]
        size = field.size_bytes(block)
        stored = field.source is Source.STORE
        once = read_seconds(self.problem.rates.store if stored else self._rates(name, block), size)
        return _Stay(
            key=(name, block, SETUP_STEP),
            absent=slice(0, len(self.workload.steps)),
            size_bytes=aligned(size, self.problem.alignment_bytes),
            saved_seconds=num_reads * once,
        )


def _drafts(problem: PlanningProblem, blocks: Blocks, recomputed: frozenset[str]) -> Iterator[_Draft]:
    """Drafts over one grouping: with no field whole, then one more at a time, most valuable first."""
    workload = problem.workload(blocks, recomputed)
    for lookahead in (1, 0):
        draft = _Draft(problem, workload, _spilling(workload, lookahead, recomputed))
        if not draft.feasible:
            continue
        yield draft
        for name in _by_value(workload):
            promoted = (draft.with_access(name, access) for access in ("held", "resident"))
            chosen = next((candidate for candidate in promoted if candidate.feasible), None)
            if chosen is not None and blocks.count > 1:
                draft = chosen
                yield draft
        return


def _by_value(workload: Workload) -> list[str]:
    """Published fields, those first whose halos and packs are largest for their size."""

    def exchanged(name: str) -> float:
        pull = workload.published[name]
        rows = int(workload.halos[pull.topology].needed.sum())
        return rows / max(workload.blocks.num_nodes, 1) * sum(p.pulls.count(pull) for p in workload.phases)

    return sorted(workload.published, key=lambda name: (-exchanged(name), name))


@hookimpl
def flexgnn_list_planners() -> list[type[Planner]]:
    """This module's planner."""
    return [GreedyPlanner]
