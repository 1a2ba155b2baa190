"""What is counted over the nodes of each split before training: how many there are, and what a loss is divided by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flexgnn.core.errors import ConfigError
from flexgnn.core.graph.layout import REGRESSION
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.program.criterion import TrainingLoss
from flexgnn.core.program.loss import TEST, TRAIN, VALIDATION

_PROBED = 8


@dataclass(frozen=True, kw_only=True)
class SplitSizes:
    """Numbers of nodes, and of what is scored at each."""

    training: int
    validation: int
    test: int
    scored: int
    """1, or with several labels a node, the number of labels."""
    task: str
    """One of :data:`~flexgnn.core.graph.layout.TASKS`."""

    def scores(self, sums: Sequence[float]) -> dict[str, float | None]:
        """Accuracies from right decisions, or mean absolute errors, named as in ``EpochRecord``; None for no nodes."""
        kind = "mae" if self.task == REGRESSION else "accuracy"
        sizes = {"train": self.training, "val": self.validation, "test": self.test}
        return {
            f"{split}_{kind}": total / (size * self.scored) if size else None
            for (split, size), total in zip(sizes.items(), sums, strict=True)
        }


def count_splits(store: GraphStore) -> SplitSizes:
    """Count the nodes of each split, chunk by chunk."""
    info = store.info
    counts = np.zeros(8, dtype=np.int64)
    for start, stop in _chunks(store):
        counts += np.bincount(store.read("split", start, stop), minlength=8)
    training, validation, test = (
        int(sum(counts[flags] for flags in range(8) if flags & flag)) for flag in (TRAIN, VALIDATION, TEST)
    )
    scored = info.label_columns or 1
    return SplitSizes(training=training, validation=validation, test=test, scored=scored, task=info.task)


def loss_divisor(store: GraphStore, loss: TrainingLoss) -> float:
    """What ``loss`` is divided by: over all training nodes, chunk by chunk.

    Raises:
        ConfigError: if it is not above 0.
    """
    if loss.divisor is None:
        return 1
    divisor = sum(loss.divisor(labels) for labels in _training_labels(store))
    if not divisor > 0:
        raise ConfigError(
            f"The loss of this graph would be divided by {divisor:g}: the class weights of its training nodes must "
            "have a sum above 0."
        )
    return divisor


def some_training_labels(store: GraphStore) -> Tensor:
    """Labels of up to 8 training nodes; of none if there are none."""
    labels = next(_training_labels(store), None)
    return torch.empty(0) if labels is None else labels[:_PROBED]


def _training_labels(store: GraphStore) -> Iterator[Tensor]:
    """Of every chunk that has training nodes."""
    for start, stop in _chunks(store):
        chosen = (store.read("split", start, stop) & TRAIN) != 0
        if chosen.any():
            yield torch.from_numpy(store.read("labels", start, stop)[chosen])


def _chunks(store: GraphStore) -> Iterator[tuple[int, int]]:
    info = store.info
    for start in range(0, info.num_nodes, info.chunk_rows):
        yield start, min(start + info.chunk_rows, info.num_nodes)
