from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.nn import GCN, GraphSAGE

from flexgnn.core.plan.cost import compute_seconds, pass_seconds, schedule, step_seconds
from flexgnn.core.plan.locality import distance_classes, reach_of
from flexgnn.core.plan.machines import load_machine, machine_names, stated_compute
from flexgnn.core.plan.placement import StorageTier
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.rates import ComputeRates, Figure, Reach
from flexgnn.core.plan.work import Work
from flexgnn.core.program.lower import lower
from tests.core.plan.problems import small_problem
from tests.graphs import small_graph, store_of

RATES = stated_compute(load_machine("laptop-nvme"))


@pytest.mark.parametrize(
    ("tiles", "threads", "expected"), [([1, 1, 1], 2, 2), ([1, 1, 1, 9], 2, 10), ([9, 1, 1, 1], 2, 9), ([2, 3], 8, 3)]
)
def test_tiles_go_to_the_thread_that_is_free_first(tiles: list[float], threads: int, expected: float) -> None:
    seconds = np.zeros(1)
    schedule(np.array(tiles, dtype=float), len(tiles), threads, seconds)
    assert seconds[0] == expected


def test_figures_are_given_back_at_the_sizes_they_were_measured_at() -> None:
    values = {f.at: f.value for f in RATES.figures if f.kind == "product"}
    for (k, n), value in values.items():
        assert RATES.work_seconds(Work(products=((2048, k, n),))) == pytest.approx(2 * 2048 * k * n * value)
    assert RATES.work_seconds(Work(drawn=1000)) == pytest.approx(1000 * RATES.single("draw"))


def in_reach_of(num_rows: int, degree: int = 10**6) -> Reach:
    """Edges to rows that are anything up to ``num_rows`` away."""
    rows = np.array([0.0, num_rows, num_rows + 1])
    return Reach(rows=rows, edges=np.zeros(3), degree=degree, shares=np.array([[1.0, 0.0]]))


def test_an_edge_takes_what_was_measured_for_its_width_and_reach() -> None:
    for figure in RATES.figures:
        if figure.kind == "pull" and figure.at[1] >= 2**20:
            width, reach_bytes = figure.at
            seconds = RATES.edge_seconds(width, in_reach_of(reach_bytes // (4 * width)))
            assert seconds == pytest.approx([figure.value], rel=0.02)


def test_farther_and_wider_rows_take_longer() -> None:
    near, far = (RATES.edge_seconds(64, in_reach_of(rows))[0] for rows in (100, 10**7))
    assert far > 2 * near
    narrow, odd, wide = (RATES.edge_seconds(width, in_reach_of(10**6))[0] for width in (32, 47, 64))
    assert narrow < odd
    assert narrow < wide


def test_a_profile_without_a_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="draw"):
        ComputeRates(threads=1, figures=tuple(f for f in RATES.figures if f.kind != "draw"))
    with pytest.raises(ValueError, match="above 0"):
        ComputeRates(threads=1, figures=(*RATES.figures, Figure(kind="draw", at=(), value=0.0, low=0.0, high=0.0)))
    with pytest.raises(ValueError, match="pull"):
        ComputeRates(threads=1, figures=(*RATES.figures, Figure(kind="pull", at=(8,), value=1.0, low=1.0, high=1.0)))


@pytest.mark.parametrize("model", [GCN(5, 8, 3, 3, dropout=0.5), GraphSAGE(5, 8, 2, 3, aggr="max")])
def test_steps_of_all_groupings_take_time_and_add_up(model: torch.nn.Module, tmp_path: Path) -> None:
    problem = PlanningProblem(
        program=lower(model, num_features=5),
        store=store_of(small_graph(num_nodes=70, num_edges=400), tmp_path / "graph"),
        budget_bytes=2**20,
        compute_tier="ram",
        storage_tiers=(StorageTier(name="arrow"),),
        threads=1,
        training=True,
        evaluation=True,
    )
    alone = replace(RATES, threads=1)
    whole = problem.workload(problem.choices[0])
    for blocks in problem.choices:
        workload = problem.workload(blocks)
        for phase in workload.phases:
            seconds = step_seconds(alone, workload, phase)
            assert len(seconds) == blocks.count
            assert np.all(seconds > alone.single("step"))
            assert seconds.sum() == pytest.approx(compute_seconds(alone, workload, phase))
            # One thread takes as long whatever the blocks are, but for what a step takes.
            once = compute_seconds(alone, whole, whole.phases[phase.index]) - alone.single("step")
            assert seconds.sum() - blocks.count * alone.single("step") == pytest.approx(once)


def test_the_machines_that_come_with_flexgnn_say_where_their_figures_are_from() -> None:
    assert len(machine_names()) == 4
    for name in machine_names():
        profile = load_machine(name)
        assert {"compute", "memory", "storage", "efficiency"} <= profile.sources.keys()
        assert profile.find_rates("arrow", {}) is not None


def test_a_graph_without_edges_has_a_reach() -> None:
    reach = reach_of(np.zeros((2, distance_classes()), dtype=np.int64), 10, 0)
    assert np.all(np.isfinite(RATES.edge_seconds(8, reach)))


def test_each_further_pass_over_a_halo_takes_time(tmp_path: Path) -> None:
    problem = small_problem(tmp_path, 2**20)
    for blocks in problem.choices[1:]:
        workload = problem.workload(blocks)
        seconds = [pass_seconds(RATES, workload, pull) for pull in workload.published.values()]
        for of_pull in seconds:
            assert of_pull.shape == (blocks.count,)
            assert (of_pull > RATES.single("step")).all()
        # What is wider, and blocks with more rows, take longer.
        widths = [workload.fields[name].width or 1 for name in workload.published]
        assert seconds[int(np.argmax(widths))].sum() >= seconds[int(np.argmin(widths))].sum()
        assert seconds[0][0] >= seconds[0][-1]
