"""Attention: dropout of weights, edges that occur twice, nodes without neighbours, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GATv2Conv, TransformerConv
from torch_geometric.utils import add_self_loops, remove_self_loops, softmax

from flexgnn import Trainer
from flexgnn.core.errors import LoweringError
from flexgnn.core.program.dropout import draw, key_of, threshold_of
from flexgnn.core.program.rewrites import all_but
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import small_graph, smallest_budget, store_of, train_with_flexgnn, train_with_pyg

DROPOUT, SEED, HEADS = 0.4, 3, 6


class OneLayer(torch.nn.Module):
    """One convolution, from features to classes."""

    def __init__(self, conv: torch.nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out: Tensor = self.conv(x, edge_index)
        return out


def mask_of_edges(edges: Tensor, positions: Tensor) -> Tensor:
    """E x H: the mask of the first epoch, drawn from positions and the number of an edge among its parallels."""
    key_0, key_1 = key_of(SEED, 1)
    seen: dict[tuple[int, int], int] = {}
    rows = []
    for source, target in positions[edges].T.tolist():
        parallel = seen.get((source, target), 0)
        seen[source, target] = parallel + 1
        words = np.empty(4 * 2, dtype=np.uint32)
        for group in range(2):
            counter = np.uint64(source << 32 | target)
            third, site = np.uint32(group << 20 | parallel), np.uint32(0)
            draw(counter, 1, third, site, key_0, key_1, words[4 * group : 4 * group + 4])
        rows.append(words[:HEADS] >= threshold_of(DROPOUT))
    return torch.tensor(np.array(rows)) / (1 - DROPOUT)


def masked_gat(conv: GATConv, data: Data, edges: Tensor, mask: Tensor) -> Tensor:
    """What GATConv computes over ``edges``, with the given mask on its weights."""
    assert data.num_nodes is not None
    x = conv.lin(data.x).view(-1, conv.heads, conv.out_channels)
    source, target = edges
    scores = (x * conv.att_src).sum(-1)[source] + (x * conv.att_dst).sum(-1)[target]
    weights = softmax(functional.leaky_relu(scores, conv.negative_slope), target, num_nodes=data.num_nodes) * mask
    out = torch.zeros_like(x).index_add(0, target, weights[..., None] * x[source])
    return out.mean(1) + conv.bias


@pytest.mark.parametrize("self_loops", [True, False])
def test_dropout_is_that_of_a_reference_with_the_same_masks(self_loops: bool, tmp_path: Path) -> None:
    data = small_graph(num_nodes=40, num_edges=150, directed=True)
    store = store_of(data, tmp_path / "graph", chunk_rows=5)
    assert data.num_nodes is not None
    assert len({*map(tuple, data.edge_index.T.tolist())}) < data.edge_index.shape[1], "some edges occur twice"
    torch.manual_seed(0)
    conv = GATConv(5, 3, heads=HEADS, concat=False, dropout=DROPOUT, add_self_loops=self_loops)
    reference = copy.deepcopy(conv)
    positions = torch.empty(data.num_nodes, dtype=torch.long)
    positions[torch.from_numpy(store.read("node_ids", 0, data.num_nodes))] = torch.arange(data.num_nodes)
    edges = data.edge_index
    if self_loops:
        edges, _ = add_self_loops(remove_self_loops(edges)[0], num_nodes=data.num_nodes)
    logits = masked_gat(reference, data, edges, mask_of_edges(edges, positions))
    loss = functional.cross_entropy(logits[data.train_mask], data.y[data.train_mask])
    loss.backward()
    model = OneLayer(conv)
    trainer = Trainer(model, store, torch.optim.SGD(model.parameters(), lr=0.0), planner=GreedyPlanner(4), seed=SEED)
    assert trainer.fit(1)[0].loss == pytest.approx(float(loss.detach()), rel=1e-5)
    for (name, ours), expected in zip(conv.named_parameters(), reference.parameters(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_each_rewrite_can_be_left_out(tmp_path: Path) -> None:
    data = small_graph()
    store = store_of(data, tmp_path / "graph", chunk_rows=8)
    torch.manual_seed(0)
    model = OneLayer(GATv2Conv(5, 3, heads=2, concat=False))
    expected = train_with_pyg(model, data, 2, weighted=False)
    planner = GreedyPlanner(5)
    for name in ("order", "fold", "fuse", "gradients"):
        rewrites = all_but([name])
        budget = smallest_budget(model, store, planner, rewrites)
        ours = train_with_flexgnn(model, store, 2, planner=planner, device_memory=budget, rewrites=rewrites)
        assert ours.losses == pytest.approx(expected.losses, rel=1e-5)


def test_values_stored_as_bfloat16_leave_attention_as_it_is(tmp_path: Path) -> None:
    store = store_of(small_graph(), tmp_path / "graph", chunk_rows=8)
    torch.manual_seed(0)
    model = OneLayer(GATConv(5, 3))
    exact, rounded = (train_with_flexgnn(model, store, 2, storage_dtype=t) for t in ("float32", "bfloat16"))
    assert exact.losses == rounded.losses


@pytest.mark.parametrize(
    ("conv", "sentence"),
    [
        (lambda: GATConv(5, 3, edge_dim=2, dropout=0.5), r"conv \(GATConv\) draws random numbers; put dropout outside"),
        (lambda: TransformerConv(5, 3, edge_dim=2), r"conv \(TransformerConv\) doesn't accept its input"),
        (lambda: GATv2Conv(5, 3, flow="target_to_source"), r"conv \(GATv2Conv\) has flow='target_to_source'"),
    ],
)
def test_what_is_not_exact_is_refused(conv: Callable[[], torch.nn.Module], sentence: str, tmp_path: Path) -> None:
    store = store_of(small_graph(), tmp_path / "graph")
    model = OneLayer(conv())
    with pytest.raises(LoweringError, match=sentence):
        Trainer(model, store, torch.optim.SGD(model.parameters(), lr=0.1))
