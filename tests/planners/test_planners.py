"""The built-in planners, as a third party tests its own."""

from __future__ import annotations

import pytest

from flexgnn.planners.greedy import GreedyPlanner
from flexgnn.planners.ilp import ILPPlanner
from flexgnn.planners.learned import LearnedPlanner
from flexgnn.testing import PlannerTests


class TestGreedy(PlannerTests):
    planner = GreedyPlanner


class TestILP(PlannerTests):
    planner = ILPPlanner


class TestLearned(PlannerTests):
    planner = LearnedPlanner


def test_a_missing_planner_fails_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match=r"TestNothing needs `planner = ...`"):
        type("TestNothing", (PlannerTests,), {})
