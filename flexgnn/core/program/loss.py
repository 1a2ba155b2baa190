"""The loss on a tile of nodes: a sum over its training nodes, divided by the number of all training nodes.

Shape legend: R rows of a tile, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

TRAIN, VALIDATION, TEST = 1, 2, 4
"""Bit flags of a node's split."""


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
            total = cross_entropy(leaf[chosen], labels[chosen], reduction="sum") / num_training
        else:
            count = num_training * labels.shape[1]
            total = binary_cross_entropy_with_logits(leaf[chosen], labels[chosen], reduction="sum") / count
        (gradient,) = torch.autograd.grad(total, leaf)
    return TileLoss(loss=float(total.detach()), gradient=gradient)


def count_correct(logits: Tensor, labels: Tensor, split: Tensor) -> tuple[int, int, int]:
    """Right decisions among the tile's training, validation and test nodes.

    A decision is the class of a node, or with several labels a node, each of its labels.
    """
    right = logits.argmax(dim=1) == labels if labels.ndim == 1 else (logits > 0) == (labels > 0.5)
    train, validation, test = (int(right[(split & flag) != 0].sum()) for flag in (TRAIN, VALIDATION, TEST))
    return train, validation, test
