"""Losses that users name: those of full-batch PyG, the same bits under every budget, or refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss
from torch_geometric.data import Data
from torch_geometric.nn import GraphSAGE

from flexgnn import GraphStore, Trainer
from flexgnn.core.errors import ConfigError, GraphError
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import assert_close, small_graph, smallest_budget, store_of, train_with_flexgnn, train_with_pyg


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """A user's own loss: easy nodes count less."""
    losses = cross_entropy(logits, labels, reduction="none")
    return (1 - torch.exp(-losses)) ** 2 * losses


class Learned(torch.nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.scale * cross_entropy(logits, labels, reduction="none")


def classes() -> Data:
    return small_graph(num_nodes=80, num_edges=300)


def several() -> Data:
    data = classes()
    data.y = (torch.randn(80, 3, generator=torch.Generator().manual_seed(1)) > 0).float()
    return data


def numbers() -> Data:
    data = classes()
    data.y = torch.randn(80, 3, generator=torch.Generator().manual_seed(2))
    return data


@dataclass
class Case:
    data: Callable[[], Data]
    loss: Any
    of_pyg: Any = field(default=None)

    def __post_init__(self) -> None:
        self.of_pyg = self.of_pyg or self.loss


WEIGHTS = torch.tensor([0.2, 1.0, 3.0])
CASES = {
    "class weights": Case(classes, torch.nn.CrossEntropyLoss(weight=WEIGHTS)),
    "label smoothing": Case(classes, torch.nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.1)),
    "sum": Case(classes, torch.nn.CrossEntropyLoss(reduction="sum")),
    "function of torch": Case(classes, cross_entropy),
    "focal": Case(classes, focal, lambda logits, labels: focal(logits, labels).mean()),
    "pos_weight": Case(several, torch.nn.BCEWithLogitsLoss(pos_weight=WEIGHTS)),
    "squared error by default": Case(numbers, None, mse_loss),
    "squared error": Case(numbers, torch.nn.MSELoss()),
    "absolute error": Case(numbers, torch.nn.L1Loss()),
    "huber": Case(numbers, torch.nn.HuberLoss(delta=0.5)),
    "smooth absolute error": Case(numbers, torch.nn.SmoothL1Loss()),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_of_pyg_and_the_same_bits_under_every_budget(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    data = case.data()
    torch.manual_seed(0)
    model = GraphSAGE(5, 8, 3, 3)
    store = store_of(data, tmp_path / "graph", chunk_rows=8)
    expected = train_with_pyg(model, data, 6, weighted=False, loss=case.of_pyg)
    whole = train_with_flexgnn(model, store, 6, loss=case.loss)
    assert_close(whole, expected)
    planner = GreedyPlanner(5)

    def spilled(trainer: Trainer) -> None:
        assert trainer.history[-1].moved_bytes["arrow write"] > 0

    budget = smallest_budget(model, store, planner, loss=case.loss)
    options: dict[str, Any] = {"device_memory": budget, "planner": planner, "inspect": spilled}
    small = train_with_flexgnn(model, store, 6, loss=case.loss, **options)
    assert small.losses == whole.losses
    assert torch.equal(small.logits, whole.logits)
    assert all(torch.equal(small.parameters[n], whole.parameters[n]) for n in whole.parameters)
    assert all(torch.equal(small.gradients[n], whole.gradients[n]) for n in whole.gradients)


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (0.5, "give a loss of torch.nn, or a function"),
        (torch.nn.CrossEntropyLoss, r"the class CrossEntropyLoss: give an object of it, as in CrossEntropyLoss\(\)"),
        (lambda logits, labels: cross_entropy(logits, labels), "return one loss a row"),
        (lambda logits, labels: (logits - logits.mean(0)).square().sum(1), "or on the other rows"),
        (lambda logits, labels: logits @ logits.T, "another shape for fewer rows"),
        (lambda logits, labels: logits.sum(1) * torch.rand(len(logits)), "depends on chance"),
        (lambda logits, labels: labels.float(), "nothing that has a gradient"),
        (lambda logits, labels: (logits.sum(1), labels), "gives a tuple: return a tensor of one loss a row"),
        (
            torch.nn.BCEWithLogitsLoss(),
            r"fails on logits \[8, 3\] \(float32\) and labels \[8\] \(int64\) of this graph, one class a node: Target",
        ),
        (torch.nn.KLDivLoss(reduction="batchmean"), "has reduction 'batchmean'"),
        (Learned(), "has parameters to be trained"),
    ],
)
def test_what_tiles_cannot_make_is_refused(loss: Any, sentence: str, tmp_path: Path) -> None:
    store = store_of(classes(), tmp_path / "graph")
    model = GraphSAGE(5, 8, 2, 3)
    with pytest.raises(ConfigError, match=sentence):
        Trainer(model, store, torch.optim.Adam(model.parameters()), loss=loss)


def test_class_weights_of_zero_are_refused(tmp_path: Path) -> None:
    model, store = GraphSAGE(5, 8, 2, 3), store_of(classes(), tmp_path / "graph")
    loss = torch.nn.CrossEntropyLoss(weight=torch.zeros(3), reduction="mean")
    with pytest.raises(ConfigError, match="a sum above 0"):
        Trainer(model, store, torch.optim.Adam(model.parameters()), loss=loss).fit(1)


def test_records_of_regression_have_mean_absolute_errors(tmp_path: Path) -> None:
    data, model = numbers(), GraphSAGE(5, 8, 2, 3)
    before = copy.deepcopy(model)
    trainer = Trainer(model, store_of(data, tmp_path / "graph"), torch.optim.Adam(model.parameters()))
    (record,) = trainer.fit(1)
    errors = (before(data.x, data.edge_index).detach() - data.y).abs()
    for split in ("train", "val", "test"):
        expected = float(errors[data[f"{split}_mask"]].mean())
        assert getattr(record, f"{split}_mae") == pytest.approx(expected, rel=1e-5)
        assert getattr(record, f"{split}_accuracy") is None


@pytest.mark.parametrize("shape", [(80,), (80, 1)])
def test_one_number_a_node_is_one_column(shape: tuple[int, ...], tmp_path: Path) -> None:
    data = classes()
    data.y = torch.rand(shape)
    store = store_of(data, tmp_path / "graph")
    assert (store.info.task, store.info.num_classes) == ("regression", 1)
    assert torch.equal(store.to_pyg().y, data.y.reshape(80, 1))


def test_whole_numbers_are_predicted_where_the_task_says_so(tmp_path: Path) -> None:
    data = several()
    assert store_of(data, tmp_path / "several").info.task == "multi-label"
    store = GraphStore.from_pyg(data, tmp_path / "numbers", task="regression")
    assert store.info.task == "regression"
    assert GraphStore.open(store.path).info == store.info
    data.y = torch.full((80,), 0.5)
    with pytest.raises(GraphError, match=r"data.y\[0\] is 0.5.*task=\"regression\""):
        GraphStore.from_pyg(data, tmp_path / "other", task="multi-class")
    with pytest.raises(ConfigError, match="no task 'ranking'"):
        GraphStore.from_pyg(data, tmp_path / "other", task="ranking")


def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    data = numbers()
    data.y[5, 1] = float("nan")
    with pytest.raises(GraphError, match=r"data.y\[5, 1\] is nan"):
        store_of(data, tmp_path / "graph")


def test_the_model_has_as_many_outputs_as_there_are_numbers(tmp_path: Path) -> None:
    model = GraphSAGE(5, 8, 2, 4)
    with pytest.raises(ConfigError, match=r"4 outputs; .* has 3 numbers to predict"):
        Trainer(model, store_of(numbers(), tmp_path / "graph"), torch.optim.Adam(model.parameters()))
