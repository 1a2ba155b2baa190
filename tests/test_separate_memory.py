"""Training in memory apart from the host's, over pinned RAM, over an SSD: on a stand-in that needs no GPU."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch_geometric.nn import GAT, GCN, GIN, GraphSAGE

from flexgnn import GraphStore, Trainer
from flexgnn.core.errors import BudgetError, ConfigError
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import Outcome, assert_close, small_graph, store_of, train_with_flexgnn, train_with_pyg
from tests.stand_in import StandInBackend, keep_stand_in_profile

MODELS = {
    "gcn": lambda: GCN(5, 8, num_layers=3, out_channels=3, dropout=0.5),
    "sage-max": lambda: GraphSAGE(5, 8, num_layers=2, out_channels=3, aggr="max"),
    "gin": lambda: GIN(5, 8, num_layers=2, out_channels=3, norm="batch_norm"),
    "gat": lambda: GAT(5, 8, num_layers=2, out_channels=3, heads=2, dropout=0.3),
}
EPOCHS = 3


@pytest.fixture(autouse=True)
def _stated_rates() -> None:
    keep_stand_in_profile()


@pytest.fixture
def store(tmp_path: Path) -> GraphStore:
    return store_of(small_graph(num_nodes=140, num_edges=900), tmp_path / "graph")


def trained(model: torch.nn.Module, store: GraphStore, **settings: object) -> tuple[Outcome, Trainer]:
    seen: list[Trainer] = []
    outcome = train_with_flexgnn(copy.deepcopy(model), store, EPOCHS, inspect=seen.append, **settings)  # type: ignore[arg-type]
    return outcome, seen[0]


def smallest(model: torch.nn.Module, store: GraphStore, num_blocks: int, host_memory: str) -> int:
    trainer = Trainer(
        copy.deepcopy(model),
        store,
        torch.optim.Adam(model.parameters()),
        device=StandInBackend(),
        device_memory=1,
        host_memory=host_memory,
        planner=GreedyPlanner(num_blocks),
    )
    with pytest.raises(BudgetError) as refusal:
        trainer.plan  # noqa: B018
    return refusal.value.smallest_bytes


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("storage_dtype", ["float32", "bfloat16"])
def test_three_tiers_give_the_bits_of_one(name: str, storage_dtype: str, store: GraphStore) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    settings = {"storage_dtype": storage_dtype}
    on_cpu, _ = trained(model, store, **settings)
    in_memory, alone = trained(model, store, device=StandInBackend(), **settings)
    assert in_memory.losses == on_cpu.losses
    assert set(alone.plan.stored_bytes) == set()
    staging = 4 * 2 * 2**22  # of both readers
    budget = smallest(model, store, 7, "1GiB")
    backend = StandInBackend(bytes_per_second=5e8)
    spilled, trainer = trained(
        model,
        store,
        device=backend,
        device_memory=budget + 2048,
        host_memory=staging // 2 + 6000,
        planner=GreedyPlanner(7),
        **settings,
    )
    record = trainer.history[-1]
    assert trainer.plan.num_blocks == 7
    assert record.moved_bytes["pinned write"] > 0
    assert record.moved_bytes["arrow write"] > 0
    assert record.peak_bytes["stand-in"] <= budget + 2048
    assert record.peak_bytes["pinned"] <= 6000
    assert record.peak_bytes["pinned"] + max(c.buffer_bytes for c in backend.opened) <= staging // 2 + 6000
    assert sum(c.lent for c in backend.opened) > 0
    assert spilled.losses == on_cpu.losses
    assert torch.equal(spilled.logits, on_cpu.logits)
    for key, value in on_cpu.parameters.items():
        assert torch.equal(spilled.parameters[key], value), key


def test_tiles_of_several_chunks_agree_with_pyg(tmp_path: Path) -> None:
    data = small_graph(num_nodes=140, num_edges=900)
    store = store_of(data, tmp_path / "graph")
    torch.manual_seed(0)
    model = GCN(5, 8, num_layers=3, out_channels=3)
    ours, trainer = trained(model, store, device=StandInBackend(tile_rows=20))
    assert trainer.plan.workload.blocks.tile_rows == 21
    assert_close(ours, train_with_pyg(model, data, EPOCHS))
    budget = smallest(model, store, 7, "1GiB")
    spilled, trainer = trained(
        model, store, device=StandInBackend(tile_rows=20), device_memory=2 * budget, planner=GreedyPlanner(7)
    )
    assert trainer.plan.num_blocks == 7
    assert trainer.history[-1].moved_bytes["pinned write"] > 0
    assert spilled.losses == ours.losses


def test_too_little_host_memory_for_copies_is_refused(store: GraphStore) -> None:
    model = GCN(5, 8, num_layers=3, out_channels=3)
    budget = smallest(model, store, 7, "1GiB")
    with pytest.raises(ConfigError, match=r"Copies to and from the stand-in tier .* --host-memory is 1.0 KiB"):
        trained(model, store, device=StandInBackend(), device_memory=budget, host_memory="1KiB")


def test_a_model_on_another_device_is_refused(store: GraphStore) -> None:
    model = GCN(5, 8, num_layers=2, out_channels=3).to("meta")
    with pytest.raises(ConfigError, match=r"on meta: give it on the CPU"):
        Trainer(model, store, torch.optim.Adam(model.parameters()))
