"""What is counted over the nodes of each split before training: how many there are, and what a loss is divided by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flexgnn.core.errors import ConfigError
from flexgnn.core.graph.layout import LINKED, LINKS, REGRESSION
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.program.criterion import TrainingLoss
from flexgnn.core.program.loss import TEST, TRAIN, VALIDATION
from flexgnn.core.tier import Array

_PROBED = 8
_COUNTED_AT_ONCE = 2**18


@dataclass(frozen=True, kw_only=True)
class SplitSizes:
    """Numbers of nodes, or pairs of nodes, and of what is scored at each."""

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
    """Count the nodes of each split, or the pairs where links are predicted."""
    info, counts = store.info, _count_flags(store)
    training, validation, test = (_flagged(counts, flag) for flag in (TRAIN, VALIDATION, TEST))
    scored = info.label_columns or 1
    return SplitSizes(training=training, validation=validation, test=test, scored=scored, task=info.task)


@dataclass(frozen=True, kw_only=True)
class TrainingPairs:
    """Numbers of pairs whose links are predicted, for training."""

    linked: int
    unlinked: int


def count_training_pairs(store: GraphStore) -> TrainingPairs:
    """Count them in a store of pairs."""
    counts = _count_flags(store)
    linked = _flagged(counts, TRAIN | LINKED)
    return TrainingPairs(linked=linked, unlinked=_flagged(counts, TRAIN) - linked)


def _count_flags(store: GraphStore) -> Array:
    """int64: how many nodes, or pairs, have each combination of flags; chunk by chunk."""
    array = "pairs/types" if store.info.task == LINKS else "split"
    counts = np.zeros(2 * LINKED, dtype=np.int64)
    for start in range(0, store.length(array), _COUNTED_AT_ONCE):
        part = store.read(array, start, min(start + _COUNTED_AT_ONCE, store.length(array)))
        counts += np.bincount(part, minlength=len(counts))
    return counts


def _flagged(counts: Array, flags: int) -> int:
    """How many have all of ``flags``."""
    return int(sum(count for found, count in enumerate(counts) if found & flags == flags))


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
