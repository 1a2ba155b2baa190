"""The loss on a tile of nodes: a sum over its training nodes, divided by the number of all training nodes.

Shape legend: R rows of a tile, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from flexgnn.core.compiling import compiled
from flexgnn.core.tier import Array

_FLAGS = TRAIN, VALIDATION, TEST = 1, 2, 4
"""Bit flags of a node's split."""

_IGNORED = -100
"""In the place of a label: the node has no part in the loss."""


@dataclass(frozen=True, kw_only=True)
class TileLoss:
    """A tile's share of the loss."""

    loss: float
    gradient: Tensor
    """R x C: of the whole graph's loss, for the logits."""


def tile_loss(logits: Tensor, labels: Tensor, split: Tensor, num_training: int) -> TileLoss:
    """Cross-entropy (``labels`` int64, R) or, for several labels a node (float32, R x C), binary cross-entropy.

    Args:
        logits: float32, R x C.
        split: uint8, R.
        num_training: training nodes of the whole graph, over which the loss is the mean.
    """
    leaf = logits.detach().requires_grad_()
    chosen = (split & TRAIN) != 0
    with torch.enable_grad():
        if labels.ndim == 1:
            targets = torch.where(chosen, labels, _IGNORED)  # cheaper than to choose rows
            total = cross_entropy(leaf, targets, ignore_index=_IGNORED, reduction="sum") / num_training
        else:
            count = num_training * labels.shape[1]
            total = binary_cross_entropy_with_logits(leaf[chosen], labels[chosen], reduction="sum") / count
        (gradient,) = torch.autograd.grad(total, leaf)
    return TileLoss(loss=float(total.detach()), gradient=gradient)


def count_correct(logits: Tensor, labels: Tensor, split: Tensor) -> tuple[int, int, int]:
    """Right decisions among the tile's training, validation and test nodes.

    A decision is the class of a node, or with several labels a node, each of its labels.
    """
    if labels.ndim == 1:
        counts = np.zeros(TRAIN + VALIDATION + TEST + 1, dtype=np.int64)
        _count_right(logits.numpy(), labels.numpy(), split.numpy(), counts)
        train, validation, test = (sum(int(c) for s, c in enumerate(counts) if s & f) for f in _FLAGS)
        return train, validation, test
    right = (logits > 0) == (labels > 0.5)
    train, validation, test = (int(right[(split & flag) != 0].sum()) for flag in _FLAGS)
    return train, validation, test


@compiled(boundscheck=False)
def _count_right(logits: Array, labels: Array, split: Array, counts: Array) -> None:
    """Count the rows whose label is the first of their largest logits, by the flags in ``split``."""
    for r in range(labels.shape[0]):
        label = labels[r]
        if label < 0:
            continue
        chosen, larger = logits[r, label], 0
        for c in range(label):
            larger += not logits[r, c] < chosen
        for c in range(label + 1, logits.shape[1]):
            larger += not logits[r, c] <= chosen
        counts[split[r]] += larger == 0
