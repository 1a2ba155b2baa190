"""Refuses models of graphs with several types of nodes or edges, by name, before they are traced."""

from __future__ import annotations

from typing import get_origin

import torch
from torch.fx import GraphModule
from torch_geometric import nn as pyg

from flexgnn.core.errors import LoweringError
from flexgnn.core.program.refusals import describe, refuse

_TYPED = (
    pyg.FastRGCNConv,
    pyg.HANConv,
    pyg.HEATConv,
    pyg.HGTConv,
    pyg.HeteroConv,
    pyg.HeteroDictLinear,
    pyg.HeteroLinear,
    pyg.RGATConv,
    pyg.RGCNConv,
)


def check_homogeneous(model: torch.nn.Module) -> None:
    """Refuse a model that works on types of nodes or edges: of ``to_hetero``, or with a module that does.

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
        "works on types of nodes or edges, which FlexGNN can't train on yet",
        "train a homogeneous model, of GCNConv or GATConv for example, on HeteroData.to_homogeneous()",
    )
