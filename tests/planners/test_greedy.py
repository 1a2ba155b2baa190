from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch_geometric.nn import GCN, GIN, GraphSAGE

from flexgnn.core.errors import BudgetError
from flexgnn.core.plan.placement import StorageTier
from flexgnn.core.plan.plan import freeze
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.program.lower import lower
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import small_graph, store_of


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], phases=[Phase.generate])
@given(
    model_class=st.sampled_from([GCN, GIN, GraphSAGE]),
    layers=st.integers(1, 3),
    num_nodes=st.integers(1, 60),
    chunk_rows=st.integers(1, 20),
    budget_bytes=st.integers(1, 200_000),
    dropout=st.sampled_from([0.0, 0.5]),
)
def test_every_plan_is_feasible_or_names_a_budget_that_is(
    model_class: type, layers: int, num_nodes: int, chunk_rows: int, budget_bytes: int, dropout: float
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        data = small_graph(num_nodes=num_nodes, num_edges=3 * num_nodes)
        problem = PlanningProblem(
            program=lower(model_class(5, 8, layers, 3, dropout=dropout), num_features=5, weighted=False),
            store=store_of(data, Path(directory) / "graph", chunk_rows),
            budget_bytes=budget_bytes,
            compute_tier="ram",
            storage_tiers=(StorageTier(name="arrow"),),
            threads=2,
            training=True,
            evaluation=dropout > 0,
        )
        planner = GreedyPlanner()
        try:
            decisions = planner.decide(problem)
        except BudgetError as error:
            smallest = int(str(error).split("smallest that works is ")[1].split()[0])
            assert smallest > budget_bytes
            problem = problem.with_budget(smallest)
            decisions = planner.decide(problem)
        assert freeze(problem, decisions, "greedy").projected_peak_bytes <= problem.budget_bytes


@pytest.mark.parametrize(("asked", "found"), [(1, 1), (2, 2), (5, 5), (99, 10)])
def test_the_number_of_blocks_can_be_fixed(asked: int, found: int, tmp_path: Path) -> None:
    store = store_of(small_graph(), tmp_path / "graph", chunk_rows=4)
    problem = PlanningProblem(
        program=lower(GCN(5, 8, 2, 3), num_features=5, weighted=False),
        store=store,
        budget_bytes=2**40,
        compute_tier="ram",
        storage_tiers=(StorageTier(name="arrow"),),
        threads=2,
        training=True,
        evaluation=False,
    )
    plan = freeze(problem, GreedyPlanner(asked).decide(problem), "greedy")
    assert plan.num_blocks == found
