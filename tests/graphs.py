"""Small graphs, and full-batch PyG training to compare with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data
from torch_geometric.transforms import RandomLinkSplit
from torch_geometric.utils import to_undirected

from flexgnn import GraphStore, LinkPrediction, Trainer
from flexgnn.core.compute import ComputeBackend
from flexgnn.core.errors import BudgetError
from flexgnn.core.planner import Planner
from flexgnn.core.program.criterion import RowLosses
from flexgnn.core.program.rewrites import ALL_REWRITES
from flexgnn.core.runtime.events import Listener
from flexgnn.planners.greedy import GreedyPlanner

ADAM_EPS = 1e-4
"""Adam would make much of gradients that are zero but for rounding, as those of what a softmax leaves out."""


def small_graph(
    seed: int = 0,
    *,
    num_nodes: int = 40,
    num_edges: int = 150,
    num_features: int = 5,
    num_classes: int = 3,
    directed: bool = True,
    weighted: bool = False,
) -> Data:
    """A random graph with self loops, duplicate edges and, at the end, isolated nodes."""
    generator = torch.Generator().manual_seed(seed)
    reached = max(1, num_nodes - 2)
    edges = torch.randint(0, reached, (2, num_edges), generator=generator)
    edges[1, ::11] = edges[0, ::11]
    repeated = num_edges // 8
    edges = torch.cat([edges, edges[:, :repeated]], dim=1)
    weight = torch.rand(edges.shape[1], generator=generator) + 0.1
    if not directed:
        edges, weight = torch.cat([edges, edges.flip(0)], dim=1), weight.repeat(2)
    data = Data(
        x=torch.randn(num_nodes, num_features, generator=generator),
        edge_index=edges,
        y=torch.randint(0, num_classes, (num_nodes,), generator=generator),
    )
    data.y[0] = num_classes - 1
    if weighted:
        data.edge_weight = weight
    place = torch.arange(num_nodes) % 5
    data.train_mask, data.val_mask, data.test_mask = place < 3, place == 3, place == 4
    return data


def link_graph(*, negatives: float = 1.0, undirected: bool = True) -> Data:
    """As ``RandomLinkSplit`` leaves it, with the pairs for validation and test beside those for training."""
    data = small_graph(num_nodes=60, num_edges=200)
    if undirected:
        data.edge_index = to_undirected(data.edge_index)
    torch.manual_seed(0)
    split = RandomLinkSplit(num_val=0.1, num_test=0.2, is_undirected=undirected, neg_sampling_ratio=negatives or 1.0)
    train, val, test = split(Data(x=data.x, edge_index=data.edge_index))
    if not negatives:
        linked = train.edge_label == 1
        train.edge_label_index, train.edge_label = train.edge_label_index[:, linked], None
    train.val_edge_label_index, train.val_edge_label = val.edge_label_index, val.edge_label
    train.test_edge_label_index, train.test_edge_label = test.edge_label_index, test.edge_label
    return train


@dataclass(frozen=True)
class Outcome:
    """What a training run came to."""

    losses: list[float]
    gradients: dict[str, Tensor]
    """Of the first step."""
    logits: Tensor
    parameters: dict[str, Tensor]


def train_with_pyg(
    model: torch.nn.Module,
    data: Data,
    epochs: int,
    *,
    weighted: bool = False,
    edge_inputs: Sequence[str] = (),
    loss: RowLosses = cross_entropy,
) -> Outcome:
    """Full-batch training, as in PyG's examples; the model gets ``edge_inputs`` of ``data`` by name."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, eps=ADAM_EPS)
    weights = {name: data[name] for name in (*edge_inputs, *(["edge_weight"] if weighted else []))}
    losses: list[float] = []
    gradients: dict[str, Tensor] = {}
    for _ in range(epochs):
        optimizer.zero_grad()
        value = loss(model(data.x, data.edge_index, **weights)[data.train_mask], data.y[data.train_mask])
        value.backward()
        gradients = gradients or _gradients(model)
        optimizer.step()
        losses.append(float(value.detach()))
    model.eval()
    with torch.no_grad():
        logits = model(data.x, data.edge_index, **weights)
    return Outcome(losses, gradients, logits, model.state_dict())


def train_with_flexgnn(
    model: torch.nn.Module,
    store: GraphStore,
    epochs: int,
    *,
    loss: RowLosses | LinkPrediction | None = None,
    device_memory: int | None = None,
    planner: Planner | None = None,
    rewrites: Sequence[str] = ALL_REWRITES,
    storage_dtype: str = "float32",
    ssd_backend: str = "arrow",
    device: str | ComputeBackend = "cpu",
    host_memory: str | int | None = None,
    listeners: Sequence[Listener] = (),
    inspect: Callable[[Trainer], None] = lambda trainer: None,
) -> Outcome:
    """The same with FlexGNN; ``inspect`` sees the trainer after training."""
    model = copy.deepcopy(model)
    optimizer = _RecordingAdam(model)
    trainer = Trainer(
        model,
        store,
        optimizer,
        loss=loss,
        device_memory=device_memory,
        planner=planner or "greedy",
        rewrites=rewrites,
        storage_dtype=storage_dtype,
        ssd_backend=ssd_backend,
        device=device,
        host_memory=host_memory,
        listeners=listeners,
    )
    records = trainer.fit(epochs)
    inspect(trainer)
    return Outcome([r.loss for r in records], optimizer.first, trainer.predict(), model.state_dict())


def smallest_budget(
    model: torch.nn.Module,
    store: GraphStore,
    planner: Planner,
    rewrites: Sequence[str] = ALL_REWRITES,
    loss: RowLosses | LinkPrediction | None = None,
    device: str | ComputeBackend = "cpu",
) -> int:
    """The least memory of ``device`` that ``planner`` says will do, taken from its refusal."""
    trainer = Trainer(
        copy.deepcopy(model),
        store,
        torch.optim.Adam(model.parameters()),
        loss=loss,
        device=device,
        device_memory=1,
        planner=planner,
        rewrites=rewrites,
    )
    try:
        trainer.plan  # noqa: B018
    except BudgetError as error:
        return error.smallest_bytes
    raise AssertionError("one byte is no budget")


def train_spilled(
    model: torch.nn.Module, store: GraphStore, epochs: int, *, loss: RowLosses | LinkPrediction | None = None
) -> Outcome:
    """In 5 blocks, in the smallest budget that works, spilling to ``arrow``."""
    planner = GreedyPlanner(5)
    budget = smallest_budget(model, store, planner, loss=loss)
    return train_with_flexgnn(
        model, store, epochs, loss=loss, device_memory=budget, planner=planner, inspect=assert_spilled
    )


def assert_spilled(trainer: Trainer) -> None:
    """In 5 blocks, to ``arrow``."""
    assert trainer.plan.num_blocks == 5
    assert trainer.history[-1].moved_bytes["arrow write"] > 0


def store_of(data: Data, path: Path, chunk_rows: int = 7) -> GraphStore:
    return GraphStore.from_pyg(data, path, chunk_rows=chunk_rows, overwrite=True)


def assert_close(ours: Outcome, pyg: Outcome) -> None:
    """Within 1e-4: losses each, gradients and logits by the largest of a tensor."""
    for epoch, (loss, expected) in enumerate(zip(ours.losses, pyg.losses, strict=True)):
        assert loss == pytest.approx(expected, rel=1e-4), f"epoch {epoch}"
    assert ours.gradients.keys() == pyg.gradients.keys()
    # What is zero in exact arithmetic is the rounding of larger terms, on either side: 1e-5 of the largest gradient.
    rounding = 1e-1 * max(float(gradient.abs().max()) for gradient in pyg.gradients.values())
    for name, gradient in ours.gradients.items():
        assert relative_error(gradient, pyg.gradients[name], rounding) < 1e-4, name
    assert relative_error(ours.logits, pyg.logits) < 1e-4


def relative_error(ours: Tensor, expected: Tensor, least: float = 1e-6) -> float:
    """Largest difference over the largest of ``expected``, which counts as ``least`` at the least."""
    return float((ours - expected).abs().max() / expected.abs().max().clamp(min=least))


class _RecordingAdam(torch.optim.Adam):
    """Adam that remembers the gradients of its first step."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model.parameters(), lr=0.01, eps=ADAM_EPS)
        self._model = model
        self.first: dict[str, Tensor] = {}

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.first = self.first or _gradients(self._model)
        super().step(closure)


def _gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
