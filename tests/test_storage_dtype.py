"""Values and gradients stored as bfloat16: the same bits wherever they are, close to float32, in half the bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch_geometric.nn import GCN, GIN, GraphSAGE

from flexgnn import GraphStore, Trainer
from flexgnn.core.errors import ConfigError
from flexgnn.core.plan.decisions import Decisions
from flexgnn.core.plan.names import EVALUATION
from flexgnn.core.plan.plan import Plan
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.planner import Planner
from flexgnn.core.program.bfloat16 import BITS_DTYPE
from flexgnn.core.program.rewrites import all_but
from flexgnn.datasets import generate
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import small_graph, store_of, train_with_flexgnn, train_with_pyg
from tests.test_exactness import Shared
from tests.test_halo_access import Fixed, assert_same_bits, spilling
from tests.test_slices import Slicing

MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "gcn": lambda: GCN(5, 40, 3, 3, dropout=0.3),
    "max": lambda: GraphSAGE(5, 40, 3, 3, aggr="max"),
    "jumping": lambda: GCN(5, 24, 3, 3, jk="cat"),
    "shared": lambda: Shared(5, 24, 3),
}


class Recomputing(Planner):
    """What :class:`Fixed` decides, with all values computed again in backward that can be."""

    name = "recomputing"

    def decide(self, problem: PlanningProblem) -> Decisions:
        return replace(Fixed("packed", "resident").decide(problem), recomputed=problem.recomputable()[-1])


@pytest.mark.parametrize("name", MODELS)
def test_bits_do_not_depend_on_where_things_are(name: str, tmp_path: Path) -> None:
    directed = name in ("gcn", "max")
    data = small_graph(num_nodes=59, num_edges=240, directed=directed, weighted=name in ("gcn", "shared"))
    store = store_of(data, tmp_path / "graph", chunk_rows=12)
    torch.manual_seed(0)
    model = MODELS[name]()
    expected = train_with_flexgnn(model, store, 2, storage_dtype="bfloat16")
    assert expected.losses != train_with_flexgnn(model, store, 2).losses
    for planner in (
        Fixed("packed"),
        Fixed("packed", lookahead=1, hub_blocks=4),
        Fixed("blocks", "packed"),
        Recomputing(),
        Slicing(4, "loaded"),
        Slicing(2, "held", "loaded", "resident", "ahead", lookahead=1, recompute=True),
    ):
        outcome, trainer = spilling(model, store, planner, "bfloat16")
        assert_same_bits(outcome, expected)
        for record in trainer.history:
            moved = sum(size for channel, size in record.moved_bytes.items() if "arrow" in channel)
            assert moved == sum(size for channel, size in trainer.plan.traffic_bytes.items() if "arrow" in channel)


def test_bits_do_not_depend_on_blocks_rewrite_or_backend(tmp_path: Path) -> None:
    backend = "zarr"
    store = store_of(small_graph(num_nodes=60, num_edges=300), tmp_path / "graph", chunk_rows=6)
    torch.manual_seed(0)
    model = GraphSAGE(5, 8, 3, 3, dropout=0.3)
    expected = train_with_flexgnn(model, store, 3, storage_dtype="bfloat16")
    for num_blocks, rewrites in ((1, all_but(["fuse"])), (3, all_but([])), (10, all_but(["fuse"]))):
        planner = GreedyPlanner(num_blocks)
        plans: list[Plan] = []
        roomy = Trainer(model, store, torch.optim.Adam(model.parameters()), planner=planner, storage_dtype="bfloat16")
        budget = roomy.plan.projected_peak_bytes
        outcome = train_with_flexgnn(
            model,
            store,
            3,
            device_memory=budget if num_blocks == 1 else int(0.7 * budget),
            planner=planner,
            rewrites=rewrites,
            storage_dtype="bfloat16",
            ssd_backend=backend,
            inspect=lambda trainer: plans.append(trainer.plan),  # noqa: B023
        )
        assert_same_bits(outcome, expected)
        assert (plans[0].traffic_bytes.get(f"{backend} write", 0) > 0) == (num_blocks > 1)


SMOOTH: dict[str, Callable[[], torch.nn.Module]] = {
    "gcn": lambda: GCN(5, 40, 3, 3, act="elu"),
    "mean": lambda: GraphSAGE(5, 40, 3, 3, act="elu"),
    "gin": lambda: GIN(5, 40, 3, 3, act="elu"),
    "jumping": lambda: GCN(5, 24, 3, 3, act="elu", jk="cat"),
    "shared": lambda: Shared(5, 24, 3),
}
"""With a kink, as in ReLU, a value that is rounded across it changes a gradient by more than it was rounded."""


@pytest.mark.parametrize("name", SMOOTH)
def test_losses_and_gradients_are_those_of_pyg_to_a_few_roundings(name: str, tmp_path: Path) -> None:
    """A rounding is at most 2^-9 of a value: gradients of three layers are within three of them."""
    data = small_graph(num_nodes=200, num_edges=1000, directed=False, weighted=name == "shared")
    store = store_of(data, tmp_path / "graph", chunk_rows=32)
    torch.manual_seed(0)
    model = SMOOTH[name]()
    expected = train_with_pyg(model, data, 5, weighted=name == "shared")
    ours = train_with_flexgnn(model, store, 5, storage_dtype="bfloat16")
    assert ours.losses[0] == pytest.approx(expected.losses[0], rel=1e-3)
    assert ours.losses == pytest.approx(expected.losses, rel=1e-2)
    for parameter, gradient in expected.gradients.items():
        error = (ours.gradients[parameter] - gradient).norm() / gradient.norm()
        assert error < 3 * 2**-9, parameter


def test_accuracy_is_that_of_float32(tmp_path: Path) -> None:
    store = generate(tmp_path / "graph", num_nodes=3000, num_edges=30_000, num_features=16, num_classes=8)
    accuracies = {}
    for dtype in ("float32", "bfloat16"):
        torch.manual_seed(0)
        model = GraphSAGE(16, 32, 2, store.info.num_classes)
        trainer = Trainer(model, store, torch.optim.Adam(model.parameters(), lr=0.01), storage_dtype=dtype)
        accuracies[dtype] = trainer.fit(40)[-1].test_accuracy or 0.0
    assert accuracies["float32"] > 0.4
    assert accuracies["bfloat16"] == pytest.approx(accuracies["float32"], abs=0.02)


def test_accuracies_are_those_of_the_predictions(tmp_path: Path) -> None:
    data = small_graph(num_nodes=200, num_edges=1000)
    store = store_of(data, tmp_path / "graph", chunk_rows=32)
    model = GCN(5, 40, 3, 3)
    trainer = Trainer(model, store, torch.optim.SGD(model.parameters(), lr=0.0), storage_dtype="bfloat16")
    (record,) = trainer.fit(1)
    logits = trainer.predict()
    right = logits.argmax(dim=1) == data.y
    assert record.test_accuracy == pytest.approx(float(right[data.test_mask].float().mean()))
    loss = torch.nn.functional.cross_entropy(logits[data.train_mask], data.y[data.train_mask])
    assert record.loss == pytest.approx(float(loss), rel=1e-6)


def plans_of(store: GraphStore, model: torch.nn.Module, planner: Planner) -> dict[str, Plan]:
    optimizer = torch.optim.Adam(model.parameters())
    return {
        dtype: Trainer(model, store, optimizer, planner=planner, storage_dtype=dtype).plan
        for dtype in ("float32", "bfloat16")
    }


@pytest.mark.parametrize("model_class", [GCN, GraphSAGE, GIN])
def test_memory_and_traffic_of_what_is_rounded_halve(model_class: type[torch.nn.Module], tmp_path: Path) -> None:
    store = store_of(small_graph(num_nodes=300, num_edges=1500), tmp_path / "graph", chunk_rows=32)
    plans = plans_of(store, model_class(5, 64, 3, 3), Fixed("packed"))
    halos = {
        dtype: sum(slot.size_bytes for slot in plan.slots if slot.role in ("halo", "pack"))
        for dtype, plan in plans.items()
    }
    assert halos["bfloat16"] == halos["float32"] / 2
    moved = {dtype: sum(plan.traffic_bytes.values()) for dtype, plan in plans.items()}
    assert moved["bfloat16"] < 0.6 * moved["float32"]
    in_memory = plans_of(store, model_class(5, 64, 3, 3), GreedyPlanner(1))
    # Hidden values that are kept stay float32, since those that are computed again are not rounded.
    assert in_memory["bfloat16"].projected_peak_bytes < 0.85 * in_memory["float32"].projected_peak_bytes


def test_inputs_and_what_is_compared_stay_float32(tmp_path: Path) -> None:
    store = store_of(small_graph(), tmp_path / "graph")

    def rounded(model: torch.nn.Module, dtype: str) -> set[str]:
        plan = plans_of(store, model, GreedyPlanner(2))[dtype]
        return {name for name, field in plan.workload.fields.items() if field.dtype == BITS_DTYPE}

    assert not rounded(GCN(5, 8, 3, 3, dropout=0.3), "float32")
    names = rounded(GCN(5, 8, 3, 3, dropout=0.3), "bfloat16")
    assert any(name.startswith("grad(") for name in names)
    assert any(name.startswith(EVALUATION) for name in names)
    assert not any(name.startswith(("x", "in/", "out/", "labels", "split")) for name in names)
    assert not rounded(GraphSAGE(5, 8, 3, 3, aggr="max", root_weight=False), "bfloat16")


@pytest.mark.parametrize("name", ["float16", "bf16", ""])
def test_other_dtypes_are_refused(name: str, tmp_path: Path) -> None:
    store, model = store_of(small_graph(), tmp_path / "graph"), GCN(5, 8, 2, 3)
    with pytest.raises(ConfigError, match=f"storage dtype '{name}' is unknown; float32 and bfloat16 are accepted"):
        Trainer(model, store, torch.optim.Adam(model.parameters()), storage_dtype=name)


def test_a_plan_says_for_which_dtype_it_is(tmp_path: Path) -> None:
    store = store_of(small_graph(), tmp_path / "graph")
    plan = plans_of(store, GCN(5, 8, 2, 3), GreedyPlanner(2))["bfloat16"]
    plan.save(tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text())["storage_dtype"] == "bfloat16"
