"""What no plan can beat: the best over all sketches of a relaxed problem, in which parts of tensors could be kept."""

from __future__ import annotations

from dataclasses import dataclass

from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.relaxation import relaxed_bytes, relaxed_seconds
from flexgnn.core.plan.search import all_sketches, best_first


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
    seconds = best_first(
        sketches, lambda sketch: iter([(sketch.optimistic_seconds, None), (relaxed_seconds(sketch), sketch)])
    )
    moved = best_first(
        sketches, lambda sketch: iter([(sketch.optimistic_bytes, None), (relaxed_bytes(sketch), sketch)])
    )
    assert seconds is not None, "there is a plan"
    assert moved is not None
    return LowerBound(seconds=seconds[0], moved_bytes=int(moved[0]))
