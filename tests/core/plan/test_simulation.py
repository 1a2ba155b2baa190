"""The simulation of a plan, beside what its parts say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flexgnn.core.plan.cost import TierRates, step_seconds
from flexgnn.core.plan.placement import StorageTier
from flexgnn.core.plan.plan import Plan, freeze
from flexgnn.core.plan.sketch import Sketch
from flexgnn.core.plan.ways import Way, spilling
from flexgnn.planners.greedy import GreedyPlanner
from tests.core.plan.problems import small_problem

INSTANT = TierRates(
    read_bytes_per_second=1e15,
    write_bytes_per_second=1e15,
    call_seconds=0.0,
    read_cpu_seconds_per_byte=0.0,
    write_cpu_seconds_per_byte=0.0,
)


def spilled(path: Path, rates: TierRates, lookahead: int) -> Plan:
    """A plan over ten blocks that keeps nothing."""
    problem = replace(small_problem(path, 2**40), storage_tiers=(StorageTier(name="arrow", rates=rates),))
    workload = problem.workload(problem.choices[-1])
    sketch = Sketch(problem, workload, spilling(workload, lookahead, problem.recomputable()[0], Way("packed")))
    return freeze(problem, sketch.decided(sketch.nothing), "spilling")


def test_in_memory_an_epoch_takes_its_steps(tmp_path: Path) -> None:
    problem = small_problem(tmp_path, 2**40)
    plan = freeze(problem, GreedyPlanner(4).decide(problem), "greedy")
    rates = problem.rates.compute
    expected = sum(step_seconds(rates, plan.workload, phase).sum() for phase in plan.workload.phases)
    assert plan.timeline.ends[-1] == pytest.approx(expected)
    assert sum(plan.projected_phase_seconds) == pytest.approx(expected)


def test_steps_follow_each_other(tmp_path: Path) -> None:
    line = spilled(tmp_path, TierRates(), 1).timeline
    assert (line.starts <= line.ready).all()
    assert (line.ready <= line.ends).all()
    assert np.array_equal(line.starts[1:], line.ends[:-1])
    assert line.starts[0] == 0


@pytest.mark.parametrize("lookahead", [0, 1])
def test_no_channel_does_two_things_at_once(lookahead: int, tmp_path: Path) -> None:
    slow = TierRates(read_bytes_per_second=1e6, write_bytes_per_second=1e6)
    plan = spilled(tmp_path, slow, lookahead)
    busy = plan.traffic.busy_seconds(plan.problem.rates).sum(axis=0)
    assert plan.timeline.ends[-1] >= busy.max() - 1e-12
    assert plan.timeline.ends[-1] <= busy.sum() + 1e-12


def test_looking_ahead_hides_transfers(tmp_path: Path) -> None:
    slow = replace(INSTANT, read_bytes_per_second=1e7, write_bytes_per_second=1e7)
    ahead, behind = (spilled(tmp_path, slow, lookahead).timeline.ends[-1] for lookahead in (1, 0))
    nothing = spilled(tmp_path, INSTANT, 1).timeline.ends[-1]
    assert nothing < ahead < behind
