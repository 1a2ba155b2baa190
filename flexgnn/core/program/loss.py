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

    loss: Tensor
    """float64, without dimensions."""
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
    return TileLoss(loss=total.detach().double(), gradient=gradient)


def tile_scores(logits: Tensor, labels: Tensor, split: Tensor, task: str) -> Tensor:
    """Right decisions, or for regression absolute errors, summed over training, validation and test nodes, or pairs.

    Returns:
        float64 [3], on the device of ``logits``.
    """
    if task == LINKS:
        return right_decisions(logits)
    if task != REGRESSION:
        return count_correct(logits, labels, split)
    return _by_split((logits - labels).abs(), split)


def count_correct(logits: Tensor, labels: Tensor, split: Tensor) -> Tensor:
    """Right decisions among the tile's training, validation and test nodes (float64 [3]).

    A decision is the class of a node, or with several labels a node, each of its labels.
    """
    if labels.ndim > 1:
        return _by_split((logits > 0) == (labels > 0.5), split)
    if logits.device.type != "cpu":
        return _by_split(right_rows(logits, labels)[:, None], split)
    counts = np.zeros(TRAIN + VALIDATION + TEST + 1, dtype=np.int64)
    _count_right(logits.numpy(), labels.numpy(), split.numpy(), counts)
    sums = [sum(int(c) for s, c in enumerate(counts) if s & flag) for flag in _FLAGS]
    return torch.tensor(sums, dtype=torch.float64)


def _by_split(values: Tensor, split: Tensor) -> Tensor:
    """The sums of ``values`` (R x K) over the nodes of each split: float64 [3]."""
    of_rows = values.sum(1, dtype=torch.float64)
    return torch.stack([torch.where((split & flag) != 0, of_rows, 0.0).sum() for flag in _FLAGS])


def right_rows(logits: Tensor, labels: Tensor) -> Tensor:
    """bool, R: whether a row's label is the first of its largest logits; False where the label is below 0."""
    chosen = logits.gather(1, labels.clamp(min=0)[:, None])
    columns = torch.arange(logits.shape[1], device=logits.device)
    before, other = columns < labels[:, None], columns != labels[:, None]
    larger = torch.where(before, ~(logits < chosen), ~(logits <= chosen)) & other
    return (labels >= 0) & ~larger.any(1)


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
