"""From what was asked on the command line to a trainer."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch_geometric.data import Data, HeteroData
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import BaseStorage, EdgeStorage, GlobalStorage, NodeStorage

from flexgnn.core.errors import ConfigError, GraphError
from flexgnn.core.graph.order import NodeOrder
from flexgnn.core.graph.store import GraphInfo, GraphStore
from flexgnn.core.program.rewrites import all_but
from flexgnn.core.runtime.early_stopping import EarlyStopping
from flexgnn.core.runtime.events import Listener
from flexgnn.core.runtime.matmul_precision import MATMUL_PRECISIONS
from flexgnn.core.runtime.trainer import Trainer
from flexgnn.core.tier_spec import parse_pairs
from flexgnn.datasets import load_dataset
from flexgnn.models import build_model


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A run of the command line."""

    dataset: str
    """Name of a data set, or path of a graph store."""
    model: str
    layers: int
    hidden: int
    """Width of hidden layers."""
    dropout: float
    learning_rate: float
    norm: str | None = None
    """Of hidden layers, one of :data:`~flexgnn.models.NORMS`."""
    heads: int = 4
    """Of attention."""
    epochs: int
    eval_every: int
    """Epochs from one evaluation to the next, where dropout or a batch norm makes evaluation a pass of its own."""
    patience: int | None = None
    """Evaluations to wait for a better validation score; None: all epochs are run, and the last weights kept."""
    planner: str
    plan: str | None
    """File of a saved plan to follow."""
    storage_dtype: str
    """Of the values and gradients that steps leave for each other."""
    matmul_precision: str = MATMUL_PRECISIONS[0]
    no_rewrite: list[str] | None
    """Names of rewrites that are left out."""
    ssd_backend: str
    ssd_path: str | None
    ssd_option: list[str] | None
    """``NAME=VALUE`` each."""
    tier: list[str] | None
    """As :meth:`~flexgnn.core.tier_spec.TierSpec.parse` takes them."""
    place: list[str] | None
    """``TENSORS=TIER`` each."""
    verify: bool
    device: str
    device_memory: str | None
    host_memory: str | None
    seed: int

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ConfigError(f"The learning rate {self.learning_rate} is not accepted: it must be above 0.")
        if self.epochs < 1 or self.eval_every < 1:
            raise ConfigError(f"epochs ({self.epochs}) and eval_every ({self.eval_every}) must be at least 1.")
        self.callbacks()

    def callbacks(self) -> list[EarlyStopping]:
        """What is to be done in the course of training.

        Raises:
            ConfigError: if the patience is less than 1.
        """
        return [] if self.patience is None else [EarlyStopping(patience=self.patience)]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return dict(vars(self))


def open_graph(dataset: str) -> GraphStore:
    """The data set of that name, or the graph store at that path."""
    return GraphStore.open(dataset) if Path(dataset).exists() or "/" in dataset else load_dataset(dataset)


def configured_model(config: RunConfig, info: GraphInfo) -> torch.nn.Module:
    """The model of ``config`` for the graph of ``info``, initialised from torch's random state."""
    return build_model(
        config.model,
        info,
        layers=config.layers,
        hidden=config.hidden,
        dropout=config.dropout,
        norm=config.norm,
        heads=config.heads,
    )


def make_trainer(config: RunConfig, store: GraphStore, listeners: tuple[Listener, ...] = ()) -> Trainer:
    """A trainer for ``config``: seeds torch, builds the model, and Adam over its parameters."""
    torch.manual_seed(config.seed)
    model = configured_model(config, store.info)
    return Trainer(
        model,
        store,
        torch.optim.Adam(model.parameters(), lr=config.learning_rate),
        device=config.device,
        device_memory=config.device_memory,
        host_memory=config.host_memory,
        ssd_backend=config.ssd_backend,
        ssd_path=config.ssd_path,
        ssd_options=parse_pairs(config.ssd_option or []),
        tiers=config.tier or [],
        place=parse_pairs(config.place or []),
        verify=config.verify,
        planner=config.planner,
        plan=config.plan,
        rewrites=all_but(config.no_rewrite or []),
        storage_dtype=config.storage_dtype,
        matmul_precision=config.matmul_precision,
        seed=config.seed,
        listeners=listeners,
    )


def restore_trainer(run: Path, listeners: tuple[Listener, ...] = ()) -> Trainer:
    """The trainer of a recorded run, with the parameters that it trained.

    Raises:
        ConfigError: if ``run`` is not the output of a finished run.
    """
    try:
        config = RunConfig(**json.loads((run / "config.json").read_text(encoding="utf-8")))
        trainer = make_trainer(config, open_graph(config.dataset), listeners)
        load_model(trainer.model, run / "model.safetensors")
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"{run} is not the output of a finished run: {error}.") from error
    return trainer


def import_file(
    source: Path, path: Path, *, order: str, task: str | None, overwrite: bool, on_order: Callable[[NodeOrder], None]
) -> GraphStore:
    """Import a PyG ``Data`` that was saved with ``torch.save``; see :meth:`GraphStore.from_pyg`.

    Raises:
        GraphError: if the file can't be read as one, or can't be trained on.
    """
    allowed: list[Any] = [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]
    allowed += [HeteroData, BaseStorage, EdgeStorage, NodeStorage]  # to be refused by name
    known = torch.serialization.get_safe_globals()  # PyG's own, which would be gone at the end of the context
    try:
        with torch.serialization.safe_globals([cls for cls in allowed if cls not in known]):
            data = torch.load(source, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = _foreign_class(error) or str(error).splitlines()[0]
        raise GraphError(f"{source} can't be read as a PyG Data saved with torch.save: {reason}") from error
    return GraphStore.from_pyg(data, path, order=order, task=task, overwrite=overwrite, on_order=on_order)


def _foreign_class(error: Exception) -> str | None:
    """What the file holds beside graphs, which torch names in the middle of a long text."""
    found = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
    if found is None:
        return None
    if found[1].endswith("AttrType"):
        return "it holds what transforms noted of the graph: save Data.from_dict(data.to_dict()) in place of data."
    return f"it holds a {found[1]}."
