"""What goes to which tier, over a plan with several blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch_geometric.nn import GCN

from flexgnn import GraphStore
from flexgnn.core.errors import BudgetError, ConfigError, PlanError
from flexgnn.core.plan.cost import TierRates
from flexgnn.core.plan.placement import StorageTier, check_wanted, pack_part, stored_parts, tensor_class
from flexgnn.core.plan.placing import place
from flexgnn.core.plan.plan import Plan, freeze
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.setup_memory import setup_lists_bytes
from flexgnn.core.plan.sketch import Sketch
from flexgnn.core.plan.ways import Way, spilling
from flexgnn.core.program.lower import lower
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import small_graph, store_of

FAST = TierRates(read_bytes_per_second=5e9, write_bytes_per_second=5e9)
SLOW = TierRates(read_bytes_per_second=1e8, write_bytes_per_second=1e8, call_seconds=1e-2)


@pytest.fixture
def store(tmp_path: Path) -> GraphStore:
    return store_of(small_graph(num_nodes=70, num_edges=400), tmp_path / "graph")


def problem_over(
    store: GraphStore, tiers: tuple[StorageTier, ...], budget_bytes: int, wanted: dict[str, str] | None = None
) -> PlanningProblem:
    return PlanningProblem(
        program=lower(GCN(5, 8, 3, 3), num_features=5),
        store=store,
        budget_bytes=budget_bytes,
        compute_tier="ram",
        storage_tiers=tiers,
        threads=2,
        training=True,
        evaluation=False,
        wanted=wanted or {},
    )


def plan_over(store: GraphStore, *tiers: StorageTier, wanted: dict[str, str] | None = None) -> Plan:
    """A plan over five blocks that keeps nothing."""
    problem = problem_over(store, tiers, 2**40, wanted)
    recomputed = problem.recomputable()[0]
    workload = problem.workload(problem.blocks(-(-len(problem.choices[-1].row_counts) // 5)), recomputed)
    sketch = Sketch(problem, workload, spilling(workload, 1, recomputed, Way("packed")))
    return freeze(problem, sketch.decided(sketch.nothing), "spilling")


def classes(plan: Plan) -> dict[str, set[str]]:
    """The tiers of each class of tensors."""
    found: dict[str, set[str]] = {}
    for stored in stored_parts(plan.workload, plan.arena.groups):
        kind = tensor_class(plan.workload, stored.part)
        found.setdefault(kind, set()).add(plan.tier_of(stored.part, stored.block))
    return found


def test_one_tier_needs_no_placement(store: GraphStore) -> None:
    plan = plan_over(store, StorageTier(name="arrow"))
    assert plan.decisions.placed == {}
    assert plan.stored_bytes.keys() == {"arrow"}


def test_everything_is_on_one_tier_or_another(store: GraphStore) -> None:
    alone = plan_over(store, StorageTier(name="a"))
    plan = plan_over(store, StorageTier(name="a"), StorageTier(name="b"))
    assert sum(plan.stored_bytes.values()) == sum(alone.stored_bytes.values())
    for direction in ("read", "write"):
        sizes = [plan.traffic_bytes[f"{name} {direction}"] for name in "ab"]
        assert sum(sizes) == alone.traffic_bytes[f"a {direction}"]
    moved = [plan.traffic_bytes[f"{name} read"] + plan.traffic_bytes[f"{name} write"] for name in "ab"]
    assert min(moved) > 0.3 * sum(moved), "equal tiers share the work"


def test_the_fast_tier_is_filled_first_and_never_over_its_capacity(store: GraphStore) -> None:
    whole = sum(plan_over(store, StorageTier(name="a")).stored_bytes.values())
    for share in (0.0, 0.3, 0.6, 1.0):
        capacity = int(share * whole)
        fast = StorageTier(name="fast", rates=FAST, capacity_bytes=capacity)
        plan = plan_over(store, StorageTier(name="slow", rates=SLOW), fast)
        held = plan.stored_bytes.get("fast", 0)
        assert held <= capacity
        assert held >= 0.6 * capacity
        assert held + plan.stored_bytes.get("slow", 0) == whole


def test_classes_go_where_they_are_wanted(store: GraphStore) -> None:
    tiers = (StorageTier(name="fast", rates=FAST), StorageTier(name="bulk", rates=SLOW))
    wanted = {"halos": "bulk", "topology": "fast", "activations": "bulk", "features": "bulk", "gradients": "fast"}
    found = classes(plan_over(store, *tiers, wanted=wanted))
    assert {"halos", "topology", "activations"} <= found.keys()
    assert all(places == {wanted[kind]} for kind, places in found.items())


def test_too_little_room_says_how_much_is_spilled(store: GraphStore) -> None:
    with pytest.raises(BudgetError, match=r"The plan spills .* 100 B on a, 50 B on b: give more --device-memory"):
        plan_over(store, StorageTier(name="a", capacity_bytes=100), StorageTier(name="b", capacity_bytes=50))


def test_what_is_wanted_on_a_tier_comes_before_what_could_be_anywhere(store: GraphStore) -> None:
    plan = plan_over(store, StorageTier(name="a"))
    parts = stored_parts(plan.workload, plan.arena.groups)
    halos = [part for part in parts if tensor_class(plan.workload, part.part) == "halos"]
    room = sum(part.size_bytes for part in halos)
    tiers = (StorageTier(name="bulk", rates=SLOW), StorageTier(name="fast", rates=FAST, capacity_bytes=room))
    placed = place(plan.workload, parts, tiers, {"halos": "fast"})
    assert room > 0
    assert all(placed[part.part][part.block] == "fast" for part in halos)
    others = [part for part in parts if part not in halos and part.size_bytes]
    assert all(placed[part.part][part.block] == "bulk" for part in others)


def test_a_class_that_does_not_fit_where_it_is_wanted_is_named(store: GraphStore) -> None:
    fast, bulk = StorageTier(name="fast", capacity_bytes=1000), StorageTier(name="bulk")
    problem = problem_over(store, (fast, bulk), smallest_budget(problem_over(store, (bulk,), 1)), {"topology": "fast"})
    with pytest.raises(BudgetError, match=r"spills .* of topology, and there is room for 1000 B on fast") as refusal:
        GreedyPlanner().decide(problem)
    assert "place them elsewhere" in str(refusal.value)
    larger = problem.with_budget(refusal.value.smallest_bytes)
    plan = freeze(larger, GreedyPlanner().decide(larger), "greedy")
    assert plan.stored_bytes.get("fast", 0) <= 1000


def smallest_budget(problem: PlanningProblem) -> int:
    with pytest.raises(BudgetError) as refusal:
        GreedyPlanner().decide(problem)
    return refusal.value.smallest_bytes


def test_sizes_of_parts_are_what_the_traffic_writes_and_the_setup_stages(store: GraphStore) -> None:
    plan = plan_over(store, StorageTier(name="a"))
    parts = stored_parts(plan.workload, plan.arena.groups)
    assert sum(part.size_bytes for part in parts if part.written) == plan.traffic_bytes["a write"]
    assert sum(part.read_bytes for part in parts) == plan.traffic_bytes["a read"]
    staged = {(part.part, part.block) for part in parts if not part.written}
    packs = {(pack_part(name), block) for name in plan.staged_packs for block in range(plan.num_blocks)}
    assert staged == set(plan.staged) | packs


def test_a_plan_for_other_tiers_is_refused(store: GraphStore) -> None:
    tiers = (StorageTier(name="a"), StorageTier(name="b", capacity_bytes=1))
    plan = plan_over(store, StorageTier(name="a"))
    problem = problem_over(store, tiers, plan.budget_bytes)
    part = next(p.part for p in stored_parts(plan.workload, plan.arena.groups) if p.size_bytes)
    for name, error in (("c", PlanError), ("b", BudgetError)):
        placed = {part: (name,) * plan.num_blocks}
        with pytest.raises(error):
            freeze(problem, replace(plan.decisions, placed=placed), "greedy")


def test_wishes_are_checked() -> None:
    assert check_wanted({"halos": "a"}, ["a"]) == {"halos": "a"}
    with pytest.raises(ConfigError, match="there are: activations, gradients, halos, features, topology"):
        check_wanted({"halo": "a"}, ["a"])
    with pytest.raises(ConfigError, match="the storage tiers are: a, b"):
        check_wanted({"halos": "c"}, ["a", "b"])


def test_a_part_that_fits_no_tier_fails_even_when_nothing_is_wanted(store: GraphStore) -> None:
    plan = plan_over(store, StorageTier(name="a"))
    parts = stored_parts(plan.workload, plan.arena.groups)
    with pytest.raises(BudgetError):
        place(plan.workload, parts, [StorageTier(name="a", capacity_bytes=0)], {})


def test_room_of_what_is_read_no_more_is_given_to_others(store: GraphStore) -> None:
    alone = plan_over(store, StorageTier(name="a"))
    parts = stored_parts(alone.workload, alone.arena.groups)
    total = sum(part.size_bytes for part in parts)
    assert alone.stored_bytes["a"] == total
    steps = len(alone.workload.steps)
    at = [sum(p.size_bytes for p in parts if p.first_step <= step <= p.last_step) for step in range(steps)]
    assert max(at) < total
    enough = max(at) + setup_lists_bytes(alone.workload, alone.arena.groups)
    reusing = plan_over(store, StorageTier(name="a", in_host_memory=True, capacity_bytes=enough))
    assert reusing.stored_bytes["a"] == max(at)
    removed = {(part.part, part.block, step) for step, found in reusing.forgotten.items() for part in found}
    assert removed == {(p.part, p.block, p.last_step) for p in parts if p.written}
    with pytest.raises(BudgetError, match="there is room for"):
        plan_over(store, StorageTier(name="a", in_host_memory=True, capacity_bytes=enough - 1))
    half = enough - max(at) // 2
    tiers = StorageTier(name="a", in_host_memory=True, capacity_bytes=half, rates=FAST), StorageTier(name="b")
    both = plan_over(store, *tiers)
    assert 0 < both.stored_bytes["a"] <= max(at) // 2
    assert sum(both.stored_bytes.values()) < total
