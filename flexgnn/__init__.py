"""FlexGNN: train graph neural networks on whole graphs, exactly, in a memory budget that you name."""

from flexgnn.core.errors import FlexGNNError
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.program.links import LinkPrediction
from flexgnn.core.runtime.callbacks import Callback
from flexgnn.core.runtime.early_stopping import EarlyStopping
from flexgnn.core.runtime.trainer import Trainer
from flexgnn.core.tier_spec import TierSpec
from flexgnn.datasets import load_dataset

__all__ = [
    "Callback",
    "EarlyStopping",
    "FlexGNNError",
    "GraphStore",
    "LinkPrediction",
    "TierSpec",
    "Trainer",
    "hookimpl",
    "load_dataset",
]
