"""Every model that can't be lowered exactly is refused, with the module's name, the reason and a remedy."""

from __future__ import annotations

import random

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch.nn import functional
from torch_geometric.utils import add_self_loops, dropout_edge

from flexgnn.core.errors import LoweringError
from flexgnn.core.program.edge_inputs import EdgeInputs
from flexgnn.core.program.lower import lower


def sequential(*layers):
    """Layers over rows, after one convolution from 6 to 8 columns."""
    return pyg.Sequential("x, edge_index", [(pyg.GCNConv(6, 8), "x, edge_index -> x"), *layers])


def forward(function, **modules):
    """A module whose forward is ``function(self, x, edge_index)``, with a convolution of 6 to 8 columns ``conv``."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = pyg.GCNConv(6, 8)
            for name, module in modules.items():
                setattr(self, name, module)

        def forward(self, x, edge_index):
            return function(self, x, edge_index)

    return Model()


def refusal(model, weighted=False, num_features=6):
    with pytest.raises(LoweringError) as error:
        lower(model, num_features=num_features, edges=EdgeInputs(weighted=weighted))
    return str(error.value)


class Frozen(nn.Sequential):
    """A batch norm that stays in evaluation."""

    def __init__(self, width):
        super().__init__(nn.BatchNorm1d(width))

    def train(self, mode=True):
        return super().train(False)


def changed(norm):
    norm.track_running_stats = False
    return norm


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (
            lambda: pyg.GCN(6, 8, 2, 4, norm=pyg.DiffGroupNorm(8, 2)),
            ["norms.0 (DiffGroupNorm)", "GraphNorm, InstanceNorm"],
        ),
        (lambda: sequential(nn.SyncBatchNorm(8)), ["module_1 (SyncBatchNorm)", "a norm that FlexGNN can't lower"]),
        (lambda: sequential(nn.BatchNorm1d(7)), ["module_1 (BatchNorm1d)", "7 channels, its input 8"]),
        (lambda: sequential(pyg.GraphNorm(7)), ["module_1 (GraphNorm) doesn't accept its input"]),
        (lambda: sequential(nn.Unflatten(1, (2, 4))), ["module_1 (Unflatten)"]),
        (
            lambda: sequential(pyg.InstanceNorm(8, momentum=None, track_running_stats=True)),
            ["module_1 (InstanceNorm)", "momentum=None", "give it a number"],
        ),
        (lambda: sequential(changed(nn.BatchNorm1d(8))), ["module_1 (BatchNorm1d)", "track_running_stats", "False"]),
        (lambda: sequential(Frozen(8)), ["(BatchNorm1d)", "in evaluation while the model is in training", "train()"]),
        (lambda: pyg.GCN(6, 8, 2, 4, jk="lstm"), ["jk.lstm (LSTM)", "for jk: 'cat'"]),
        (lambda: sequential(nn.GRU(8, 8)), ["module_1 (GRU)", "recurrent"]),
        (lambda: sequential(nn.MultiheadAttention(8, 2)), ["module_1 (MultiheadAttention)", "attends across rows"]),
        (lambda: sequential(nn.AlphaDropout(0.5)), ["module_1 (AlphaDropout)", "Dropout"]),
        (lambda: sequential(nn.RReLU()), ["module_1 (RReLU)", "LeakyReLU"]),
        (lambda: sequential(nn.Softmax(dim=0)), ["module_1 (Softmax)", "works over rows (dim=0)"]),
        (lambda: sequential(nn.LayerNorm((5, 8))), ["module_1 (LayerNorm)", "normalises over rows"]),
        (lambda: sequential(nn.Bilinear(8, 8, 4)), ["module_1 (Bilinear)", "not known to work on each row alone"]),
    ],
)
def test_modules(model, named):
    message = refusal(model())
    assert all(name in message for name in named), message


@pytest.mark.parametrize(
    ("norm", "function", "named"),
    [
        (
            pyg.GraphNorm(8),
            lambda self, x, e: self.norm(x, e[0]),
            "norm (GraphNorm) is called with more than one tensor",
        ),
        (
            nn.BatchNorm1d(2),
            lambda self, x, e: self.norm(x.view(-1, 2, 4)).flatten(1),
            "norm (BatchNorm1d) takes statistics of a tensor that isn't N x D",
        ),
        (
            pyg.BatchNorm(8),
            lambda self, x, e: (self.norm(x), x)[1],
            "norm (BatchNorm) keeps running statistics of what nothing uses",
        ),
        (nn.BatchNorm1d(8), lambda self, x, e: functional.batch_norm(x, None, None, training=True), "'batch_norm'"),
    ],
)
def test_uses_of_norms(norm, function, named):
    model = forward(lambda self, x, e: function(self, self.conv(x, e), e), norm=norm)
    assert named in refusal(model)


@pytest.mark.parametrize(
    ("conv", "named"),
    [
        (lambda: pyg.SAGEConv(6, 8, flow="target_to_source"), ["conv (SAGEConv)", "flow='target_to_source'"]),
        (lambda: pyg.GCNConv(6, 8, node_dim=1), ["conv (GCNConv)", "node_dim=1"]),
        (lambda: pyg.GCNConv(6, 8, decomposed_layers=2), ["conv (GCNConv)", "decomposed_layers=2"]),
        (lambda: pyg.GCNConv(-1, 8), ["conv.lin.weight", "not initialised", "in_channels"]),
        (lambda: pyg.GINConv(nn.GroupNorm(2, 6)), ["conv.nn (GroupNorm)"]),
    ],
)
def test_convolutions(conv, named):
    message = refusal(forward(lambda self, x, edge_index: self.conv(x, edge_index), conv=conv()))
    assert all(name in message for name in named), message


NODE_TYPES, EDGE_TYPES = ["a", "b"], [("a", "to", "b"), ("b", "to", "a")]


@pytest.mark.parametrize(
    "conv",
    [
        lambda: pyg.HGTConv(6, 8, (NODE_TYPES, EDGE_TYPES)),
        lambda: pyg.HANConv(6, 8, (NODE_TYPES, EDGE_TYPES)),
        lambda: pyg.HeteroConv({edges: pyg.SAGEConv(6, 8) for edges in EDGE_TYPES}),
    ],
)
def test_convolutions_over_types(conv):
    """Also where the model's forward takes types, which tracing would stumble over."""

    class Typed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv()

        def forward(self, x, edge_index, edge_type):
            return self.conv(x, edge_index, edge_type)

    model = Typed()
    message = refusal(model)
    assert message.startswith(f"conv ({type(model.conv).__name__}) works on types of nodes"), message
    assert "HeteroData.to_homogeneous()" in message


def test_models_made_heterogeneous():
    model, types = pyg.GraphSAGE(6, 8, 2, 4), (NODE_TYPES, EDGE_TYPES)
    for typed in (pyg.to_hetero(model, types), pyg.to_hetero_with_bases(model, types, 2, {"x": 6})):
        assert "The model that to_hetero made works on types of nodes" in refusal(typed)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda self, x, e: self.conv(x, add_self_loops(e)[0]), ["Model", "can't be traced"]),
        (lambda self, x, e: self.conv(x, e.flip(0)), ["conv (GCNConv)", "edge_index that isn't the model's own"]),
        (lambda self, x, e: self.conv(x, e, x.sum(1)), ["conv (GCNConv)", "edge_weight that isn't the model's own"]),
        (lambda self, x, e: self.conv((x, x), e), ["conv (GCNConv)", "tuple"]),
        (lambda self, x, e: self.conv(x, e, edge_attr=x), ["conv (GCNConv)", "wrong arguments"]),
        (lambda self, x, e: self.conv(x, dropout_edge(e)[0]), ["edge_index that isn't the model's own"]),
        (lambda self, x, e: self.conv(x, e) + e.sum(), ["'sum'", "reads edge_index"]),
        (lambda self, x, e: x - x.mean(), ["'mean'", "works over rows"]),
        (lambda self, x, e: x - x.mean(dim=0), ["'mean'", "works over rows (dim=0)"]),
        (lambda self, x, e: x.sum((0, 1)), ["'sum'", "works over rows"]),
        (lambda self, x, e: x / x.norm(), ["'norm'", "works over rows"]),
        (lambda self, x, e: torch.softmax(x, 0), ["'softmax'", "works over rows"]),
        (lambda self, x, e: functional.normalize(x, dim=0), ["'normalize'", "works over rows"]),
        (lambda self, x, e: torch.cat([x, x]), ["'cat'", "works over rows"]),
        (lambda self, x, e: torch.stack([x, x], dim=-3), ["'stack'", "works over rows"]),
        (lambda self, x, e: x[:3], ["'getitem'", "picks rows"]),
        (lambda self, x, e: x[0], ["'getitem'", "picks rows"]),
        (lambda self, x, e: x.flip(0), ["'flip'", "not an operation that FlexGNN knows"]),
        (lambda self, x, e: x @ x.t(), ["'t'", "transposes rows"]),
        (lambda self, x, e: x.transpose(0, 1), ["'transpose'", "works over rows"]),
        (lambda self, x, e: x.view(5, 6), ["'view'", "number of rows"]),
        (lambda self, x, e: x.view(-1, 3), ["'view'", "one row a node"]),
        (lambda self, x, e: x * x.sum(dim=1), ["'mul'", "along another dimension"]),
        (lambda self, x, e: x * x.size(0), ["'size'", "not an operation that FlexGNN knows"]),
        (lambda self, x, e: x * x.shape[0], ["'shape'", "not an operation that FlexGNN knows"]),
        (lambda self, x, e: functional.dropout(x, 0.5), ["'dropout'", "training=self.training"]),
        (
            lambda self, x, e: functional.alpha_dropout(x, 0.5),
            ["'alpha_dropout'", "not an operation that FlexGNN knows"],
        ),
        (lambda self, x, e: x + torch.randn_like(x), ["'randn_like'", "not an operation that FlexGNN knows"]),
        (lambda self, x, e: x + torch.randn(6), ["makes a tensor", "buffer"]),
        (lambda self, x, e: x + torch.ones(5, 6), ["makes a tensor", "buffer"]),
        (lambda self, x, e: x if self.training else 2 * x, ["in evaluation"]),
        (lambda self, x, e: x * random.random(), ["in evaluation"]),
        (lambda self, x, e: x if x.sum() > 0 else -x, ["Model", "can't be traced"]),
        (lambda self, x, e: next(iter(x)), ["Model", "can't be traced"]),
        (lambda self, x, e: x.sum(dim=1), ["the model returns a tensor of shape (N)"]),
        (lambda self, x, e: (self.conv(x, e), x), ["the model returns a tuple"]),
        (lambda self, x, e: x, ["the model returns its input"]),
        (lambda self, x, e: self.conv.bias, ["the model returns", "doesn't depend on it"]),
        (lambda self, x, e: x[:, :4].add_(1), ["'add_'", "views"]),
        (lambda self, x, e: x + self.conv.bias[:6].add_(1), ["'add_'"]),
        (lambda self, x, e: self.conv.bias.add_(1) + self.conv(x, e), ["'add_'", "parameter or buffer"]),
        (lambda self, x, e: torch.add(x, 1, out=x), ["'add'", "writes into another tensor"]),
    ],
)
def test_functions(function, named):
    message = refusal(forward(function))
    assert all(name in message for name in named), message


def test_in_place_after_a_view_was_taken():
    def function(self, x, edge_index):
        h = self.conv(x, edge_index)
        left = h[:, :4]
        torch.relu_(h)
        return left

    assert "views" in refusal(forward(function))


def test_a_parameter_with_a_value_for_each_row():
    model = forward(lambda self, x, e: x + self.table)
    model.table = nn.Parameter(torch.zeros(5, 6))
    assert "a value for each row" in refusal(model)


def test_other_dtypes():
    assert "torch.float64" in refusal(pyg.GCN(6, 8, 2, 4).double())


@pytest.mark.parametrize(
    "register", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"]
)
def test_hooks(register):
    model = pyg.GCN(6, 8, 2, 4)
    getattr(model.convs[1].lin, register)(lambda *_: None)
    assert "convs.1.lin (Linear) has " in refusal(model)


def test_hooks_of_a_convolution():
    model = pyg.GCN(6, 8, 2, 4)
    model.convs[0].register_message_forward_hook(lambda *_: None)
    assert "convs.0 (GCNConv) has hooks (message_forward_hooks)" in refusal(model)


def test_explain_mode():
    model = pyg.GraphSAGE(6, 8, 2, 4)
    model.convs[0].explain = True
    assert "convs.0 (SAGEConv) is in explain mode" in refusal(model)


def test_wrong_number_of_features():
    message = refusal(pyg.GCN(6, 8, 2, 4), num_features=7)
    assert "convs.0.lin (Linear)" in message
    assert "doesn't accept its input" in message


def test_forward_with_other_arguments():
    class OnData(nn.Module):
        def forward(self, data):
            return data.x

    assert "its forward must take x, edge_index and what edges have" in refusal(OnData())


def test_modes_are_restored_after_a_refusal():
    model = sequential(nn.SyncBatchNorm(8)).eval()
    refusal(model)
    assert not any(module.training for module in model.modules())
