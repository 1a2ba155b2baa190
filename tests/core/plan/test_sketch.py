"""What a sketch says of a choice is what the plan that is frozen from it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flexgnn.core.plan.bound import find_lower_bound
from flexgnn.core.plan.plan import freeze
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.relaxation import optimal_filling, relaxed_bytes, relaxed_seconds
from flexgnn.core.plan.search import all_sketches, few_sketches, promising_sketches
from flexgnn.core.plan.sketch import Sketch
from flexgnn.core.planner import Planner
from flexgnn.planners.greedy import GreedyPlanner
from flexgnn.planners.ilp import ILPPlanner
from flexgnn.planners.learned import LearnedPlanner
from tests.core.plan.problems import tight_problem


@pytest.fixture
def problem(tmp_path: Path) -> PlanningProblem:
    """With a little more memory than it needs."""
    return tight_problem(tmp_path, 1.6)


def some(sketches: list[Sketch], count: int) -> list[Sketch]:
    chosen = np.random.default_rng(0).permutation(len(sketches))[:count]
    return [sketches[index] for index in chosen]


def test_seconds_and_bytes_of_a_choice_are_those_of_its_plan(problem: PlanningProblem) -> None:
    random = np.random.default_rng(1)
    limitless = problem.with_budget(2**40)
    sketches = some(list(all_sketches(problem, problem.choices)), 12)
    assert {sketch.decisions.lookahead for sketch in sketches} == {0, 1}
    assert any(sketch.workload.blocks.count > 1 for sketch in sketches)
    for sketch in sketches:
        for share in (0.0, 0.5, 1.0):
            kept = random.random(len(sketch.gaps)) < share
            plan = freeze(limitless, sketch.decided(kept), "random")
            assert sketch.seconds(kept) == pytest.approx(plan.overlapped_seconds)
            assert sum(plan.traffic_bytes.values()) <= sketch.moved_bytes
            if fits(sketch, kept):
                assert sketch.seconds(kept) >= sketch.optimistic_seconds * (1 - 1e-9)
                assert sketch.optimistic_bytes <= sum(plan.traffic_bytes.values()) + 1


def test_filling_never_takes_more_than_the_room(problem: PlanningProblem) -> None:
    for sketch in some(list(all_sketches(problem, problem.choices)), 12):
        kept = sketch.filled(np.random.default_rng(2).random(len(sketch.gaps)))
        room = sketch.room.copy()
        for gap, first, stop in sketch.gaps.spans.tolist():
            room[first:stop] -= sketch.gaps.sizes[gap] * kept[gap]
        assert (room >= 0).all()


def test_the_relaxation_is_below_the_optimum_and_that_below_greedy(problem: PlanningProblem) -> None:
    for sketch in some(list(all_sketches(problem, problem.choices)), 8):
        greedy = sketch.greedy_filling
        filling = optimal_filling(sketch, greedy, time_limit=2.0, relative_gap=1e-6)
        assert relaxed_seconds(sketch) <= sketch.seconds(filling.kept) * (1 + 1e-6)
        assert filling.bound_seconds <= sketch.seconds(filling.kept) * (1 + 1e-6)
        assert sketch.seconds(filling.kept) <= sketch.seconds(greedy) * (1 + 1e-6)
        assert sketch.optimistic_bytes - 1 <= relaxed_bytes(sketch) <= sketch.moved_bytes


def test_the_optimum_is_that_of_trying_everything(tmp_path: Path) -> None:
    problem = tight_problem(tmp_path, 2.0)
    sketches = [sketch for sketch in all_sketches(problem, problem.choices) if 4 <= len(sketch.gaps) <= 11]
    assert sketches
    for sketch in some(sketches, 3):
        best = min(sketch.seconds(kept) for kept in masks(len(sketch.gaps)) if fits(sketch, kept))
        filling = optimal_filling(sketch, sketch.nothing, time_limit=5.0, relative_gap=0.0)
        assert filling.proven
        assert sketch.seconds(filling.kept) == pytest.approx(best, rel=1e-6)


def masks(count: int) -> list[np.ndarray]:
    return [np.array([number >> bit & 1 for bit in range(count)], dtype=np.bool_) for number in range(2**count)]


def fits(sketch: Sketch, kept: np.ndarray) -> bool:
    room = sketch.room.copy()
    for gap, first, stop in sketch.gaps.spans.tolist():
        room[first:stop] -= sketch.gaps.sizes[gap] * kept[gap]
    return bool(room.min() >= 0)


@pytest.mark.parametrize("planner", [GreedyPlanner, ILPPlanner, LearnedPlanner])
def test_no_plan_is_below_the_bound(planner: type[Planner], problem: PlanningProblem) -> None:
    plan = freeze(problem, planner().decide(problem), planner.name)
    bound = find_lower_bound(problem)
    assert 0 < bound.seconds <= plan.overlapped_seconds * (1 + 1e-6)
    assert 0 < bound.moved_bytes <= sum(plan.traffic_bytes.values())
    assert plan.lower_bound == bound
    assert plan.overlapped_seconds < 1.5 * bound.seconds


def test_the_bound_is_that_of_the_sketches_to_look_at_when_time_is_short_too(problem: PlanningProblem) -> None:
    bound = find_lower_bound(problem).seconds
    counts = [len(list(all_sketches(problem, problem.choices)))]
    for some in (promising_sketches, few_sketches):
        sketches = list(some(problem, problem.choices))
        counts.append(len(sketches))
        assert all(relaxed_seconds(sketch) >= bound * (1 - 1e-6) for sketch in sketches)
        for sketch in sketches:
            assert sketch.optimistic_seconds <= relaxed_seconds(sketch) * (1 + 1e-6)
            assert sketch.optimistic_bytes <= relaxed_bytes(sketch) * (1 + 1e-6) + 1
    assert counts == sorted(set(counts), reverse=True)
