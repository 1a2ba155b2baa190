"""The search that planners share, on problems on paper."""

from __future__ import annotations

import numpy as np
import pytest

from flexgnn.core.plan.plan import freeze
from flexgnn.core.plan.search import SketchPlanner
from flexgnn.planners.greedy import GreedyPlanner
from flexgnn.planners.learned import LearnedPlanner
from flexgnn.testing.problems import random_problem

PLANNERS: tuple[type[SketchPlanner], ...] = (GreedyPlanner, LearnedPlanner)


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(14, id="nothing fits with hidden values computed again"),
        pytest.param(30, id="what is slow with them kept is fast without"),
    ],
)
def test_no_planner_misses_what_another_finds(seed: int) -> None:
    problem = random_problem(np.random.default_rng(seed))
    plans = [freeze(problem, planner().decide(problem), planner.name) for planner in PLANNERS]
    seconds = [plan.overlapped_seconds for plan in plans]
    assert max(seconds) <= 1.05 * min(seconds), seconds
