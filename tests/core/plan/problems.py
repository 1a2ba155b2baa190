"""Small planning problems over real graphs."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch_geometric.nn import GCN

from flexgnn.core.errors import BudgetError
from flexgnn.core.plan.placement import StorageTier
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.program.lower import lower
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import small_graph, store_of


def small_problem(path: Path, budget_bytes: int, *, layers: int = 3) -> PlanningProblem:
    """A GCN over 70 nodes in ten chunks."""
    return PlanningProblem(
        program=lower(GCN(5, 8, layers, 3), num_features=5),
        store=store_of(small_graph(num_nodes=70, num_edges=400), path / "graph"),
        budget_bytes=budget_bytes,
        compute_tier="ram",
        storage_tiers=(StorageTier(name="arrow"),),
        threads=2,
        training=True,
        evaluation=False,
    )


def tight_problem(path: Path, times: float) -> PlanningProblem:
    """With so many ``times`` the memory that it needs at least."""
    problem = small_problem(path, 1)
    with pytest.raises(BudgetError) as refusal:
        GreedyPlanner().decide(problem)
    return problem.with_budget(int(times * refusal.value.smallest_bytes))
