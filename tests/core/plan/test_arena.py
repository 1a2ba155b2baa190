"""What does not fit is said slot by slot, and given up gap by gap."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flexgnn.core.plan.arena import column, lay_out
from flexgnn.core.plan.plan import freeze
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.relieving import relieved
from flexgnn.core.plan.search import all_sketches, packed
from flexgnn.core.plan.sketch import Sketch
from flexgnn.core.plan.ways import Way, all_ways, least_bytes, spilling, workload_of
from tests.core.plan.problems import tight_problem


@pytest.fixture
def problem(tmp_path: Path) -> PlanningProblem:
    """With a little more memory than it needs."""
    return tight_problem(tmp_path, 1.3)


def some_sketches(problem: PlanningProblem) -> list[Sketch]:
    return [sketch for sketch in all_sketches(problem, problem.choices) if len(sketch.gaps)][::5]


def test_slots_beyond_a_budget_are_those_that_end_there(problem: PlanningProblem) -> None:
    for sketch in some_sketches(problem):
        arena = lay_out(problem, sketch.workload, sketch.decided(~sketch.nothing))
        ends = arena.offsets + column(arena.groups, "size_bytes") + arena.workspace_bytes
        for budget_bytes in (0, int(np.median(ends)), arena.size_bytes + arena.workspace_bytes):
            beyond, over = arena.beyond(budget_bytes)
            assert np.concatenate(over).tolist() == (ends - budget_bytes)[ends > budget_bytes].tolist()
            assert sum(map(len, beyond)) == (ends > budget_bytes).sum()
            first_of_group = np.cumsum([0, *map(len, arena.groups)])
            for start, slots in zip(first_of_group, beyond, strict=False):
                assert (ends[start + slots] > budget_bytes).all()


def test_what_is_found_quickly_is_found_with_full_effort(problem: PlanningProblem) -> None:
    for sketch in some_sketches(problem):
        for kept in (sketch.nothing, sketch.greedy_filling):
            decisions = sketch.decided(kept)
            quick, full = (lay_out(problem, sketch.workload, decisions, effort) for effort in ("quick", "full"))
            assert full.size_bytes <= quick.size_bytes
            if quick.peak_bytes <= problem.budget_bytes:
                assert full.offsets.tolist() == quick.offsets.tolist()


def test_a_full_arena_is_relieved_until_it_fits(problem: PlanningProblem) -> None:
    given_up = 0
    for sketch in some_sketches(problem):
        everything = ~sketch.nothing
        for _, decisions in packed(sketch, everything):
            assert decisions is not None
            assert freeze(problem, decisions, "packed").projected_peak_bytes <= problem.budget_bytes
            given_up += len(decisions.kept) < len(sketch.gaps)
        arena = lay_out(problem, sketch.workload, sketch.decided(everything))
        if arena.peak_bytes > problem.budget_bytes:
            less = relieved(sketch, everything, arena)
            assert less.sum() < everything.sum()
    assert given_up


def test_what_only_the_setup_lacks_is_given_up_at_once(problem: PlanningProblem) -> None:
    for sketch in some_sketches(problem):
        everything, missing = ~sketch.nothing, int(sketch.gaps.sizes.sum()) // 2
        arena = lay_out(problem.with_budget(2**40), sketch.workload, sketch.decided(everything))
        roomy = Sketch(problem.with_budget(arena.peak_bytes), sketch.workload, sketch.decisions)
        left = relieved(roomy, everything, replace(arena, setup_bytes=arena.peak_bytes + missing))
        assert sketch.gaps.sizes[~left].sum() >= missing


def test_a_way_that_is_left_out_as_too_large_fits_nowhere(problem: PlanningProblem) -> None:
    for blocks in problem.choices:
        for way in all_ways(problem, blocks):
            workload = workload_of(problem, blocks, problem.recomputable()[0], way)
            least = least_bytes(workload, way)
            for lookahead in (0, 1):
                sketch = Sketch(problem, workload, spilling(workload, lookahead, problem.recomputable()[0], way))
                assert least <= sketch.live_peak_bytes
    workload = problem.workload(problem.choices[-1])
    largest = max(int(workload.fields[name].sizes.sum()) for name in workload.published)
    assert least_bytes(workload, Way("held")) >= largest + least_bytes(workload, Way("packed"))


def test_filling_at_prices_is_never_slower_than_by_density(problem: PlanningProblem) -> None:
    faster = 0
    for sketch in some_sketches(problem):
        by_density = sketch.seconds(sketch.filled(sketch.gaps.densities))
        assert sketch.greedy_seconds <= by_density
        faster += sketch.greedy_seconds < by_density
    assert faster
