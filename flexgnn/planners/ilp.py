"""The ILP planner: gaps are filled as an integer linear program says, solved by HiGHS."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.plan.blocks import Blocks
from flexgnn.core.plan.decisions import Decisions
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.relaxation import optimal_filling, relaxed_seconds
from flexgnn.core.plan.search import SketchPlanner, Stage, all_sketches, packed
from flexgnn.core.plan.sketch import Sketch
from flexgnn.core.planner import Planner
from flexgnn.core.tier import Array


class ILPPlanner(SketchPlanner):
    """Finds the best filling of the sketches whose linear relaxation promises most.

    Each starts from the greedy filling. When time is up, that is what the sketches get that are left.
    """

    name = "ilp"

    def __init__(self, num_blocks: int | None = None, *, time_limit: float = 10.0, relative_gap: float = 1e-3) -> None:
        """As for every planner; ``time_limit`` in seconds for all sketches, ``relative_gap`` from the bound."""
        super().__init__(num_blocks)
        self._time_limit, self._relative_gap = time_limit, relative_gap
        self.tolerance = relative_gap
        self._deadline = 0.0

    def decide(self, problem: PlanningProblem) -> Decisions:
        self._deadline = time.monotonic() + self._time_limit
        return super().decide(problem)

    def sketches(self, problem: PlanningProblem, choices: Sequence[Blocks]) -> Iterable[Sketch]:
        return all_sketches(problem, choices)

    def stages(self, sketch: Sketch) -> Iterator[Stage[Decisions]]:
        yield sketch.optimistic_seconds, None
        if self._seconds_left > 0:
            yield relaxed_seconds(sketch), None
        kept = self.fill(sketch)
        yield sketch.seconds(kept), None
        # An optimal filling may be harder to pack than the greedy one.
        found = list(packed(sketch, kept, effort="full"))
        if not found or sketch.greedy_seconds < found[0][0]:
            found += packed(sketch, sketch.greedy_filling, effort="full")
        yield from sorted(found, key=lambda stage: stage[0])[:1]

    def fill(self, sketch: Sketch) -> Array:
        start = sketch.greedy_filling
        if self._seconds_left <= 0 or len(sketch.gaps) == 0:
            return start
        return optimal_filling(sketch, start, time_limit=self._seconds_left, relative_gap=self._relative_gap).kept

    @property
    def _seconds_left(self) -> float:
        return self._deadline - time.monotonic()


@hookimpl
def flexgnn_list_planners() -> list[type[Planner]]:
    """This module's planner."""
    return [ILPPlanner]
