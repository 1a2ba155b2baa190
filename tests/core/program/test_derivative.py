"""Derivatives of segments against autograd over the same functions, and what they leave out."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from flexgnn.core.program.dropout import dropout
from flexgnn.core.program.lower import lower
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.program.segments import run_backward, run_forward

TRAINING = RowContext(start=3, seed=5, epoch=1, training=True)


class Wide(nn.Module):
    """A row-local network of operations with and without rules of their own."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 8, bias=False)
        self.norm, self.act = nn.LayerNorm(8), nn.PReLU(8)
        self.factor, self.frozen = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.rand(8), requires_grad=False)

    def forward(self, x):
        a = self.first(x).relu()
        left, right = torch.chunk(self.norm(a) + a, 2, dim=1)
        b = torch.cat([right, left.sigmoid() * right], dim=-1) * self.factor
        c = 2 * (self.second(b) + self.frozen) + a
        values, _ = torch.stack([c, b], dim=1).max(dim=1)
        return self.act(values + b) + values * values


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.conv = Wide(), pyg.SAGEConv(8, 4)

    def forward(self, x, edge_index):
        return self.conv(torch.nn.functional.dropout(self.wide(x), 0.4, self.training), edge_index)


class Products(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in ("mm", "addmm")
        return func(*args, **(kwargs or {}))


def test_any_operation_agrees_with_autograd():
    torch.manual_seed(1)
    model = Network()
    program = lower(model, num_features=6, rewrites=("gradients", "fuse"))
    segment, x = program.segments[0], torch.randn(9, 6)
    upstream = {name: torch.randn(9, program.widths[name]) for name in segment.outputs}
    inputs, found = run_backward(segment, {"x": x}, TRAINING, program.needs_grad, lambda _: upstream)
    assert inputs == {}
    (name,) = segment.outputs
    out = model.wide(x) * dropout(torch.ones(9, 8), 0.4, 0, TRAINING)
    torch.testing.assert_close(run_forward(segment, {"x": x}, TRAINING)[name], out)
    expected = torch.autograd.grad(out, segment.parameters, upstream[name])
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert len(found) == 7, "weights and biases, of norm and activation too, and the factor, but not what is frozen"


@pytest.mark.parametrize(("stage", "products"), [(0, 1 + 2 + 1), (1, 0 + 2), (2, 0)])
def test_products_that_no_gradient_needs_are_left_out(stage, products):
    """Of segment 0, relu(x A + b) B: the first again, two for B, one for A. Of segment 1, relu(z + b) C: two for C."""
    program = lower(pyg.GCN(6, 8, 3, 4), num_features=6)
    segment = program.segments[stage]
    values = {name: torch.randn(5, program.widths[name]) for name in segment.inputs}
    given = {name: torch.randn(5, program.widths[name]) for name in segment.outputs}
    with Products() as counted:
        run_backward(segment, values, TRAINING, program.needs_grad, lambda _: given)
    assert counted.count == products


@pytest.mark.parametrize("stage", [0, 1])
def test_inputs_and_given_gradients_are_left_alone(stage):
    program = lower(pyg.GraphSAGE(6, 8, 3, 4, dropout=0.5), num_features=6)
    segment = program.segments[stage]
    values = {name: torch.randn(5, program.widths[name]) for name in segment.inputs}
    given = {name: torch.randn(5, program.widths[name]) for name in segment.outputs}
    before = [tensor.clone() for tensor in (*values.values(), *given.values())]
    run_backward(segment, values, TRAINING, program.needs_grad, lambda _: given)
    run_forward(segment, values, TRAINING)
    assert all(torch.equal(a, b) for a, b in zip(before, (*values.values(), *given.values()), strict=True))


def test_a_value_that_is_read_again_is_not_written_over():
    """Of relu(x A): the sum reads it after the second ReLU did."""
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU())

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.conv = net, pyg.GCNConv(8, 4)

        def forward(self, x, edge_index):
            a = self.net[0](x)
            return self.conv(torch.relu(a) + a, edge_index)

    program = lower(Twice(), num_features=6, rewrites=("gradients", "fuse"))
    x = torch.randn(5, 6)
    (found,) = run_forward(program.segments[0], {"x": x}, TRAINING).values()
    a = net[0](x)
    torch.testing.assert_close(found, (torch.relu(a) + a) @ program.segments[0].parameters[-1].t())
