"""Norms whose statistics are over all nodes give what full-batch PyG gives, whatever the blocks."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import BatchNorm1d, Linear, ReLU
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data
from torch_geometric.nn import (
    GCN,
    GIN,
    BatchNorm,
    GCNConv,
    GraphNorm,
    GraphSAGE,
    InstanceNorm,
    LayerNorm,
    MeanSubtractionNorm,
    PairNorm,
    SAGEConv,
    Sequential,
)

from flexgnn import GraphStore, Trainer
from flexgnn.core.errors import GraphError, PlanError
from flexgnn.core.planner import Planner
from flexgnn.core.program.rewrites import ALL_REWRITES, all_but
from flexgnn.core.runtime.events import DamageFound, EpochRecord
from flexgnn.planners.greedy import GreedyPlanner
from tests.core.runtime.test_storage import BitFlipper, Spilling
from tests.graphs import Outcome, relative_error, small_graph, smallest_budget, store_of
from tests.machine import threads_of_torch
from tests.test_halo_access import Fixed, assert_same_bits
from tests.test_slices import Slicing
from tests.test_storage_dtype import Recomputing


def between(*norms: torch.nn.Module) -> torch.nn.Module:
    """``norms`` of 8 columns after the first of two layers."""
    return Sequential(
        "x, edge_index",
        [(SAGEConv(5, 8), "x, edge_index -> x"), *norms, ReLU(), (SAGEConv(8, 3), "x, edge_index -> x")],
    )


class Shared(torch.nn.Module):
    """One norm used twice, and rows that go around it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = GCNConv(5, 8), GCNConv(8, 8), Linear(8, 3)
        self.norm = BatchNorm(8)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.norm(self.first(x, edge_index)).relu()
        return self.last(self.norm(self.second(h, edge_index)) + h)


TRACKED = {"affine": True, "track_running_stats": True}
MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "gcn-batch": lambda: GCN(5, 8, 3, 3, norm="batch_norm"),
    "gin-batch": lambda: GIN(5, 8, 3, 3, norm="batch_norm"),
    "sage-max-batch": lambda: GraphSAGE(5, 8, 3, 3, aggr="max", norm="batch_norm", act_first=True),
    "average": lambda: GCN(5, 8, 2, 3, norm="batch_norm", norm_kwargs={"momentum": None}),
    "untracked": lambda: GCN(5, 8, 2, 3, norm=BatchNorm1d(8, affine=False, track_running_stats=False)),
    "jk": lambda: GCN(5, 8, 3, 3, jk="cat", norm="batch_norm"),
    "graph": lambda: GraphSAGE(5, 8, 3, 3, norm="graph_norm"),
    "instance": lambda: GCN(5, 8, 3, 3, norm="instance_norm"),
    "instance-tracked": lambda: GCN(5, 8, 3, 3, norm="instance_norm", norm_kwargs=TRACKED),
    "layer": lambda: GIN(5, 8, 3, 3, norm="layer_norm"),
    "pair": lambda: GCN(5, 8, 3, 3, norm="pair_norm"),
    "pair-individually": lambda: between(PairNorm(2.0, scale_individually=True)),
    "mean": lambda: between(MeanSubtractionNorm()),
    "two": lambda: between(GraphNorm(8), BatchNorm1d(8)),
    "layer-without-affine": lambda: between(LayerNorm(8, affine=False)),
    "shared": Shared,
    "features": lambda: Sequential(
        "x, edge_index",
        [(BatchNorm(5), "x -> x"), (GCNConv(5, 8), "x, edge_index -> x"), ReLU(), Linear(8, 3)],
    ),
    "aggregated-features": lambda: Sequential(
        "x, edge_index",
        [(SAGEConv(5, 5, root_weight=False, bias=False), "x, edge_index -> x"), InstanceNorm(5), Linear(5, 3)],
    ),
    "last": lambda: Sequential(
        "x, edge_index",
        [
            (GCNConv(5, 8), "x, edge_index -> x"),
            ReLU(),
            (GCNConv(8, 3, bias=False), "x, edge_index -> x"),
            (BatchNorm(3), "x -> x"),
        ],
    ),
}


def trained_by_pyg(model: torch.nn.Module, data: Data, epochs: int) -> tuple[list[float], list[float], Tensor]:
    """Losses and validation accuracies by epoch, and the logits at the end in evaluation.

    SGD: Adam would make much of gradients that are zero but for rounding, as those of biases before a norm.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    apart = any(name.endswith("running_mean") for name in model.state_dict())
    losses, accuracies = [], []
    for _ in range(epochs):
        model.train()
        optimizer.zero_grad()
        trained = model(data.x, data.edge_index)
        loss = cross_entropy(trained[data.train_mask], data.y[data.train_mask])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        model.eval()
        with torch.no_grad():
            logits = model(data.x, data.edge_index)
        right = (logits if apart else trained).argmax(1) == data.y
        accuracies.append(float(right[data.val_mask].float().mean()))
    return losses, accuracies, logits


def trainer_of(model: torch.nn.Module, store: GraphStore, **more: object) -> Trainer:
    return Trainer(model, store, torch.optim.SGD(model.parameters(), lr=0.05), **more)  # type: ignore[arg-type]


def spilling(model: torch.nn.Module, store: GraphStore, blocks: int, extra: float = 0.0) -> dict[str, object]:
    """Settings under which a run has so many blocks in the least memory, or ``extra`` times more."""
    planner: Planner = GreedyPlanner(blocks)
    return {"planner": planner, "device_memory": int(smallest_budget(model, store, planner) * (1 + extra))}


def outcome_of(
    model: torch.nn.Module,
    store: GraphStore,
    epochs: int = 2,
    inspect: Callable[[Trainer], object] = lambda trainer: None,
    **more: object,
) -> Outcome:
    model = copy.deepcopy(model)
    trainer = trainer_of(model, store, **more)
    inspect(trainer)
    losses = [record.loss for record in trainer.fit(epochs)]
    return Outcome(losses, {}, trainer.predict(), model.state_dict())


def at_a_kink(model: torch.nn.Module, data: Data) -> bool:
    """Whether a norm puts out 0 but for rounding, as of a column that is the same for all nodes.

    An activation that follows may have either derivative there.
    """
    probe, found = copy.deepcopy(model), list[Tensor]()
    for module in probe.modules():
        if "Norm" in type(module).__name__:
            module.register_forward_hook(lambda _, inputs, output: found.append(output.detach()))
    probe(data.x, data.edge_index)
    return any(bool((output.abs() < 1e-5).any()) for output in found)


def check_against_pyg(model: torch.nn.Module, data: Data, store: GraphStore, epochs: int, **more: object) -> Trainer:
    reference, ours = copy.deepcopy(model), copy.deepcopy(model)
    losses, accuracies, logits = trained_by_pyg(reference, data, epochs)
    trainer = trainer_of(ours, store, **more)
    records = trainer.fit(epochs)
    assert [record.loss for record in records] == pytest.approx(losses, rel=1e-4)
    assert [record.val_accuracy for record in records] == pytest.approx(accuracies)
    state, expected_state = ours.state_dict(), reference.state_dict()
    assert state.keys() == expected_state.keys()
    for name, tensor in state.items():
        assert torch.allclose(tensor, expected_state[name], rtol=1e-4, atol=2e-5), name
    assert relative_error(trainer.predict(), logits) < 1e-4
    return trainer


@pytest.mark.parametrize("directed", [pytest.param(False, id="undirected", marks=pytest.mark.slow), True])
@pytest.mark.parametrize("name", MODELS)
def test_five_epochs_agree_with_pyg_while_spilling(name: str, directed: bool, tmp_path: Path) -> None:
    data = small_graph(directed=directed)
    torch.manual_seed(0)
    model = MODELS[name]()
    store = store_of(data, tmp_path / "graph", chunk_rows=8)
    trainer = check_against_pyg(model, data, store, 5, **spilling(model, store, 5))
    assert trainer.plan.num_blocks == 5
    assert trainer.history[-1].moved_bytes["arrow write"] > 0
    check_against_pyg(model, data, store, 5)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)
@given(
    name=st.sampled_from(sorted(MODELS)),
    seed=st.integers(0, 10_000),
    num_nodes=st.integers(6, 30),
    num_edges=st.integers(1, 90),
    chunk_rows=st.integers(1, 9),
    num_blocks=st.integers(1, 9),
    directed=st.booleans(),
    extra=st.floats(0, 1),
)
def test_random_graphs_agree_with_pyg_under_any_budget(
    name: str,
    seed: int,
    num_nodes: int,
    num_edges: int,
    chunk_rows: int,
    num_blocks: int,
    directed: bool,
    extra: float,
) -> None:
    data = small_graph(seed, num_nodes=num_nodes, num_edges=num_edges, directed=directed)
    torch.manual_seed(seed)
    model = MODELS[name]()
    assume(not at_a_kink(model, data))
    with tempfile.TemporaryDirectory() as directory:
        store = store_of(data, Path(directory) / "graph", chunk_rows)
        check_against_pyg(model, data, store, 2, **spilling(model, store, num_blocks, extra))


DROPPING: dict[str, Callable[[], torch.nn.Module]] = {
    "gcn": lambda: GCN(5, 40, 3, 3, dropout=0.4, norm="batch_norm"),
    "sage-max": lambda: GraphSAGE(5, 40, 3, 3, dropout=0.4, aggr="max", norm="graph_norm"),
    "jk": lambda: GraphSAGE(5, 24, 3, 3, jk="cat", norm="layer_norm"),
    "features": lambda: Sequential(
        "x, edge_index",
        [
            (BatchNorm(5), "x -> x"),
            (SAGEConv(5, 40), "x, edge_index -> x"),
            (InstanceNorm(40), "x -> x"),
            (SAGEConv(40, 3), "x, edge_index -> x"),
        ],
    ),
}


@pytest.mark.parametrize("storage_dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", DROPPING)
def test_no_bit_depends_on_where_things_are(name: str, storage_dtype: str, tmp_path: Path) -> None:
    store = store_of(small_graph(num_nodes=59, num_edges=240), tmp_path / "graph", chunk_rows=12)
    torch.manual_seed(0)
    model = DROPPING[name]()
    expected = outcome_of(model, store, storage_dtype=storage_dtype)
    for planner in (
        GreedyPlanner(1),
        GreedyPlanner(3),
        Fixed("packed"),
        Fixed("packed", lookahead=1, hub_blocks=4),
        Fixed("blocks", "packed"),
        Recomputing(),
        Slicing(4, "loaded"),
        Slicing(2, "held", "loaded", "resident", "ahead", lookahead=1, recompute=True),
    ):
        plan = trainer_of(model, store, planner=planner, storage_dtype=storage_dtype).plan
        settled = {"planner": planner, "storage_dtype": storage_dtype, "device_memory": plan.projected_peak_bytes}
        assert_same_bits(outcome_of(model, store, **settled), expected)
    unfused = {"planner": Fixed("packed"), "storage_dtype": storage_dtype, "rewrites": all_but(["fuse"])}
    assert_same_bits(outcome_of(model, store, **unfused), expected)


@pytest.mark.parametrize("planner", ["ilp", "learned"])
def test_every_planner_plans_for_moments(planner: str, tmp_path: Path) -> None:
    store = store_of(small_graph(num_nodes=200, num_edges=900), tmp_path / "graph", chunk_rows=8)
    torch.manual_seed(0)
    model = GCN(5, 8, 3, 3, norm="batch_norm", dropout=0.2)
    expected = outcome_of(model, store)
    budget = trainer_of(model, store).plan.projected_peak_bytes // 2
    trainers: list[Trainer] = []
    outcome = outcome_of(model, store, planner=planner, device_memory=budget, inspect=trainers.append)
    assert sum(trainers[0].plan.stored_bytes.values()) > 0
    assert_same_bits(outcome, expected)


@pytest.mark.parametrize("name", ["gcn-batch", "features", "aggregated-features", "graph"])
@pytest.mark.parametrize("rewrite", ALL_REWRITES)
def test_results_agree_with_pyg_without_a_rewrite(name: str, rewrite: str, tmp_path: Path) -> None:
    data = small_graph()
    torch.manual_seed(0)
    model = MODELS[name]()
    store = store_of(data, tmp_path / "graph", chunk_rows=8)
    check_against_pyg(model, data, store, 3, planner=GreedyPlanner(5), rewrites=all_but([rewrite]))


def test_the_number_of_threads_changes_no_bit(tmp_path: Path) -> None:
    store = store_of(small_graph(), tmp_path / "graph", chunk_rows=4)
    torch.manual_seed(0)
    model = GraphSAGE(5, 8, 3, 3, norm="batch_norm", dropout=0.2)
    outcomes = []
    for count in (1, 2, 4):
        with threads_of_torch(count):
            outcomes.append(outcome_of(model, store, 3))
    assert_same_bits(outcomes[1], outcomes[0])
    assert_same_bits(outcomes[2], outcomes[0])


def test_statistics_of_large_means_keep_their_digits(tmp_path: Path) -> None:
    data = small_graph(num_nodes=400, num_edges=900)
    data.x = data.x * 0.01 + 300
    torch.manual_seed(0)
    norm = BatchNorm1d(5, momentum=1.0)
    model = Sequential("x, edge_index", [(norm, "x -> x"), (GCNConv(5, 3), "x, edge_index -> x")])
    trainer_of(model, store_of(data, tmp_path / "graph", chunk_rows=16)).fit(1)
    exact = data.x.double()
    assert torch.allclose(norm.running_mean.double(), exact.mean(0), rtol=1e-6)  # type: ignore[union-attr]
    assert torch.allclose(norm.running_var.double(), exact.var(0), rtol=1e-6)  # type: ignore[union-attr]


def test_an_epoch_that_is_repeated_after_damage_updates_running_statistics_once(tmp_path: Path) -> None:
    store = store_of(small_graph(num_nodes=70, num_edges=400), tmp_path / "graph")
    torch.manual_seed(0)
    model = GCN(5, 8, 3, 3, norm="batch_norm")
    reference = outcome_of(model, store, 3)
    flipper = BitFlipper("packed", lambda event: isinstance(event, EpochRecord) and event.epoch == 1)
    outcome = outcome_of(model, store, 3, planner=Spilling(), verify=True, listeners=[flipper])
    assert_same_bits(outcome, reference)
    assert int(outcome.parameters["norms.0.module.num_batches_tracked"]) == 3
    assert sum(isinstance(event, DamageFound) for event in flipper.events) == 1


def test_a_saved_plan_is_followed_by_models_with_the_same_moments_alone(tmp_path: Path) -> None:
    store = store_of(small_graph(), tmp_path / "graph")
    path = tmp_path / "plan.json"
    trainer_of(GCN(5, 8, 3, 3, norm="batch_norm"), store).plan.save(path)
    trainer_of(GCN(5, 8, 3, 3, norm="batch_norm"), store, plan=path).fit(1)
    with pytest.raises(PlanError, match="another model"):
        trainer_of(GCN(5, 8, 3, 3, norm="graph_norm"), store, plan=path).plan  # noqa: B018


def test_a_graph_of_one_node_is_refused(tmp_path: Path) -> None:
    data = Data(
        x=torch.ones(1, 5), edge_index=torch.zeros(2, 1, dtype=torch.int64), y=torch.zeros(1, dtype=torch.int64)
    )
    data.train_mask = torch.ones(1, dtype=torch.bool)
    with pytest.raises(GraphError, match=r"norm over all nodes.*one node.*LayerNorm"):
        trainer_of(GCN(5, 8, 2, 3, norm="batch_norm"), store_of(data, tmp_path / "graph"))
