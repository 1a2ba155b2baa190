"""Models that benchmarks train, by name: PyG's own, and stacks of one convolution."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import Linear, ModuleList, ReLU, Sequential
from torch_geometric.nn import GAT, EdgeConv, GENConv, MessagePassing, ResGatedGraphConv

from flexgnn.core.graph.store import GraphInfo
from flexgnn.models import build_model

MODELS = ("gcn", "sage", "gat", "gatv2")
"""PyG's, as the command line builds them."""
ATTENTION = ("gat", "gatv2")
"""Those of them that take heads."""
GAT_AND_LINEAR = "gat and linear"
"""A GAT whose heads stand side by side in every layer, the last one too, and a linear layer after them.

It is as wide with any number of heads; in PyG's plain GAT each head of the last layer has all classes.
"""


def _edge_conv(num_inputs: int, num_outputs: int) -> EdgeConv:
    return EdgeConv(Sequential(Linear(2 * num_inputs, num_outputs), ReLU(), Linear(num_outputs, num_outputs)))


CONVOLUTIONS: dict[str, Callable[[int, int], MessagePassing]] = {
    "GENConv": partial(GENConv, norm="layer"),
    "ResGatedGraphConv": ResGatedGraphConv,
    "EdgeConv": _edge_conv,
}
"""Convolutions without a rule in FlexGNN, by the name of a model that has nothing else."""


class Stack(torch.nn.Module):
    """Convolutions with a ReLU between them."""

    def __init__(self, make: Callable[[int, int], MessagePassing], widths: list[int]) -> None:
        super().__init__()
        self.convs = ModuleList(make(*ends) for ends in pairwise(widths))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Logits."""
        for conv in self.convs[:-1]:
            x = conv(x, edge_index).relu()
        logits: Tensor = self.convs[-1](x, edge_index)
        return logits


def build(
    name: str, info: GraphInfo, *, layers: int, hidden: int, heads: int, dropout: float, seed: int
) -> torch.nn.Module:
    """The model ``name`` for the graph of ``info``, with parameters that follow from ``seed``."""
    torch.manual_seed(seed)
    if name in CONVOLUTIONS:
        return Stack(CONVOLUTIONS[name], [info.num_features, *[hidden] * (layers - 1), info.num_classes])
    if name == GAT_AND_LINEAR:
        return GAT(info.num_features, hidden, layers, info.num_classes, heads=heads, dropout=dropout, jk="last")
    return build_model(name, info, layers=layers, hidden=hidden, heads=heads, dropout=dropout)
