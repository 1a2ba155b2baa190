"""The models that the command line builds: PyG's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch_geometric.nn import GAT, GCN, GIN, GraphSAGE

from flexgnn.core.errors import ConfigError
from flexgnn.core.graph.layout import LINKS
from flexgnn.core.graph.store import GraphInfo

MODELS: dict[str, Callable[..., torch.nn.Module]] = {
    "gcn": GCN,
    "gin": GIN,
    "sage": GraphSAGE,
    "gat": GAT,
    "gatv2": partial(GAT, v2=True),
}
"""By the name of ``--model``."""

_ATTENTION = ("gat", "gatv2")
"""Those that take heads."""

NORMS = ("batch_norm", "graph_norm", "instance_norm", "layer_norm")
"""Accepted by ``--norm``: as PyG names them, with its defaults."""


def build_model(
    name: str, info: GraphInfo, *, layers: int, hidden: int, dropout: float, norm: str | None = None, heads: int = 4
) -> torch.nn.Module:
    """A model for the graph of ``info``, initialised from torch's random state.

    It has ``layers`` layers of width ``hidden``, with one of :data:`NORMS` between them where ``norm`` names it. In
    models of attention, ``heads`` heads share the width, and are averaged in the last layer. Where links are predicted,
    the last layer is as wide as the others.

    Raises:
        ConfigError: if a setting is not accepted.
    """
    if name not in MODELS:
        raise ConfigError(f"There is no model {name!r}. There are: {', '.join(MODELS)}.")
    if layers < 1 or hidden < 1:
        raise ConfigError(f"layers ({layers}) and hidden ({hidden}) must be at least 1.")
    if not 0 <= dropout < 1:
        raise ConfigError(f"The dropout {dropout} is not accepted: give a share from 0 up to, not including, 1.")
    if norm is not None and norm not in NORMS:
        raise ConfigError(f"There is no norm {norm!r}. There are: {', '.join(NORMS)}.")
    if heads < 1:
        raise ConfigError(f"heads ({heads}) must be at least 1.")
    if name in _ATTENTION and hidden % heads:
        raise ConfigError(f"A width of {hidden} can't be shared by {heads} heads: give a multiple of heads.")
    return MODELS[name](
        info.num_features,
        hidden,
        num_layers=layers,
        out_channels=hidden if info.task == LINKS else info.num_classes,
        dropout=dropout,
        norm=norm,
        **({"heads": heads} if name in _ATTENTION else {}),
    )
