"""Lowered models against the models themselves, on the whole graph."""

from __future__ import annotations

import concurrent.futures

import pytest
import torch
import torch_geometric.nn as pyg
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from flexgnn.core.program.edge_inputs import EdgeInputs
from flexgnn.core.program.lower import lower
from flexgnn.core.program.program import Adjacency
from flexgnn.core.program.row_context import RowContext

AS_WRITTEN = ("fuse", "gradients")
"""The rewrites that leave segments and aggregations where the model has them."""

NODE_NORM = {"norm": "layer_norm", "norm_kwargs": {"mode": "node"}}

MODELS = {
    "gcn": lambda: pyg.GCN(6, 8, 3, 4),
    "gcn-one-layer": lambda: pyg.GCN(6, 8, 1, 4),
    "gcn-improved": lambda: pyg.GCN(6, 8, 2, 4, improved=True),
    "gcn-unnormalised": lambda: pyg.GCN(6, 8, 2, 4, normalize=False),
    "gcn-own-loops": lambda: pyg.GCN(6, 8, 2, 4, add_self_loops=False),
    "gcn-cached": lambda: pyg.GCN(6, 8, 2, 4, cached=True),
    "gcn-no-bias": lambda: pyg.GCN(6, 8, 2, 4, bias=False),
    "gcn-tanh-first": lambda: pyg.GCN(6, 8, 3, 4, act="tanh", act_first=True, **NODE_NORM),
    "gcn-prelu": lambda: pyg.GCN(6, 8, 3, 4, act="prelu"),
    "gcn-functional-act": lambda: pyg.GCN(6, 8, 3, 4, act=torch.sigmoid),
    "gcn-in-place-jk-cat": lambda: pyg.GCN(6, 8, 3, 4, act_kwargs={"inplace": True}, bias=False, jk="cat"),
    "gin-in-place": lambda: pyg.GIN(6, 8, 2, 4, act="leaky_relu", act_kwargs={"inplace": True}, act_first=True),
    "gcn-jk-cat": lambda: pyg.GCN(6, 8, 3, 4, jk="cat"),
    "gcn-jk-last": lambda: pyg.GCN(6, 8, 3, 4, jk="last"),
    "gcn-jk-max": lambda: pyg.GCN(6, 8, 3, 4, jk="max"),
    "gcn-dropout": lambda: pyg.GCN(6, 8, 3, 4, dropout=0.5, **NODE_NORM),
    "sage-mean": lambda: pyg.GraphSAGE(6, 8, 3, 4),
    "sage-sum": lambda: pyg.GraphSAGE(6, 8, 2, 4, aggr="sum"),
    "sage-max": lambda: pyg.GraphSAGE(6, 8, 2, 4, aggr="max"),
    "sage-project": lambda: pyg.GraphSAGE(6, 8, 2, 4, project=True),
    "sage-normalize": lambda: pyg.GraphSAGE(6, 8, 2, 4, normalize=True),
    "sage-no-root": lambda: pyg.GraphSAGE(6, 8, 2, 4, root_weight=False, bias=False),
    "sage-jk-cat": lambda: pyg.GraphSAGE(6, 8, 3, 4, jk="cat", act="elu"),
    "gin": lambda: pyg.GIN(6, 8, 3, 4),
    "gin-eps": lambda: pyg.GIN(6, 8, 2, 4, train_eps=True, eps=0.3, **NODE_NORM),
    "gin-fixed-eps": lambda: pyg.GIN(6, 8, 2, 4, eps=0.7),
    "gin-max": lambda: pyg.GIN(6, 8, 2, 4, aggr="max", jk="cat"),
    "conv-alone": lambda: pyg.GCNConv(6, 4),
    "no-aggregation": lambda: pyg.Sequential("x, edge_index", [(nn.Linear(6, 4), "x -> x"), nn.LogSoftmax(dim=-1)]),
}


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", MODELS)
def test_models_agree_with_pyg(name, weighted, make_graph, exact):
    torch.manual_seed(3)
    model = MODELS[name]()
    takes_weight = weighted and ("gcn" in name or name == "conv-alone")
    exact(model, make_graph(weighted=takes_weight))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    num_nodes=st.integers(1, 17),
    num_edges=st.integers(0, 50),
    weighted=st.booleans(),
    name=st.sampled_from(["gcn", "gcn-improved", "sage-mean", "sage-max", "gin-eps", "sage-jk-cat"]),
)
def test_random_graphs(seed, num_nodes, num_edges, weighted, name, make_graph, exact):
    torch.manual_seed(seed)
    weighted = weighted and name.startswith("gcn")
    exact(MODELS[name](), make_graph(seed, num_nodes=num_nodes, num_edges=num_edges, weighted=weighted))


def test_two_sequentials_at_once(make_graph, exact):
    """PyG overwrites the class's forward with that of the instance made last."""
    first = pyg.Sequential(
        "x, edge_index, edge_weight",
        [
            (pyg.GCNConv(6, 8, bias=False), "x, edge_index, edge_weight -> h"),
            (nn.ReLU(inplace=True), "h -> r"),
            (nn.Dropout(0.4), "r -> r"),
            (pyg.SAGEConv(8, 8, aggr="max"), "r, edge_index -> s"),
            (lambda h, s: h + s, "h, s -> z"),
            (nn.Linear(8, 4), "z -> z"),
        ],
    )
    second = pyg.Sequential("x, edge_index", [(pyg.GINConv(nn.Linear(6, 4)), "x, edge_index -> x")])
    exact(first, make_graph(weighted=True))
    exact(second, make_graph())


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = pyg.GCNConv(6, 6)
        self.second = pyg.SAGEConv(6, 6)
        self.norm = nn.LayerNorm(6)
        self.gate = nn.Parameter(torch.tensor([0.3]))
        self.register_buffer("shift", torch.linspace(0, 1, 6))
        self.head = nn.Linear(12, 4)

    def forward(self, x, edge_index, edge_weight=None):
        h = self.norm(self.first(x, edge_index, edge_weight)).relu() + x
        a, b = (h * torch.sigmoid(self.gate) + self.shift).chunk(2, dim=1)
        g = h + functional.leaky_relu(self.second(h, edge_index), 0.1)
        out = self.head(torch.cat([g, b, a], dim=-1))
        return functional.log_softmax(out - out.mean(dim=-1, keepdim=True), dim=1)


class SharedMemory(nn.Module):
    """In-place operations whose effect is seen under other names."""

    def __init__(self):
        super().__init__()
        self.first = pyg.GCNConv(6, 8, bias=False)
        self.second = pyg.GCNConv(6, 8, bias=False)
        self.last = pyg.GCNConv(8, 4, bias=False)

    def forward(self, x, edge_index):
        h = self.first(x, edge_index)
        same = nn.functional.dropout(h, p=0.0)
        h += self.second(x, edge_index)
        h.mul_(0.5)
        torch.neg_(same)
        functional.relu(h, inplace=True)
        return self.last(h + same, edge_index)


class TwiceAggregated(nn.Module):
    """Aggregations straight after one another, and as the result."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(6, 4)
        self.conv = pyg.GCNConv(4, 4, bias=False)

    def forward(self, x, edge_index):
        z = self.lin(x)
        for _ in range(3):
            z = self.conv(z, edge_index)
        return z


@pytest.mark.parametrize("model_class", [Residual, SharedMemory, TwiceAggregated])
def test_user_modules(model_class, make_graph, exact):
    torch.manual_seed(0)
    exact(model_class(), make_graph())


def test_weights_reach_a_user_module(make_graph, exact):
    exact(Residual(), make_graph(weighted=True))
    program = lower(Residual(), num_features=6, edges=EdgeInputs(weighted=True), rewrites=AS_WRITTEN)
    assert [a.adjacency.weighted for a in program.aggregations] == [True, False]


def test_gcn_program():
    model = pyg.GCN(6, 8, 2, 4, dropout=0.5, improved=True)
    program = lower(model, num_features=6, edges=EdgeInputs(weighted=True), rewrites=AS_WRITTEN)
    assert [(s.inputs, s.outputs) for s in program.segments] == [
        (("x",), ("h0",)),
        (("agg1",), ("h1",)),
        (("agg2",), ("logits",)),
    ]
    assert [(a.input, a.output) for a in program.aggregations] == [("h0", "agg1"), ("h1", "agg2")]
    assert program.aggregations[0].adjacency == Adjacency(weighted=True, normalization="gcn", self_loop_weight=2.0)
    assert program.widths == {"x": 6, "h0": 8, "agg1": 8, "h1": 4, "agg2": 4, "logits": 4}
    assert program.evaluates_apart


def test_sage_program_aggregates_features_and_stores_one_value_a_layer():
    program = lower(pyg.GraphSAGE(6, 8, 2, 4), num_features=6, edges=EdgeInputs(weighted=True), rewrites=AS_WRITTEN)
    assert [(s.inputs, s.outputs) for s in program.segments] == [
        ((), ()),
        (("x", "agg1"), ("h1",)),
        (("h1", "agg2"), ("logits",)),
    ]
    assert program.needs_grad == {"h1", "agg2", "logits"}
    assert not program.evaluates_apart


def test_unused_aggregations_are_dropped(make_graph, exact):
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = pyg.GCNConv(6, 8)
            self.lin = nn.Linear(6, 4)

        def forward(self, x, edge_index):
            self.conv(x, edge_index)
            return self.lin(x)

    program = exact(Unused(), make_graph())
    assert program.aggregations == ()
    assert len(program.segments) == 1


def test_aggregations_read_later_and_tensors_of_three_dimensions(make_graph, exact):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.sum = pyg.GINConv(nn.Identity(), train_eps=True)
            self.mean = pyg.SAGEConv(6, 6, root_weight=False)
            self.raw = pyg.GCNConv(6, 6, bias=False)
            self.raw.lin = nn.Identity()

        def forward(self, x, edge_index):
            pulled = self.raw(x, edge_index)  # the aggregation itself, read at stages 1 and 3
            s, t = self.sum(x, edge_index), self.mean(x, edge_index)
            both = torch.stack([s, t, pulled], dim=1)
            u = self.mean(both.max(dim=1)[0], edge_index)
            v = self.sum(u, edge_index)
            return v + pulled + both.view(-1, 2, 9)[:, :, :3].flatten(start_dim=1)

    exact(Model(), make_graph())
    program = exact(Model(), make_graph(), AS_WRITTEN)
    assert program.last_stage == 3
    readers = [segment.stage for segment in program.segments if {"agg1", "agg1_2", "agg1_3"} & set(segment.inputs)]
    assert readers == [1]


def test_frozen_parameters(make_graph, exact):
    model = pyg.GCN(6, 8, 2, 4)
    model.convs[0].requires_grad_(False)
    program = exact(model, make_graph(), AS_WRITTEN)
    assert program.needs_grad == {"h1", "agg2", "logits"}
    assert [len(segment.parameters) for segment in program.segments] == [0, 1, 1]


def test_parameters_are_the_users_own(make_graph, run):
    model, graph = pyg.GCN(6, 8, 2, 4), make_graph()
    program = lower(model, num_features=6)
    before = run(program, graph)["logits"]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    after = run(program, graph)["logits"]
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, model.eval()(graph.x, graph.edge_index), rtol=1e-5, atol=1e-5)


def test_the_model_is_left_as_it_was():
    model = pyg.Sequential(
        "x, edge_index",
        [(pyg.GCNConv(6, 8), "x, edge_index -> x"), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 4)],
    )
    model.eval()
    model[1].train()
    modes = [module.training for module in model.modules()]
    attributes = [(list(vars(module)), list(module._modules)) for module in model.modules()]
    keys, state = list(model.state_dict()), torch.get_rng_state()
    lower(model, num_features=6)
    assert [module.training for module in model.modules()] == modes
    assert [(list(vars(module)), list(module._modules)) for module in model.modules()] == attributes
    assert list(model.state_dict()) == keys
    assert model[1].inplace
    assert torch.equal(torch.get_rng_state(), state)


def test_segments_leave_their_inputs_alone(make_graph, run):
    model = pyg.Sequential(
        "x, edge_index", [(pyg.GCNConv(6, 8, bias=False), "x, edge_index -> x"), nn.ReLU(inplace=True), nn.Linear(8, 4)]
    )
    program = lower(model, num_features=6, rewrites=AS_WRITTEN)
    pulled = -torch.ones(3, 8)
    program.segments[1].run([pulled], RowContext(start=0, seed=0, epoch=0, training=True))
    assert torch.equal(pulled, -torch.ones(3, 8))


def test_dropout_does_not_depend_on_tiles_and_draws_again(make_graph, run):
    torch.manual_seed(0)
    program = lower(pyg.GCN(6, 32, 3, 4, dropout=0.5), num_features=6)
    graph = make_graph(num_nodes=23)
    epoch = RowContext(start=0, seed=7, epoch=1, training=True)
    first = run(program, graph, epoch, tile=23)["logits"]
    torch.testing.assert_close(run(program, graph, epoch, tile=5)["logits"], first, rtol=1e-5, atol=1e-6)
    other = RowContext(start=0, seed=7, epoch=2, training=True)
    assert not torch.allclose(run(program, graph, other)["logits"], first)


def test_segments_run_in_several_threads():
    torch.manual_seed(0)
    program = lower(pyg.GCN(6, 32, 2, 4, dropout=0.3), num_features=6, rewrites=AS_WRITTEN)
    segment, value = program.segments[1], torch.randn(64, 32)

    def run_rows(start):
        rows = RowContext(start=start, seed=1, epoch=1, training=True)
        with torch.no_grad():
            return segment.run([value], rows)[0]

    expected = [run_rows(start) for start in range(16)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run_rows, range(16)))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
