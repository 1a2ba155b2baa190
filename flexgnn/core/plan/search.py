"""The search that planners share: which sketches there are, and the best of them under a way to fill gaps."""

from __future__ import annotations

import heapq
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import TypeAlias, TypeVar

import numpy as np

from flexgnn.core.errors import BudgetError
from flexgnn.core.plan.blocks import Blocks
from flexgnn.core.plan.cost import compute_seconds
from flexgnn.core.plan.decisions import WHOLE_FOR_A_PHASE, Access, Decisions
from flexgnn.core.plan.plan import freeze
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.sketch import Sketch
from flexgnn.core.plan.slices import useful_slices
from flexgnn.core.plan.workload import Source, Workload
from flexgnn.core.planner import Planner
from flexgnn.core.sizes import format_size
from flexgnn.core.tier import Array

Found = TypeVar("Found")
Stage: TypeAlias = tuple[float, Found | None]
"""Epoch seconds, a lower bound of them where there is no result yet."""

_ATTEMPTS = 8
"""Fillings that are tried to be packed."""
_PROMOTED = 2
_PATIENCE = 2
_FEW_BLOCKS = 8
"""Whole blocks are read as halos only where there are no more than these."""


class SketchPlanner(Planner):
    """A planner that fills the gaps of sketches in its own way, and takes the sketch that is fastest then."""

    def __init__(self, num_blocks: int | None = None) -> None:
        """``num_blocks`` fixes the number of blocks, as near as whole chunks allow; None: the planner's choice."""
        self._num_blocks = num_blocks

    @abstractmethod
    def fill(self, sketch: Sketch, room_fraction: float) -> Array:
        """Bool [G]: the gaps of ``sketch`` to fill, in at most ``room_fraction`` of the budget."""

    def sketches(self, problem: PlanningProblem, choices: Sequence[Blocks]) -> Iterable[Sketch]:
        """The sketches to choose from."""
        return promising_sketches(problem, choices)

    def decide(self, problem: PlanningProblem) -> Decisions:
        choices = self._choices(problem)
        found = best_first(self.sketches(problem, choices), self.stages)
        return smallest_decisions(problem, choices, self.name) if found is None else found[1]

    def stages(self, sketch: Sketch) -> Iterator[Stage[Decisions]]:
        """What is known of the epoch seconds with ``sketch``, from cheap bounds to decisions that fit."""
        yield sketch.optimistic_seconds, None
        yield sketch.seconds(self.fill(sketch, 1.0)), None
        yield from self.packed(sketch, self.fill)

    def packed(self, sketch: Sketch, fill: Callable[[Sketch, float], Array]) -> Iterator[Stage[Decisions]]:
        """The fullest filling of ``sketch`` that is found to fit when slots are packed, if one is."""
        budget, fraction = sketch.problem.budget_bytes, 1.0
        for _ in range(_ATTEMPTS):
            kept = fill(sketch, fraction)
            try:
                decisions = sketch.decided(kept)
                freeze(sketch.problem, decisions, self.name)
            except BudgetError as error:
                # Packing needs more than what is live at any moment: leave it some of what was missing.
                missing = max(error.smallest_bytes - budget, 0) / budget
                fraction = max(fraction - max(0.7 * missing, 0.02), 0.0)
                continue
            yield sketch.seconds(kept), decisions
            return

    def _choices(self, problem: PlanningProblem) -> Sequence[Blocks]:
        if self._num_blocks is None:
            return problem.choices
        info = problem.store.info
        num_chunks = -(-info.num_nodes // info.chunk_rows)
        return [problem.blocks(-(-num_chunks // min(self._num_blocks, num_chunks)))]


def best_first(
    sketches: Iterable[Sketch], stages: Callable[[Sketch], Iterator[Stage[Found]]]
) -> tuple[float, Found] | None:
    """The result with the least seconds over all sketches, and those seconds; None if no sketch has one.

    Each sketch goes through its stages: first lower bounds of what it takes, the next never below the one before, at
    last a result. The sketch with the least bound goes on, so that most stop at their first, cheapest bound.
    """
    turn = count()
    queue: list[tuple[float, int, Found | None, Iterator[Stage[Found]]]] = []

    def advance(following: Iterator[Stage[Found]]) -> None:
        for seconds, result in islice(following, 1):
            heapq.heappush(queue, (seconds, next(turn), result, following))

    for sketch in sketches:
        advance(stages(sketch))
    while queue:
        seconds, _, result, following = heapq.heappop(queue)
        if result is not None:
            return seconds, result
        advance(following)
    return None


Worth: TypeAlias = Callable[[Workload], bool]
"""Whether a workload may be faster than the best that is known."""


def all_sketches(problem: PlanningProblem, choices: Sequence[Blocks]) -> Iterator[Sketch]:
    """Every sketch that fits the budget with no gap filled, and that could be the best, over groupings of any use."""

    def of(blocks: Blocks, worth: Worth) -> Iterator[Sketch]:
        for _, base in _bases(problem, blocks, _ways(problem, blocks), recomputations(problem), worth=worth):
            yield base
            yield from _promoted(base)

    return _while_worth(problem, choices, of)


def promising_sketches(problem: PlanningProblem, choices: Sequence[Blocks]) -> Iterator[Sketch]:
    """Of those, the ones to look at when time is short.

    In each grouping, values are recomputed, and fields made whole, only in the sketches that are fastest without.
    """

    def of(blocks: Blocks, worth: Worth) -> Iterator[Sketch]:
        ways = _ways(problem, blocks)
        found = _bases(problem, blocks, ways, [frozenset()], worth=worth)
        stored = sorted(found, key=lambda base: base[1].greedy_seconds)
        fastest = [way for way, _ in stored[:_PROMOTED]]
        again = _bases(problem, blocks, fastest or ways, recomputations(problem)[1:], worth=worth)
        bases = sorted((base for _, base in [*stored, *again]), key=_greedy_seconds)
        yield from bases
        for base in bases[:_PROMOTED]:
            yield from _promoted(base)

    return _while_worth(problem, choices, of)


def few_sketches(problem: PlanningProblem, choices: Sequence[Blocks]) -> Iterator[Sketch]:
    """Of those, very few: each grouping in some ways only, then all about the best two."""
    seen: list[tuple[float, int, Way, Sketch]] = []

    def of(blocks: Blocks, worth: Worth) -> Iterator[Sketch]:
        for way, base in _bases(problem, blocks, _few_ways(problem, blocks), [frozenset()], worth=worth):
            seen.append((base.greedy_seconds, len(seen), way, base))
            yield base

    yield from _while_worth(problem, choices, of)
    again = recomputations(problem)[1:]
    for _, _, way, best in sorted(seen, key=lambda found: found[:2])[:_PROMOTED]:
        blocks = best.workload.blocks
        bases = [best, *(base for _, base in _bases(problem, blocks, [way], again))]
        yield from bases[1:]
        yield from _promoted(min(bases, key=_greedy_seconds))


def _while_worth(
    problem: PlanningProblem, choices: Sequence[Blocks], sketches_of: Callable[[Blocks, Worth], Iterator[Sketch]]
) -> Iterator[Sketch]:
    """The sketches of ever finer groupings, until these only get slower, or would if nothing moved."""
    best, worse = np.inf, 0

    def worth(workload: Workload) -> bool:
        return sum(compute_seconds(problem.rates.compute, workload, phase) for phase in workload.phases) < best

    for blocks in choices:
        if not worth(problem.workload(blocks)):
            return
        last, found = best, False
        for sketch in sketches_of(blocks, worth):
            yield sketch
            found, best = True, min(best, sketch.greedy_seconds)
        worse = worse + 1 if found and best >= last else 0
        if worse == _PATIENCE:
            return


def _greedy_seconds(sketch: Sketch) -> float:
    return sketch.greedy_seconds


@dataclass(frozen=True)
class Way:
    """How other blocks reach all fields that don't stay whole."""

    access: Access
    hub_blocks: int = 0
    column_slices: int = 1

    def of(self, workload: Workload) -> dict[str, Access]:
        """By published field. What no step writes is not loaded whole, but packed."""
        return {name: self._of_field(workload, name) for name in workload.published}

    def _of_field(self, workload: Workload, name: str) -> Access:
        stored = workload.fields[name].source is not Source.STEP
        return "packed" if self.access in WHOLE_FOR_A_PHASE and stored else self.access


def _ways(problem: PlanningProblem, blocks: Blocks) -> list[Way]:
    if blocks.count == 1:
        return [Way("held")]
    ways = [Way("packed", hub_blocks) for hub_blocks in _hub_choices(problem, blocks)]
    for slices in useful_slices(problem.program):
        ways += [Way("ahead", 0, slices), Way("loaded", 0, slices)]
    return [*ways, Way("blocks")] if blocks.count <= _FEW_BLOCKS else ways


def _few_ways(problem: PlanningProblem, blocks: Blocks) -> list[Way]:
    """No more than six of :func:`_ways`, spread over each kind."""
    ways = _ways(problem, blocks)
    kinds = {access: [way for way in ways if way.access == access] for access in ("held", "packed", "ahead", "loaded")}
    chosen: list[Way] = []
    for of_kind in kinds.values():
        chosen += dict.fromkeys([*of_kind[:1], *of_kind[len(of_kind) // 2 : len(of_kind) // 2 + 1]])
    return chosen


def _hub_choices(problem: PlanningProblem, blocks: Blocks) -> list[int]:
    """No hubs, and the powers of two that make different nodes hubs."""
    found: dict[tuple[int, ...], int] = {}
    for hub_blocks in (0, *(2**power for power in range(1, (blocks.count - 1).bit_length()))):
        hubs = tuple(halos.num_hubs for halos in problem.halos(blocks, hub_blocks).values())
        found.setdefault(hubs, hub_blocks)
    return sorted(found.values())


def _bases(
    problem: PlanningProblem,
    blocks: Blocks,
    ways: Iterable[Way],
    recomputing: Iterable[frozenset[str]],
    lookaheads: Sequence[int] = (1, 0),
    worth: Worth = lambda workload: True,
) -> Iterator[tuple[Way, Sketch]]:
    """The sketches over one grouping in which no field is whole that need not be; the first lookahead that fits."""
    for recomputed in recomputing:
        for way in ways:
            workload = workload_of(problem, blocks, recomputed, way)
            if not worth(workload):
                continue
            for lookahead in lookaheads:
                sketch = Sketch(problem, workload, spilling(workload, lookahead, recomputed, way))
                if sketch.feasible:
                    yield way, sketch
                    break


def workload_of(problem: PlanningProblem, blocks: Blocks, recomputed: frozenset[str], way: Way) -> Workload:
    """The workload in which other blocks reach all fields as ``way`` says."""
    workload = problem.workload(blocks, recomputed, way.hub_blocks, column_slices=way.column_slices)
    if way.access != "blocks":
        return workload
    return problem.workload(blocks, recomputed, way.hub_blocks, frozenset(workload.published))


def _promoted(base: Sketch) -> Iterator[Sketch]:
    """Sketches like ``base`` with one more field whole at a time, most valuable first."""
    if base.workload.blocks.count == 1:
        return
    decisions, full = base.decisions, set[str]()
    fields = {part: name for name, parts in base.workload.slices.items() for part in parts}
    for name in _by_value(base.workload):
        # Slices that are pulled later stay for longer.
        if (field := fields.get(name, name)) in full:
            continue
        access: Access
        for access in ("held", "resident"):
            promoted = decisions.with_access(name, access)
            sketch = Sketch(base.problem, base.workload, promoted)
            if sketch.feasible:
                decisions = promoted
                yield sketch
                break
        else:
            full.add(field)


def recomputations(problem: PlanningProblem) -> list[frozenset[str]]:
    """Sets of values to recompute that are worth trying: none, and all that can be."""
    return list(dict.fromkeys([frozenset[str](), frozenset(problem.recomputable())]))


def spilling(workload: Workload, lookahead: int, recomputed: frozenset[str], way: Way) -> Decisions:
    """Nothing stays that could leave without making room."""
    access = way.of(workload)
    # Loading the first slice ahead would take the room that it needs from when it is made.
    at_once = [name for name, how in access.items() if how == "ahead" and _made_right_before(workload, name)]
    access |= dict.fromkeys(at_once, "resident")
    return Decisions(
        chunks_per_block=workload.blocks.chunks_per_block,
        lookahead=lookahead,
        access=access,
        hub_blocks=way.hub_blocks,
        column_slices=way.column_slices,
        recomputed=recomputed,
    )


def _made_right_before(workload: Workload, name: str) -> bool:
    """Whether the phase that makes a field is followed by the one phase that pulls from it."""
    pullers = [phase.index for phase in workload.phases if name in phase.pulled]
    return pullers == [workload.producers()[name].index + 1]


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
    again = recomputations(problem)
    sketches = [
        sketch for blocks in choices for _, sketch in _bases(limitless, blocks, _ways(problem, blocks), again, (0,))
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
