"""The models that the command line builds: PyG's own."""

from __future__ import annotations

import torch
from torch_geometric.nn import GCN, GIN, GraphSAGE

from flexgnn.core.errors import ConfigError
from flexgnn.core.graph.store import GraphInfo

MODELS = {"gcn": GCN, "gin": GIN, "sage": GraphSAGE}
"""By the name of ``--model``."""


def build_model(name: str, info: GraphInfo, *, layers: int, hidden: int, dropout: float) -> torch.nn.Module:
    """A model for the graph of ``info``, initialised from torch's random state.

    It has ``layers`` layers of width ``hidden``.

    Raises:
        ConfigError: if a setting is not accepted.
    """
    if name not in MODELS:
        raise ConfigError(f"There is no model {name!r}. There are: {', '.join(MODELS)}.")
    if layers < 1 or hidden < 1:
        raise ConfigError(f"layers ({layers}) and hidden ({hidden}) must be at least 1.")
    if not 0 <= dropout < 1:
        raise ConfigError(f"The dropout {dropout} is not accepted: give a share from 0 up to, not including, 1.")
    model: torch.nn.Module = MODELS[name](
        info.num_features, hidden, num_layers=layers, out_channels=info.num_classes, dropout=dropout
    )
    return model
