"""Memory of a device under budgets down to a sixteenth of what would hold all: as counted by the run, and by torch."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch_geometric.nn import GCN, GraphSAGE

from flexgnn import GraphStore, Trainer
from flexgnn.core.compute import ComputeBackend
from flexgnn.planners.greedy import GreedyPlanner
from tests.devices import DEVICES, NewDevice
from tests.graphs import small_graph, smallest_budget, store_of
from tests.stand_in import keep_stand_in_profile

SHARES = (1, 2, 4, 8, 16)
LIBRARIES_BYTES = 48 * 2**20
"""Of cuBLAS, whose workspace torch takes from the same allocator: 8 MiB, on Hopper 32 MiB (torch's notes on CUDA)."""


@pytest.fixture(autouse=True)
def _stated_rates() -> None:
    keep_stand_in_profile()


def store_for(device: ComputeBackend, tmp_path: Path) -> GraphStore:
    """In a hundred chunks, of which a GPU's are as large as it takes for libraries to matter little."""
    num_nodes, width = (200_000, 64) if device.device.type == "cuda" else (4000, 8)
    data = small_graph(num_nodes=num_nodes, num_edges=8 * num_nodes, num_features=width)
    return store_of(data, tmp_path / "graph", chunk_rows=num_nodes // 100)


def trainer_with(model: torch.nn.Module, store: GraphStore, device: ComputeBackend, budget: int | None) -> Trainer:
    model = copy.deepcopy(model)
    return Trainer(model, store, torch.optim.Adam(model.parameters()), device=device, device_memory=budget)


def budgets_for(model: torch.nn.Module, store: GraphStore, device: ComputeBackend) -> list[int]:
    """All that is needed, and shares of it, or the least that works."""
    need = trainer_with(model, store, device, None).plan.projected_peak_bytes
    least = smallest_budget(model, store, GreedyPlanner(), device=device)
    return [max(need // share, least) for share in SHARES]


def allocated_in(trainer: Trainer, device: ComputeBackend) -> int:
    """By two epochs, at most at one time: as torch counts it, where it does."""
    if device.device.type != "cuda":
        trainer.fit(2)
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    trainer.fit(2)
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("name", ["gcn", pytest.param("sage-max", marks=pytest.mark.slow)])
@pytest.mark.parametrize("new_device", DEVICES)
def test_memory_is_within_every_budget(name: str, new_device: NewDevice, tmp_path: Path) -> None:
    device = new_device()
    store = store_for(device, tmp_path)
    width = store.info.num_features
    torch.manual_seed(0)
    model = GCN(width, width, 3, 3) if name == "gcn" else GraphSAGE(width, width, 3, 3, aggr="max")
    beside = 4 * sum(parameter.nbytes for parameter in model.parameters()) + LIBRARIES_BYTES
    budgets, losses = budgets_for(model, store, device), []
    assert budgets[0] >= 12 * budgets[-1]
    for budget in budgets:
        trainer = trainer_with(model, store, device, budget)
        assert allocated_in(trainer, device) <= budget + beside, f"of {budget}"
        record = trainer.history[-1]
        assert record.peak_bytes[device.name] <= budget
        assert (record.moved_bytes.get("pinned write", 0) > 0) == (budget < budgets[0])
        losses.append([record.loss for record in trainer.history])
    assert losses == [losses[0]] * len(SHARES)
