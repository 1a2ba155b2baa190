"""How many nodes each split has, and accuracies over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexgnn.core.graph.store import GraphStore
from flexgnn.core.program.loss import TEST, TRAIN, VALIDATION


@dataclass(frozen=True, kw_only=True)
class SplitSizes:
    """Numbers of nodes, and of decisions made for each."""

    training: int
    validation: int
    test: int
    decisions: int
    """1, or with several labels a node, the number of labels."""

    def accuracies(self, correct: Sequence[int]) -> list[float | None]:
        """Shares of right decisions; None for an empty split."""
        sizes = (self.training, self.validation, self.test)
        return [right / (size * self.decisions) if size else None for right, size in zip(correct, sizes, strict=True)]


def count_splits(store: GraphStore) -> SplitSizes:
    """Count the nodes of each split, chunk by chunk."""
    info = store.info
    counts = np.zeros(8, dtype=np.int64)
    for start in range(0, info.num_nodes, info.chunk_rows):
        flags = store.read("split", start, min(start + info.chunk_rows, info.num_nodes))
        counts += np.bincount(flags, minlength=8)
    training, validation, test = (
        int(sum(counts[flags] for flags in range(8) if flags & flag)) for flag in (TRAIN, VALIDATION, TEST)
    )
    decisions = info.num_classes if info.multi_label else 1
    return SplitSizes(training=training, validation=validation, test=test, decisions=decisions)
