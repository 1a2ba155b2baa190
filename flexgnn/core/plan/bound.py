"""What no plan can beat: the best over all sketches of a relaxed problem, in which parts of tensors could be kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.relaxation import relaxed_bytes, relaxed_seconds
from flexgnn.core.plan.search import Stage, all_sketches, best_first
from flexgnn.core.plan.sketch import Sketch


@dataclass(frozen=True, kw_only=True)
class LowerBound:
    """Least values, each by itself, over all groupings, hubs, kinds of access and lookaheads that planners look at."""

    seconds: float
    """All phases of an epoch, each taking as long as its busiest channel."""
    moved_bytes: int
    """Across the boundary between the compute tier and everything below it, in an epoch, both ways."""


def find_lower_bound(problem: PlanningProblem) -> LowerBound:
    """Solve the relaxations of all sketches that could be the best.

    Raises:
        BudgetError: if no sketch fits the budget.
    """
    sketches = list(all_sketches(problem, problem.choices))
    seconds, moved = best_first(sketches, _seconds_of), best_first(sketches, _bytes_of)
    assert seconds is not None, "there is a plan"
    assert moved is not None
    return LowerBound(seconds=seconds[0], moved_bytes=int(moved[0]))


def _seconds_of(sketch: Sketch) -> Iterator[Stage[Sketch]]:
    yield sketch.optimistic_seconds, None
    yield relaxed_seconds(sketch), sketch


def _bytes_of(sketch: Sketch) -> Iterator[Stage[Sketch]]:
    yield sketch.optimistic_bytes, None
    yield relaxed_bytes(sketch), sketch
