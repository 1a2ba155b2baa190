"""Refuses models of graphs with several types of nodes, by name, before they are traced."""

from __future__ import annotations

from typing import get_origin

import torch
from torch.fx import GraphModule
from torch_geometric import nn as pyg

from flexgnn.core.errors import LoweringError
from flexgnn.core.program.refusals import describe, refuse

_TYPED = (
    pyg.HANConv,
    pyg.HEATConv,
    pyg.HGTConv,
    pyg.HeteroConv,
    pyg.HeteroDictLinear,
    pyg.HeteroLinear,
)


def check_homogeneous(model: torch.nn.Module) -> None:
    """Refuse a model that works on types of nodes: of ``to_hetero``, or with a module that does.

    Raises:
        LoweringError: with the module's path and class, the reason, and what to use instead.
    """
    if isinstance(model, GraphModule) and _takes_dictionaries(model):
        raise _refusal("The model that to_hetero made")
    for path, module in model.named_modules():
        if isinstance(module, _TYPED):
            raise _refusal(describe(path, type(module)))


def _takes_dictionaries(model: GraphModule) -> bool:
    """PyG's transformers annotate their inputs as dictionaries by type."""
    return any(node.op == "placeholder" and get_origin(node.type) is dict for node in model.graph.nodes)


def _refusal(what: str) -> LoweringError:
    return refuse(
        what,
        "works on types of nodes, which FlexGNN can't train on yet",
        "train a model of GCNConv, GATConv, or RGCNConv with edge_type, on HeteroData.to_homogeneous()",
    )
