"""The loss on a tile of nodes: a sum over its training nodes, divided by a number that is the same for all tiles.

Shape legend: R rows of a tile, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flexgnn.core.compiling import compiled
from flexgnn.core.graph.layout import LINKS, REGRESSION
from flexgnn.core.program.criterion import TrainingLoss
from flexgnn.core.program.links import right_decisions
from flexgnn.core.tier import Array

_FLAGS = TRAIN, VALIDATION, TEST = 1, 2, 4
"""Bit flags of a node's split."""


@dataclass(frozen=True, kw_only=True)
class TileLoss:
    """A tile's share of the loss."""

    loss: float
    gradient: Tensor
    """R x C: of the whole graph's loss, for the logits."""


def tile_loss(logits: Tensor, labels: Tensor, split: Tensor, loss: TrainingLoss, divisor: float) -> TileLoss:
    """The tile's share of ``loss``.

    Args:
        logits: float32, R x C.
        labels: int64, R, or float32, R x K.
        split: uint8, R.
        loss: what is to be summed.
        divisor: of the whole graph.
    """
    leaf = logits.detach().requires_grad_()
    with torch.enable_grad():
        total = loss.total(leaf, labels, (split & TRAIN) != 0) / divisor
        (gradient,) = torch.autograd.grad(total, leaf)
    return TileLoss(loss=float(total.detach()), gradient=gradient)


def tile_scores(logits: Tensor, labels: Tensor, split: Tensor, task: str) -> tuple[float, float, float]:
    """Right decisions, or for regression absolute errors, summed over training, validation and test nodes, or pairs."""
    if task == LINKS:
        return right_decisions(logits)
    if task != REGRESSION:
        return count_correct(logits, labels, split)
    train, validation, test = (_absolute_errors(logits, labels, (split & flag) != 0) for flag in _FLAGS)
    return train, validation, test


def _absolute_errors(logits: Tensor, labels: Tensor, chosen: Tensor) -> float:
    return float((logits[chosen] - labels[chosen]).abs().sum(dtype=torch.float64))


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
