"""The promise: the results of full-batch PyG, whatever the blocks and wherever the data is."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
from _pytest.mark.structures import ParameterSet
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import ReLU
from torch_geometric.nn import GAT, GCN, GIN, GCNConv, GraphConv, GraphSAGE, SAGEConv, Sequential, TransformerConv

from flexgnn import Trainer
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import (
    assert_close,
    small_graph,
    smallest_budget,
    store_of,
    train_spilled,
    train_with_flexgnn,
    train_with_pyg,
)
from tests.machine import threads_of_torch

MODELS: dict[str, Callable[[int, int], torch.nn.Module]] = {
    "gcn": lambda f, c: GCN(f, 8, 3, c),
    "gcn-norm-jk": lambda f, c: GCN(f, 8, 3, c, jk="cat", norm="layer_norm", norm_kwargs={"mode": "node"}),
    "sage": lambda f, c: GraphSAGE(f, 8, 3, c),
    "sage-sum": lambda f, c: GraphSAGE(f, 8, 2, c, aggr="sum", project=True),
    "sage-max": lambda f, c: GraphSAGE(f, 8, 3, c, aggr="max"),
    "gin": lambda f, c: GIN(f, 8, 2, c, train_eps=True),
    "gat": lambda f, c: GAT(f, 8, 3, c, heads=2),
    "gat-plain": lambda f, c: GAT(f, 6, 2, c, heads=3, concat=False, add_self_loops=False, residual=True),
    "gat-v2": lambda f, c: GAT(f, 8, 3, c, v2=True, heads=4, share_weights=True),
    "gat-v2-plain": lambda f, c: GAT(f, 6, 2, c, v2=True, heads=2, concat=False, add_self_loops=False),
    "transformer": lambda f, c: Transformer(f, 4, c),
    "last": lambda f, c: GraphSAGE(f, 8, 3, c, jk="last", act="elu"),
    "residual": lambda f, c: Residual(f, 8, c),
    "shared": lambda f, c: Shared(f, 8, c),
    "graph-convs": lambda f, c: GraphConvs(f, 8, c),
    "sequential": lambda f, c: Sequential(
        "x, edge_index, edge_weight",
        [
            (GCNConv(f, 8, improved=True), "x, edge_index, edge_weight -> x"),
            ReLU(inplace=True),
            (SAGEConv(8, c), "x, edge_index -> x"),
        ],
    ),
}


class Residual(torch.nn.Module):
    """A user's model: two branches that meet again, and values that skip stages."""

    def __init__(self, num_features: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.enter = torch.nn.Linear(num_features, width)
        self.convs = torch.nn.ModuleList([GCNConv(width, width, bias=False) for _ in range(2)])
        self.side = SAGEConv(width, width, aggr="max")
        self.leave = torch.nn.Linear(2 * width, num_classes)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        h = self.enter(x)
        for conv in self.convs:
            h = torch.relu_(conv(h, edge_index, edge_weight)) + h
        return self.leave(torch.cat([h, self.side(h, edge_index)], dim=-1))


class GraphConvs(torch.nn.Module):
    """A user's model: sums with the graph's weights where it has any, maxima and means."""

    def __init__(self, num_features: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.first, self.second = GraphConv(num_features, width, aggr="max"), GraphConv(width, width)
        self.third = GraphConv(width, num_classes, aggr="mean")

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        h = self.second(self.first(x, edge_index).relu(), edge_index, edge_weight).tanh()
        return self.third(h, edge_index)


class Transformer(torch.nn.Module):
    """A user's model of attention by products: with and without gates, heads joined and averaged."""

    def __init__(self, num_features: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.first = TransformerConv(num_features, width, heads=2, beta=True)
        self.second = TransformerConv(2 * width, num_classes, heads=3, concat=False)
        self.alone = TransformerConv(2 * width, num_classes, root_weight=False)
        for conv in (self.first, self.second, self.alone):
            conv.lin_key.bias = None  # a softmax leaves it out: its gradient is 0, but for rounding

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.first(x, edge_index).relu()
        return self.second(h, edge_index) + self.alone(h, edge_index)


class Shared(torch.nn.Module):
    """Several aggregations of one value: weighted and not, summed and averaged."""

    def __init__(self, num_features: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.enter = torch.nn.Linear(num_features, width)
        self.weighted = GCNConv(width, num_classes, normalize=False)
        self.weighted.lin = torch.nn.Identity()
        self.leave = torch.nn.Linear(width, num_classes)
        self.weighted.bias = None
        self.summed, self.averaged = SAGEConv(width, num_classes, aggr="sum"), SAGEConv(width, num_classes)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        h = self.enter(x)
        weighted = self.leave(self.weighted(h, edge_index, edge_weight))
        return weighted + self.summed(h, edge_index) + self.averaged(h, edge_index)


def takes_weights(name: str) -> bool:
    return name in ("gcn", "gcn-norm-jk", "graph-convs", "residual", "shared", "sequential")


def cases() -> Iterator[ParameterSet]:
    """Every model, on graphs of both kinds, with weights and without: slow where it ignores what there is."""
    for name, directed, weighted in product(MODELS, (False, True), (False, True)):
        identifier = f"{name}-{'directed' if directed else 'undirected'}{'-weighted' if weighted else ''}"
        marks = [pytest.mark.slow] if weighted and not takes_weights(name) else []
        yield pytest.param(name, directed, weighted, id=identifier, marks=marks)


@pytest.mark.parametrize(("name", "directed", "weighted"), list(cases()))
def test_ten_epochs_agree_with_pyg_while_spilling(name: str, directed: bool, weighted: bool, tmp_path: Path) -> None:
    if name == "sequential" and not weighted:
        pytest.skip("this model asks for edge weights")
    data = small_graph(directed=directed, weighted=weighted)
    torch.manual_seed(0)
    model = MODELS[name](5, 3)
    store = store_of(data, tmp_path / "graph", chunk_rows=8)
    expected = train_with_pyg(model, data, 10, weighted=weighted and takes_weights(name))
    assert_close(train_spilled(model, store, 10), expected)
    assert_close(train_with_flexgnn(model, store, 10), expected)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)
@given(
    name=st.sampled_from(["gcn", "sage", "sage-max", "gin", "residual", "gat", "gat-v2-plain", "transformer"]),
    seed=st.integers(0, 10_000),
    num_nodes=st.integers(2, 30),
    num_edges=st.integers(1, 90),
    chunk_rows=st.integers(1, 9),
    num_blocks=st.integers(1, 9),
    directed=st.booleans(),
    weighted=st.booleans(),
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
    weighted: bool,
    extra: float,
) -> None:
    data = small_graph(seed, num_nodes=num_nodes, num_edges=num_edges, directed=directed, weighted=weighted)
    torch.manual_seed(seed)
    model = MODELS[name](5, 3)
    expected = train_with_pyg(model, data, 3, weighted=weighted and takes_weights(name))
    planner = GreedyPlanner(num_blocks)
    with tempfile.TemporaryDirectory() as directory:
        store = store_of(data, Path(directory) / "graph", chunk_rows)
        budget = int(smallest_budget(model, store, planner) * (1 + extra))
        assert_close(train_with_flexgnn(model, store, 3, device_memory=budget, planner=planner), expected)


@pytest.mark.parametrize("dropout", [pytest.param(0.0, marks=pytest.mark.slow), 0.4])
@pytest.mark.parametrize(
    "model_class",
    [GCN, GraphSAGE, GIN, partial(GAT, heads=2), pytest.param(partial(GAT, heads=4, v2=True), marks=pytest.mark.slow)],
    ids=["gcn", "sage", "gin", "gat", "gat-v2"],
)
def test_losses_are_the_same_bits_under_every_budget(
    model_class: Callable[..., torch.nn.Module], dropout: float, tmp_path: Path
) -> None:
    data = small_graph(num_nodes=60, num_edges=300)
    store = store_of(data, tmp_path / "graph", chunk_rows=6)
    torch.manual_seed(0)
    model = model_class(5, 8, 3, 3, dropout=dropout)
    reference = train_with_flexgnn(model, store, 3)
    for num_blocks in (1, 3, 10):
        planner = GreedyPlanner(num_blocks)
        smallest = smallest_budget(model, store, planner)
        for budget in (smallest, int(1.4 * smallest), None):
            outcome = train_with_flexgnn(model, store, 3, device_memory=budget, planner=planner)
            assert outcome.losses == reference.losses
            assert torch.equal(outcome.logits, reference.logits)
            for name, parameter in outcome.parameters.items():
                assert torch.equal(parameter, reference.parameters[name])


def test_dropout_differs_by_epoch_and_seed(tmp_path: Path) -> None:
    store = store_of(small_graph(), tmp_path / "graph")

    def losses(seed: int) -> list[float]:
        torch.manual_seed(0)
        model = GCN(5, 8, 2, 3, dropout=0.5)
        trainer = Trainer(model, store, torch.optim.SGD(model.parameters(), lr=0.0), seed=seed)
        return [record.loss for record in trainer.fit(3)]

    assert len(set(losses(0))) == 3, "the parameters stand still: only the masks can differ"
    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


def test_the_number_of_threads_changes_no_bit(tmp_path: Path) -> None:
    store = store_of(small_graph(), tmp_path / "graph", chunk_rows=4)
    torch.manual_seed(0)
    model = GraphSAGE(5, 8, 3, 3)
    outcomes = []
    for count in (1, 2, 4):
        with threads_of_torch(count):
            outcomes.append(train_with_flexgnn(model, store, 4).losses)
    assert outcomes[0] == outcomes[1] == outcomes[2]
