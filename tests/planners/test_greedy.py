from __future__ import annotations

from pathlib import Path

import pytest
from torch_geometric.nn import GCN

from flexgnn.core.plan.placement import StorageTier
from flexgnn.core.plan.plan import freeze
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.program.lower import lower
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import small_graph, store_of


@pytest.mark.parametrize(("asked", "found"), [(1, 1), (2, 2), (5, 5), (99, 10)])
def test_the_number_of_blocks_can_be_fixed(asked: int, found: int, tmp_path: Path) -> None:
    store = store_of(small_graph(), tmp_path / "graph", chunk_rows=4)
    problem = PlanningProblem(
        program=lower(GCN(5, 8, 2, 3), num_features=5),
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
