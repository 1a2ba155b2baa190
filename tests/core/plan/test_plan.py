from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch_geometric.nn import GCN, GraphSAGE

from flexgnn import GraphStore
from flexgnn.core.errors import BudgetError, PlanError
from flexgnn.core.plan.placement import StorageTier
from flexgnn.core.plan.plan import Plan, freeze
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.saved import SavedPlan
from flexgnn.core.plan.slots import live_bytes
from flexgnn.core.program.lower import lower
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import small_graph, store_of


@pytest.fixture
def store(tmp_path: Path) -> GraphStore:
    return store_of(small_graph(num_nodes=60, num_edges=300), tmp_path / "graph", chunk_rows=16)


def problem_of(store: GraphStore, model: torch.nn.Module, budget_bytes: int = 2**40) -> PlanningProblem:
    return PlanningProblem(
        program=lower(model, num_features=5),
        store=store,
        budget_bytes=budget_bytes,
        compute_tier="ram",
        storage_tiers=(StorageTier(name="arrow"),),
        threads=2,
        training=True,
        evaluation=False,
    )


def plan_of(problem: PlanningProblem, num_blocks: int | None = None) -> Plan:
    return freeze(problem, GreedyPlanner(num_blocks).decide(problem), "greedy")


def smallest_plan(store: GraphStore, model: torch.nn.Module) -> Plan:
    problem = problem_of(store, model, 1)
    with pytest.raises(BudgetError) as refusal:
        plan_of(problem, 4)
    budget = int(str(refusal.value).split("smallest that works is ")[1].split()[0])
    return plan_of(problem.with_budget(budget), 4)


def test_a_saved_plan_freezes_to_the_same_plan(store: GraphStore, tmp_path: Path) -> None:
    model = GraphSAGE(5, 8, 3, 3)
    plan = smallest_plan(store, model)
    plan.save(tmp_path / "plan.json")
    problem = problem_of(store, model, plan.budget_bytes)
    again = freeze(problem, SavedPlan.load(tmp_path / "plan.json").decisions_for(problem), "greedy")
    assert (again.slots, again.arena.offsets.tolist()) == (plan.slots, plan.arena.offsets.tolist())
    assert again.summary() == plan.summary()


def test_hubs_are_saved_with_the_plan(store: GraphStore, tmp_path: Path) -> None:
    problem = problem_of(store, GCN(5, 8, 2, 3))
    decisions = GreedyPlanner(4).decide(problem)
    packed = replace(decisions, access=dict.fromkeys(decisions.access, "packed"), hub_blocks=2)
    plan = freeze(problem, packed, "greedy")
    assert any(slot.role == "hubs" for slot in plan.slots)
    plan.save(tmp_path / "plan.json")
    assert SavedPlan.load(tmp_path / "plan.json").decisions_for(problem) == packed


@pytest.mark.parametrize("hub_blocks", [-2, 1, 3, "2"])
def test_hubs_are_nodes_of_some_power_of_two_blocks(hub_blocks: int, store: GraphStore) -> None:
    problem = problem_of(store, GCN(5, 8, 2, 3))
    decisions = replace(GreedyPlanner(1).decide(problem), hub_blocks=hub_blocks)
    with pytest.raises(PlanError, match=f"that {hub_blocks} blocks pull from; 0 and powers of two are accepted"):
        freeze(problem, decisions, "greedy")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"flexgnn_plan": 2}, "format 2"),
        ({"graph": "other"}, "another graph"),
        ({"program": "other"}, "another model"),
        ({"storage_dtype": "bfloat16"}, "made for --storage-dtype bfloat16, not float32"),
        ({"decisions": {}}, "is not a plan"),
    ],
)
def test_plans_of_other_graphs_and_versions_are_refused(
    change: dict[str, object], sentence: str, store: GraphStore, tmp_path: Path
) -> None:
    problem = problem_of(store, GCN(5, 8, 2, 3))
    path = tmp_path / "plan.json"
    plan_of(problem).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(PlanError, match=sentence):
        SavedPlan.load(path).decisions_for(problem)


def test_a_plan_over_budget_names_its_worst_step(store: GraphStore) -> None:
    problem = problem_of(store, GCN(5, 8, 2, 3))
    decisions = GreedyPlanner(1).decide(problem)
    with pytest.raises(BudgetError, match=r"of stage \d of block 0; the budget is 1000 B"):
        freeze(problem.with_budget(1000), decisions, "greedy")


def test_decisions_must_cover_every_published_field(store: GraphStore) -> None:
    problem = problem_of(store, GCN(5, 8, 2, 3))
    decisions = GreedyPlanner(1).decide(problem)
    decisions.access.popitem()
    with pytest.raises(PlanError, match="does not say how"):
        freeze(problem, decisions, "greedy")


@pytest.mark.parametrize("model_class", [GCN, GraphSAGE])
def test_what_is_read_was_written_before(model_class: type[torch.nn.Module], store: GraphStore) -> None:
    """No load begins before the step that makes its tensor has ended, its write behind it included."""
    plan = smallest_plan(store, model_class(5, 8, 3, 3))
    producers = plan.workload.producers()
    ahead = plan.decisions.lookahead
    loads = [s for s in plan.slots if s.loaded and s.role == "own" and s.field in producers]
    assert loads
    for slot in loads:
        made = plan.workload.step_index(producers[slot.field], slot.block)
        assert made + ahead < slot.first_step


def test_live_bytes_stay_below_the_arena(store: GraphStore) -> None:
    plan = smallest_plan(store, GraphSAGE(5, 8, 3, 3))
    assert live_bytes(plan.arena.groups, len(plan.workload.steps)).max() <= plan.arena.size_bytes
    assert plan.arena.size_bytes + plan.arena.workspace_bytes <= plan.budget_bytes


def test_more_memory_never_takes_longer(store: GraphStore) -> None:
    model = GCN(5, 8, 3, 3)
    smallest = smallest_plan(store, model)
    problem = problem_of(store, model)
    seconds = []
    for factor in (1.0, 1.2, 1.5, 2.5):
        plan = plan_of(problem.with_budget(int(factor * smallest.budget_bytes)), 4)
        seconds.append(plan.overlapped_seconds)
    assert seconds == sorted(seconds, reverse=True)
    assert sum(smallest.traffic_bytes.values()) > 0
    assert sum(plan_of(problem).traffic_bytes.values()) == 0
    plan = plan_of(problem)
    assert plan.projected_epoch_seconds == pytest.approx(sum(seconds.compute for seconds in plan.phase_seconds))
