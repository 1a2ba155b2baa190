"""Convolutions without a rule: PyG's and a user's own, run as they are on parts of the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing
from torch_geometric.transforms import GCNNorm
from torch_geometric.utils import degree, softmax

from flexgnn.core.errors import LoweringError
from flexgnn.core.program.lower import lower
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

WIDTH, EDGE_COLUMNS, EDGE_TYPES = 6, 4, 3


def mlp(num_inputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(num_inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


class OwnConv(MessagePassing):
    """A user's: an attention of its own, with a layer over pairs of nodes."""

    def __init__(self) -> None:
        super().__init__(aggr="sum", node_dim=0)
        self.pair = nn.Linear(2 * WIDTH, 1)
        self.update_by = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.update_by(torch.cat([x, self.propagate(edge_index, x=x)], dim=-1))

    def message(self, x_i: Tensor, x_j: Tensor, index: Tensor, size_i: int) -> Tensor:
        score = self.pair(torch.cat([x_i, x_j], dim=-1)).tanh()
        return softmax(score, index, num_nodes=size_i) * x_j


class OwnWeightedConv(MessagePassing):
    """A user's, that takes weights by another name and has a setting."""

    def __init__(self) -> None:
        super().__init__(aggr="max")
        self.lin = nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x: Tensor, edge_index: Tensor, strength: Tensor | None = None, power: float = 1.0) -> Tensor:
        return self.propagate(edge_index, x=self.lin(x), strength=strength, power=power)

    def message(self, x_j: Tensor, strength: Tensor | None, power: float) -> Tensor:
        return x_j if strength is None else strength.view(-1, 1) ** power * x_j


CONVS: dict[str, Callable[[], MessagePassing]] = {
    "own": OwnConv,
    "agnn": pyg.AGNNConv,
    "antisymmetric": lambda: pyg.AntiSymmetricConv(WIDTH, phi=pyg.SAGEConv(WIDTH, WIDTH)),
    "cg": lambda: pyg.CGConv(WIDTH),
    "cheb": lambda: pyg.ChebConv(WIDTH, WIDTH, K=1),
    "cluster-gcn": lambda: pyg.ClusterGCNConv(WIDTH, WIDTH),
    "edge": lambda: pyg.EdgeConv(mlp(2 * WIDTH)),
    "eg": lambda: pyg.EGConv(WIDTH, WIDTH, ["sum", "max"], num_heads=2, add_self_loops=False),
    "feast": lambda: pyg.FeaStConv(WIDTH, WIDTH, heads=2),
    "film": lambda: pyg.FiLMConv(WIDTH, WIDTH),
    "gated-graph": lambda: pyg.GatedGraphConv(WIDTH, num_layers=1),
    "general": lambda: pyg.GeneralConv(WIDTH, WIDTH, attention=True, heads=2),
    "graph-std": lambda: pyg.GraphConv(WIDTH, WIDTH, aggr="std"),
    "le": lambda: pyg.LEConv(WIDTH, WIDTH),
    "mf": lambda: pyg.MFConv(WIDTH, WIDTH),
    "pna": lambda: pyg.PNAConv(WIDTH, WIDTH, ["mean", "std", "max"], ["amplification"], torch.tensor([0, 5, 5, 5])),
    "res-gated": lambda: pyg.ResGatedGraphConv(WIDTH, WIDTH),
    "sage-several": lambda: pyg.SAGEConv(WIDTH, WIDTH, aggr=["max", "std"]),
    "sage-softmax": lambda: pyg.SAGEConv(WIDTH, WIDTH, aggr="softmax"),
    "simple": lambda: pyg.SimpleConv(aggr="mean", combine_root="sum"),
    "super-gat": lambda: pyg.SuperGATConv(WIDTH, WIDTH),
    "tag": lambda: pyg.TAGConv(WIDTH, WIDTH, K=1, normalize=False),
    "wl": pyg.WLConvContinuous,
}


class Between(nn.Module):
    """A convolution between layers that FlexGNN takes apart, and one more that shares its input."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.enter, self.conv = pyg.SAGEConv(5, WIDTH), conv
        self.beside, self.leave = pyg.SAGEConv(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.enter(x, edge_index).relu()
        return self.leave((self.conv(h, edge_index) + self.beside(h, edge_index)).tanh())


WITH_EDGE_INPUTS: dict[str, tuple[Any, ...]] = {
    "gat": (lambda: pyg.GATConv(WIDTH, 3, heads=2, edge_dim=EDGE_COLUMNS), "edge_attr"),
    "gat-ignoring": (lambda: pyg.GATConv(WIDTH, 3, heads=2), "edge_attr"),
    "gat-v2": (lambda: pyg.GATv2Conv(WIDTH, 3, heads=2, edge_dim=EDGE_COLUMNS), "edge_attr"),
    "transformer": (lambda: pyg.TransformerConv(WIDTH, 3, heads=2, edge_dim=EDGE_COLUMNS), "edge_attr"),
    "cg": (lambda: pyg.CGConv(WIDTH, dim=EDGE_COLUMNS), "edge_attr"),
    "gine": (lambda: pyg.GINEConv(mlp(WIDTH), edge_dim=EDGE_COLUMNS), "edge_attr"),
    "gmm": (lambda: pyg.GMMConv(WIDTH, WIDTH, dim=EDGE_COLUMNS, kernel_size=2), "edge_attr"),
    "nn": (lambda: pyg.NNConv(WIDTH, WIDTH, nn.Linear(EDGE_COLUMNS, WIDTH * WIDTH)), "edge_attr"),
    "gen": (lambda: pyg.GENConv(WIDTH, WIDTH, norm="layer", edge_dim=EDGE_COLUMNS), "edge_attr"),
    "rgcn": (lambda: pyg.RGCNConv(WIDTH, WIDTH, EDGE_TYPES, num_bases=2), "edge_type"),
    "rgat": (lambda: pyg.RGATConv(WIDTH, WIDTH, EDGE_TYPES, edge_dim=EDGE_COLUMNS), "edge_type", "edge_attr"),
    "film": (lambda: pyg.FiLMConv(WIDTH, WIDTH, num_relations=EDGE_TYPES), "edge_type"),
}
"""And what they are called with of edges."""


class WithEdgeInputs(nn.Module):
    def __init__(self, conv: nn.Module, *names: str) -> None:
        super().__init__()
        self.enter, self.conv, self.names = pyg.SAGEConv(5, WIDTH), conv, names
        self.beside, self.leave = pyg.SAGEConv(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None, edge_type: Tensor | None = None
    ) -> Tensor:
        given = {"edge_attr": edge_attr, "edge_type": edge_type}
        h = self.enter(x, edge_index).relu()
        out = self.conv(h, edge_index, **{name: given[name] for name in self.names})
        return self.leave((out + self.beside(h, edge_index)).tanh())


class Weighted(nn.Module):
    """Three in a row, the first of features, with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = pyg.GraphConv(5, WIDTH, aggr="max"), OwnWeightedConv()
        self.last = pyg.GraphConv(2 * WIDTH, 3, aggr="mean")

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        h = self.first(x, edge_index, edge_weight).relu()
        h = self.second(h, edge_index, strength=edge_weight, power=2.0)
        return self.last(h, edge_index, edge_weight=edge_weight)


def graph_with_edge_inputs() -> Data:
    data = small_graph()
    generator = torch.Generator().manual_seed(1)
    data.edge_attr = torch.rand(data.num_edges, EDGE_COLUMNS, generator=generator)
    data.edge_type = torch.randint(0, EDGE_TYPES, (data.num_edges,), generator=generator)
    return data


def check_exact(model: nn.Module, data: Data, directory: Path, *edge_inputs: str) -> None:
    """Against PyG, spilled over 5 blocks."""
    store = store_of(data, directory / "graph", chunk_rows=8)
    assert_close(train_spilled(model, store, 5), train_with_pyg(model, data, 5, edge_inputs=edge_inputs))


@pytest.mark.parametrize("name", CONVS)
def test_convolutions_are_exact_while_spilling(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    check_exact(Between(CONVS[name]()), small_graph(), tmp_path)


@pytest.mark.parametrize("directed", [False, True], ids=["undirected", "directed"])
def test_with_weights_and_of_features(directed: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    check_exact(Weighted(), small_graph(directed=directed, weighted=True), tmp_path, "edge_weight")


@pytest.mark.parametrize("name", WITH_EDGE_INPUTS)
def test_attributes_and_types_of_edges_are_exact_while_spilling(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, *edge_inputs = WITH_EDGE_INPUTS[name]
    check_exact(WithEdgeInputs(make(), *edge_inputs), graph_with_edge_inputs(), tmp_path, *edge_inputs)


def test_models_of_pyg_with_attributes_of_edges(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = pyg.GAT(5, 8, 2, 3, edge_dim=EDGE_COLUMNS)
    check_exact(model, graph_with_edge_inputs(), tmp_path, "edge_attr")


def test_edge_inputs_come_back_as_they_were_imported(tmp_path: Path) -> None:
    data = graph_with_edge_inputs()
    back = store_of(data, tmp_path / "graph").to_pyg()
    order = torch.argsort(data.edge_index[0] * data.num_nodes + data.edge_index[1], stable=True)
    assert torch.equal(back.edge_index, data.edge_index[:, order])
    assert torch.equal(back.edge_attr, data.edge_attr[order])
    assert torch.equal(back.edge_type, data.edge_type[order])


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("num_blocks", [1, 2, 7])
def test_losses_are_the_same_bits_under_every_budget(num_blocks: int, fuse: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, planner = Between(OwnConv()), GreedyPlanner(num_blocks)
    store = store_of(small_graph(num_nodes=60, num_edges=300), tmp_path / "graph", chunk_rows=6)
    rewrites = ("order", "fold", "gradients", "fuse") if fuse else ("order", "fold")
    expected = train_with_flexgnn(model, store, 3)
    smallest = smallest_budget(model, store, planner, rewrites)
    for budget in (smallest, int(1.4 * smallest)):
        found = train_with_flexgnn(model, store, 3, device_memory=budget, planner=planner, rewrites=rewrites)
        assert found.losses == expected.losses
        assert torch.equal(found.logits, expected.logits)


def test_the_number_of_threads_changes_no_bit(tmp_path: Path) -> None:
    store = store_of(small_graph(), tmp_path / "graph", chunk_rows=4)
    torch.manual_seed(0)
    model, losses = Between(OwnConv()), []
    for count in (1, 3):
        with threads_of_torch(count):
            losses.append(train_with_flexgnn(model, store, 3).losses)
    assert losses[0] == losses[1]


def test_frozen_parameters_get_no_gradient(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Between(OwnConv())
    for parameter in (*model.enter.parameters(), *model.conv.pair.parameters()):
        parameter.requires_grad_(False)
    data = small_graph()
    outcome = train_with_flexgnn(model, store_of(data, tmp_path / "graph"), 3)
    assert_close(outcome, train_with_pyg(model, data, 3, weighted=False))
    assert "conv.pair.weight" not in outcome.gradients


def test_normalising_the_graph_makes_a_convolution_exact(tmp_path: Path) -> None:
    """What a refusal of a convolution that normalises by degrees says to do."""
    torch.manual_seed(0)
    convs = [(pyg.TAGConv(5, 3, K=1, normalize=False), "x, edge_index, edge_weight -> x")]
    model = pyg.Sequential("x, edge_index, edge_weight", convs)
    data = GCNNorm()(small_graph(weighted=True))
    expected = train_with_pyg(model, data, 3, weighted=True)
    assert_close(train_with_flexgnn(model, store_of(data, tmp_path / "graph"), 3), expected)


class Noisy(OwnConv):
    def message(self, x_j: Tensor) -> Tensor:
        return nn.functional.dropout(x_j, 0.5, self.training)


class Deep(OwnConv):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=self.propagate(edge_index, x=x))


class Global(OwnConv):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return super().forward(x - x.mean(0), edge_index)


class Logarithm(Deep):
    """Of two hops, and not a number for numbers below 0."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return super().forward(x.log(), edge_index)


class Small(Deep):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return 1e-5 * super().forward(x, edge_index)


class Rescaling(OwnConv):
    """Looks at all nodes if one is large."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return super().forward(x / x.abs().max() if x.abs().max() > 5 else x, edge_index)


class Popular(OwnConv):
    """Leaves out sources with many out-edges."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        popular = degree(edge_index[0], len(x)) > 64
        return super().forward(x, edge_index[:, ~popular[edge_index[0]]])


class Overwriting(OwnConv):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x.data.clamp_(min=0)
        return super().forward(x, edge_index)


class Counting(OwnConv):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x * (1 + 1e-6 * self.calls), edge_index)


ELSEWHERE = mlp(2 * WIDTH)


class Heads(OwnConv):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return super().forward(x, edge_index).view(-1, 2, WIDTH // 2)


class Caching(OwnConv):
    """Keeps what it saw first."""

    kept: Tensor | None = None

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.kept = edge_index if self.kept is None else self.kept
        return super().forward(x, self.kept)


ON_PARTS = ["on a part of the graph", "in-neighbours", "GCNNorm"]


@pytest.mark.parametrize(
    ("conv", "named"),
    [
        (Noisy, ["conv (Noisy) draws random numbers", "torch.nn.Dropout"]),
        (Deep, ["conv (Deep)", *ON_PARTS]),
        (Global, ["conv (Global)", *ON_PARTS]),
        (Logarithm, ["conv (Logarithm)", *ON_PARTS]),
        (Small, ["conv (Small)", *ON_PARTS]),
        (Rescaling, ["conv (Rescaling)", *ON_PARTS]),
        (Popular, ["conv (Popular)", *ON_PARTS]),
        (Overwriting, ["conv (Overwriting) writes to its input", "copy"]),
        (Counting, ["conv (Counting) changes its buffers", "once a tile"]),
        (lambda: pyg.EdgeConv(lambda pair: ELSEWHERE(pair)), ["conv (EdgeConv) reads parameters that are not its own"]),
        (Caching, ["conv (Caching)", "on a part of the graph"]),
        (Heads, ["conv (Heads) returns (48, 2, 3) for 48 nodes", "one float32 row"]),
        (lambda: pyg.APPNP(2, 0.1), ["conv (APPNP)", *ON_PARTS]),
        (lambda: pyg.ChebConv(WIDTH, WIDTH, K=2), ["conv (ChebConv)", *ON_PARTS]),
        (lambda: pyg.ARMAConv(WIDTH, WIDTH), ["conv (ARMAConv)", *ON_PARTS]),
        (lambda: pyg.GENConv(WIDTH, WIDTH), ["conv (GENConv) changes its buffers", "norms"]),
        (lambda: pyg.GCNConv(WIDTH, WIDTH, aggr="mean"), ["conv (GCNConv)", *ON_PARTS]),
        (lambda: pyg.GCNConv(WIDTH, WIDTH, cached=True, aggr="mean"), ["conv (GCNConv)", "on a part of the graph"]),
        (lambda: pyg.SAGEConv(WIDTH, WIDTH, aggr="lstm"), ["conv (SAGEConv) doesn't accept its input", "sorted"]),
        (lambda: pyg.EdgeConv(mlp(7)), ["conv (EdgeConv) doesn't accept its input"]),
    ],
)
def test_refusals(conv: Callable[[], MessagePassing], named: list[str]) -> None:
    with pytest.raises(LoweringError) as error:
        lower(Between(conv()), num_features=5)
    assert all(part in str(error.value) for part in named), str(error.value)


def test_several_tensors_of_nodes_are_refused() -> None:
    class Two(Between):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            h = self.enter(x, edge_index)
            return self.leave(self.conv(h, h.relu(), edge_index))

    with pytest.raises(LoweringError, match=r"conv \(FAConv\) has no rule of its own.*torch.cat"):
        lower(Two(pyg.FAConv(WIDTH)), num_features=5)


def test_what_a_model_takes_has_to_be_there() -> None:
    conv = pyg.GINEConv(mlp(WIDTH), edge_dim=EDGE_COLUMNS)
    with pytest.raises(
        LoweringError, match=r"conv \(GINEConv\) doesn't accept its input: .*the graph has no edge_weight, edge_"
    ):
        lower(WithEdgeInputs(conv, "edge_attr"), num_features=5)
    model = pyg.Sequential("x, edge_index, edge_attr", [(conv, "x, edge_index, edge_attr -> x")])
    with pytest.raises(LoweringError, match="Sequential takes edge_attr, which the graph does not have"):
        lower(model, num_features=5)


def test_attributes_that_name_categories(tmp_path: Path) -> None:
    """A try needs rows as the graph has them: others would name categories that there are not."""

    class Embedding(OwnConv):
        def __init__(self) -> None:
            super().__init__()
            self.category = nn.Embedding(3, WIDTH)

        def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x, category=self.category(edge_attr[:, 0].long()))

        def message(self, x_j: Tensor, category: Tensor) -> Tensor:
            return x_j * category

    torch.manual_seed(0)
    data = small_graph()
    data.edge_attr = torch.arange(data.num_edges).view(-1, 1) % 3
    model = WithEdgeInputs(Embedding(), "edge_attr")
    outcome = train_with_flexgnn(model, store_of(data, tmp_path / "graph"), 3)
    data.edge_attr = data.edge_attr.float()
    assert_close(outcome, train_with_pyg(model, data, 3, edge_inputs=["edge_attr"]))
