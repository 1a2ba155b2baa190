"""A ``state_dict`` goes both ways between FlexGNN and PyG, and training goes on where it was left."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GCN, GIN, GraphSAGE

from flexgnn import GraphStore, Trainer
from tests.graphs import relative_error, small_graph, store_of

MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "gcn": lambda: GCN(5, 8, 3, 3),
    "gin with trained eps": lambda: GIN(5, 8, 3, 3, train_eps=True),
    "gat": lambda: GAT(5, 8, 2, 3, heads=2),
    "batch norm": lambda: GraphSAGE(5, 8, 3, 3, norm="batch_norm"),
}


@pytest.fixture
def store(tmp_path: Path) -> GraphStore:
    return store_of(small_graph(), tmp_path / "graph")


def adam(model: torch.nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=0.01)


def full_batch_logits(model: torch.nn.Module, data: Data) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(model).eval()(data.x, data.edge_index)


def full_batch_epochs(model: torch.nn.Module, data: Data, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    for _ in range(epochs):
        optimizer.zero_grad()
        cross_entropy(model(data.x, data.edge_index)[data.train_mask], data.y[data.train_mask]).backward()
        optimizer.step()


@pytest.mark.parametrize("name", MODELS)
def test_what_flexgnn_trained_is_loaded_into_a_fresh_model(name: str, store: GraphStore) -> None:
    torch.manual_seed(0)
    model, fresh = MODELS[name](), MODELS[name]()
    trainer = Trainer(model, store, adam(model))
    trainer.fit(4)
    fresh.load_state_dict(model.state_dict(), strict=True)
    assert relative_error(trainer.predict(), full_batch_logits(fresh, small_graph())) < 1e-4


@pytest.mark.parametrize("after", [False, True], ids=["before the trainer is made", "after it trained"])
@pytest.mark.parametrize("name", MODELS)
def test_what_pyg_trained_is_loaded_and_trained_on(name: str, after: bool, store: GraphStore) -> None:
    torch.manual_seed(0)
    data, model, reference = small_graph(), MODELS[name](), MODELS[name]()
    full_batch_epochs(reference, data, adam(reference), 4)
    if not after:
        model.load_state_dict(reference.state_dict())
    trainer = Trainer(model, store, torch.optim.SGD(model.parameters(), lr=0.01))
    if after:
        trainer.fit(1)
        model.load_state_dict(reference.state_dict())
    assert relative_error(trainer.predict(), full_batch_logits(reference, data)) < 1e-4
    trainer.fit(3)
    full_batch_epochs(reference, data, torch.optim.SGD(reference.parameters(), lr=0.01), 3)
    assert relative_error(trainer.predict(), full_batch_logits(reference, data)) < 1e-4


@pytest.mark.parametrize("options", [{}, {"norm": "batch_norm"}, {"dropout": 0.5}])
def test_a_saved_training_goes_on_with_the_same_bits(options: dict[str, object], store: GraphStore) -> None:
    """As docs/training.md shows it; with dropout, masks go on since the history does."""
    torch.manual_seed(0)
    start = GraphSAGE(5, 8, 3, 3, **options)
    whole, model = copy.deepcopy(start), copy.deepcopy(start)
    expected = [record.loss for record in Trainer(whole, store, adam(whole)).fit(6)]

    first = Trainer(model, store, adam(model))
    first.fit(3)
    saved = io.BytesIO()
    state = {"model": model.state_dict(), "optimizer": first.optimizer.state_dict(), "history": first.history}
    torch.save(state, saved)
    saved.seek(0)

    loaded = torch.load(saved, weights_only=False)
    model = GraphSAGE(5, 8, 3, 3, **options)
    optimizer = adam(model)
    model.load_state_dict(loaded["model"])
    optimizer.load_state_dict(loaded["optimizer"])
    trainer = Trainer(model, store, optimizer)
    trainer.history.extend(loaded["history"])
    assert [record.epoch for record in trainer.fit(3)] == [4, 5, 6]
    assert [record.loss for record in trainer.history] == expected
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name]), name
