"""The search that planners share: which sketches there are, and the best of them under a way to fill gaps."""

from __future__ import annotations

import heapq
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count, groupby, islice
from typing import TypeAlias, TypeVar

import numpy as np

from flexgnn.core.errors import BudgetError
from flexgnn.core.plan.arena import lay_out
from flexgnn.core.plan.blocks import Blocks
from flexgnn.core.plan.cost import compute_seconds
from flexgnn.core.plan.decisions import Access, Decisions, Recomputed
from flexgnn.core.plan.packing import Effort
from flexgnn.core.plan.plan import freeze
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.relieving import relieved
from flexgnn.core.plan.sketch import Sketch
from flexgnn.core.plan.ways import Way, all_ways, few_ways, least_bytes, spilling, workload_of
from flexgnn.core.plan.workload import Workload
from flexgnn.core.planner import Planner
from flexgnn.core.sizes import format_size
from flexgnn.core.tier import Array

Found = TypeVar("Found")
Stage: TypeAlias = tuple[float, Found | None]
"""Epoch seconds, a lower bound of them where there is no result yet."""

_ATTEMPTS = 16
"""Fillings that are tried to be packed."""
_SMALL_STEPS, _PACKED_SLOTS = 8, 5 * 10**7
"""Attempts that give up no more than what was missing in the one before; fewer where the square of the number of slots
times the attempts would be more than this."""
_FIRST_SHARE = 0.5
"""Of what sticks out, given up in the first attempts: with less in the way, less may stick out than that."""
_PROMOTED = 2
_PATIENCE = 2
_FAR = 1.5


class SketchPlanner(Planner):
    """A planner that fills the gaps of sketches in its own way, and takes the sketch that is fastest then."""

    tolerance = 0.01
    """Share of an epoch that a sketch may take longer than another might, before the other is looked at too."""

    def __init__(self, num_blocks: int | None = None) -> None:
        """``num_blocks`` fixes the number of blocks, as near as whole tiles allow; None: the planner's choice."""
        self._num_blocks = num_blocks

    @abstractmethod
    def fill(self, sketch: Sketch) -> Array:
        """Bool [G]: the gaps of ``sketch`` to fill, in the room that it has."""

    def sketches(self, problem: PlanningProblem, choices: Sequence[Blocks]) -> Iterable[Sketch]:
        """The sketches to choose from."""
        return promising_sketches(problem, choices)

    def decide(self, problem: PlanningProblem) -> Decisions:
        choices = self._choices(problem)
        found = best_first(self.sketches(problem, choices), self.stages, self.tolerance)
        return smallest_decisions(problem, choices, self.name) if found is None else found[1]

    def stages(self, sketch: Sketch) -> Iterator[Stage[Decisions]]:
        """What is known of the epoch seconds with ``sketch``, from cheap bounds to decisions that fit."""
        yield sketch.optimistic_seconds, None
        kept = self.fill(sketch)
        yield sketch.seconds(kept), None
        yield from packed(sketch, kept)

    def _choices(self, problem: PlanningProblem) -> Sequence[Blocks]:
        if self._num_blocks is None:
            return problem.choices
        num_tiles = -(-problem.store.info.num_nodes // problem.tile_rows)
        return [problem.blocks(-(-num_tiles // min(self._num_blocks, num_tiles)))]


def packed(sketch: Sketch, kept: Array, *, effort: Effort = "quick") -> Iterator[Stage[Decisions]]:
    """Decisions that fill the gaps ``kept`` (bool [G]), but for those that turn out not to fit when slots are packed.

    Packing needs more than what is live at any moment. Nothing if none are found that fit.
    """
    problem = sketch.problem
    for attempt in range(_ATTEMPTS):
        try:
            decisions = sketch.decided(kept)
        except BudgetError:  # of a storage tier
            return
        arena = lay_out(problem, sketch.workload, decisions, effort)
        if arena.peak_bytes <= problem.budget_bytes:
            yield sketch.seconds(kept), decisions
            return
        if not kept.any():
            return
        # Where packing takes long, there is no time for many small steps.
        small_steps = min(_SMALL_STEPS, _PACKED_SLOTS // len(arena.offsets) ** 2)
        kept = relieved(sketch, kept, arena, share=_FIRST_SHARE * 2 ** max(attempt - small_steps, 0))


def best_first(
    sketches: Iterable[Sketch], stages: Callable[[Sketch], Iterator[Stage[Found]]], tolerance: float = 0.0
) -> tuple[float, Found] | None:
    """A result and its seconds, the least over all sketches but for ``tolerance``; None if no sketch has one.

    Each sketch goes through its stages: first lower bounds of what it takes, the next never below the one before, at
    last a result. The sketch with the least bound goes on, so that most stop at their first, cheapest bound.
    """
    turn = count()
    queue: list[tuple[float, int, Found | None, Iterator[Stage[Found]]]] = []

    def advance(following: Iterator[Stage[Found]]) -> None:
        for seconds, result in islice(following, 1):
            least = seconds if result is None else seconds / (1 + tolerance)
            heapq.heappush(queue, (least, next(turn), result, following))

    for sketch in sketches:
        advance(stages(sketch))
    while queue:
        least, _, result, following = heapq.heappop(queue)
        if result is not None:
            return least * (1 + tolerance), result
        advance(following)
    return None


class _Known:
    """What the sketches seen so far say about those that are not made yet."""

    def __init__(self, problem: PlanningProblem, far: float = _FAR) -> None:
        """``far``: times the best that a way may take to be looked at in finer groupings."""
        self._rates, self._far = problem.rates.compute, far
        self._slow: set[tuple[Way, Recomputed]] = set()
        self.best = np.inf
        """The least of the seconds that the greedy planner would need."""

    def worth(self, workload: Workload) -> bool:
        """Whether it could be the fastest, if nothing moved."""
        return sum(compute_seconds(self._rates, workload, phase) for phase in workload.phases) < self.best

    def slow(self, way: Way, recomputed: Recomputed) -> bool:
        """Whether both together were far from the fastest in a coarser grouping, or now."""
        return (way, recomputed) in self._slow

    def note(self, sketch: Sketch, way: Way | None = None) -> None:
        """Learn from ``sketch``, the first over its grouping in that ``way``."""
        self.best = min(self.best, sketch.greedy_seconds)
        if way is not None and sketch.greedy_seconds > self._far * self.best:
            self._slow.add((way, sketch.decisions.recomputed))


SketchesOf: TypeAlias = Callable[[Blocks, _Known], Iterator[Sketch]]


def all_sketches(problem: PlanningProblem, choices: Sequence[Blocks]) -> Iterator[Sketch]:
    """Every sketch that fits the budget with no gap filled, over groupings that could be of use."""

    def of(blocks: Blocks, known: _Known) -> Iterator[Sketch]:
        for _, base in _bases(problem, blocks, all_ways(problem, blocks), problem.recomputable(), known):
            yield base
            yield from _promoted(base)

    return _while_worth(problem, choices, of, _Known(problem, far=np.inf))


def promising_sketches(problem: PlanningProblem, choices: Sequence[Blocks]) -> Iterator[Sketch]:
    """Of those, the ones to look at when time is short.

    In each grouping, values are recomputed, and fields made whole, only in the sketches that are fastest without.
    """

    def of(blocks: Blocks, known: _Known) -> Iterator[Sketch]:
        ways, recomputing = all_ways(problem, blocks), problem.recomputable()
        found = _bases(problem, blocks, ways, recomputing[:1], known)
        stored = sorted(found, key=lambda base: base[1].greedy_seconds)
        fastest = [way for way, _ in stored[:_PROMOTED]]
        again = _bases(problem, blocks, fastest or ways, recomputing[1:], known)
        bases = sorted((base for _, base in [*stored, *again]), key=_greedy_seconds)
        yield from bases
        for base in bases[:_PROMOTED]:
            yield from _promoted(base)

    return _while_worth(problem, choices, of)


def few_sketches(problem: PlanningProblem, choices: Sequence[Blocks]) -> Iterator[Sketch]:
    """Of those, very few: each grouping in some ways only, then all about the best two."""
    seen: list[tuple[float, int, Way, Sketch]] = []
    recomputing = problem.recomputable()

    def of(blocks: Blocks, known: _Known) -> Iterator[Sketch]:
        for ways in few_ways(problem, blocks):
            for way, base in islice(_bases(problem, blocks, ways, recomputing, known), 1):
                seen.append((base.greedy_seconds, len(seen), way, base))
                yield base

    yield from _while_worth(problem, choices, of)
    for _, _, way, best in sorted(seen, key=lambda found: found[:2])[:_PROMOTED]:
        blocks, known = best.workload.blocks, _Known(problem)
        alike = [other for other in all_ways(problem, blocks) if other.access == way.access and other != way]
        same, different = [best.decisions.recomputed], [r for r in recomputing if r != best.decisions.recomputed]
        again = _bases(problem, blocks, [way], different, known)
        others = _bases(problem, blocks, alike, same, known)
        bases = [best, *(base for _, base in (*again, *others))]
        yield from bases[1:]
        yield from _promoted(min(bases, key=_greedy_seconds))


def _while_worth(
    problem: PlanningProblem, choices: Sequence[Blocks], sketches_of: SketchesOf, known: _Known | None = None
) -> Iterator[Sketch]:
    """The sketches of ever finer groupings, until these only get slower, or would if nothing moved."""
    known, worse = known or _Known(problem), 0
    for blocks in choices:
        if not known.worth(problem.workload(blocks)):
            return
        last, found = known.best, False
        for sketch in sketches_of(blocks, known):
            yield sketch
            known.note(sketch)
            found = True
        worse = worse + 1 if found and known.best >= last else 0
        if worse == _PATIENCE:
            return


def _greedy_seconds(sketch: Sketch) -> float:
    return sketch.greedy_seconds


def _bases(
    problem: PlanningProblem,
    blocks: Blocks,
    ways: Iterable[Way],
    recomputing: Iterable[Recomputed],
    known: _Known,
    lookaheads: Sequence[int] = (1, 0),
) -> Iterator[tuple[Way, Sketch]]:
    """The sketches over one grouping in which no field is whole that need not be; the first lookahead that fits."""
    for recomputed in recomputing:
        for way in ways:
            if known.slow(way, recomputed):
                continue
            workload = workload_of(problem, blocks, recomputed, way)
            if least_bytes(workload, way) > problem.budget_bytes or not known.worth(workload):
                continue
            for lookahead in lookaheads:
                sketch = Sketch(problem, workload, spilling(workload, lookahead, recomputed, way))
                if sketch.feasible:
                    known.note(sketch, way)
                    yield way, sketch
                    break


def _promoted(base: Sketch) -> Iterator[Sketch]:
    """Sketches like ``base`` with one more field whole at a time, or as many of its slices, most valuable first."""
    if base.workload.blocks.count == 1:
        return
    decisions = base.decisions
    fields = {part: name for name, parts in base.workload.slices.items() for part in parts}
    for _, group in groupby(_by_value(base.workload), key=lambda name: fields.get(name, name)):
        names = list(group)
        size = len(names)
        while names and size:
            found = _with_whole(base, decisions, names[:size])
            if found is None:
                size //= 2
            else:
                yield found
                decisions, names = found.decisions, names[size:]


def _with_whole(base: Sketch, decisions: Decisions, names: Sequence[str]) -> Sketch | None:
    """A sketch like ``base`` with ``decisions`` and all of ``names`` whole, if it fits."""
    access: Access
    for access in ("held", "resident"):
        promoted = replace(decisions, access={**decisions.access, **dict.fromkeys(names, access)})
        sketch = Sketch(base.problem, base.workload, promoted)
        if sketch.feasible:
            return sketch
    return None


def _by_value(workload: Workload) -> list[str]:
    """Published fields, those first whose halos and packs are largest for their size."""

    def exchanged(name: str) -> float:
        pull = workload.published[name]
        rows = int(workload.halos[pull.topology].needed.sum())
        return rows / max(workload.blocks.num_nodes, 1) * sum(p.pulls.count(pull) for p in workload.phases)

    # Of slices of one field, those are first that are pulled first.
    return sorted(workload.published, key=lambda name: -exchanged(name))


def smallest_decisions(problem: PlanningProblem, choices: Sequence[Blocks], planner: str) -> Decisions:
    """What needs the least memory, with nothing kept, if it fits.

    Raises:
        BudgetError: if it does not; the message names the smallest budget that works.
    """
    limitless = problem.with_budget(2**62)
    sketches = [
        Sketch(limitless, workload, spilling(workload, 0, recomputed, way))
        for blocks in choices
        for recomputed in problem.recomputable()
        for way in all_ways(problem, blocks)
        for workload in [workload_of(limitless, blocks, recomputed, way)]
    ]
    needed: list[tuple[int, int, Decisions]] = []
    shortages: list[tuple[int, int, BudgetError]] = []
    for least, number, sketch in sorted((sketch.live_peak_bytes, n, sketch) for n, sketch in enumerate(sketches)):
        if needed and least >= needed[0][0]:
            break
        try:
            decisions = sketch.decided(sketch.nothing)
        except BudgetError as error:
            shortages.append((least, number, error))
            continue
        heapq.heappush(needed, (freeze(limitless, decisions, planner).projected_peak_bytes, number, decisions))
    if not needed:
        raise shortages[0][2]
    peak, _, decisions = needed[0]
    if peak <= problem.budget_bytes:
        return decisions
    size = f"{peak} bytes ({format_size(peak)})"
    shortage = next((error for least, _, error in shortages if least <= problem.budget_bytes), None)
    if shortage is not None:
        raise BudgetError(
            f"{shortage} With these storage tiers the smallest budget of {problem.compute_tier} that works is {size}.",
            peak,
        )
    raise BudgetError(
        f"A budget of {problem.budget_bytes} bytes ({format_size(problem.budget_bytes)}) of {problem.compute_tier} "
        f"is too small for this model and graph: the smallest that works is {size}.",
        peak,
    )
