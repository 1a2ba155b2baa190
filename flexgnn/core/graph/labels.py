"""Checks labels and brings them into the form that is stored.

Shapes: N nodes, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from flexgnn.core.errors import GraphError
from flexgnn.core.tier import Array

_MOST_CLASSES = 2**20


def checked_labels(
    labels: torch.Tensor, split: Array | None, num_nodes: int, class_names: Sequence[str] | None
) -> tuple[Array, tuple[str, ...]]:
    """The labels, int64 [N] or float32 [N, C], and the names of the classes.

    Nodes outside every mask may lack a label (negative or NaN): they get -1, or zeros where a node has several classes.

    Args:
        labels: [N], [N, 1] or [N, C].
        split: uint8 [N]; None if the graph has no masks, so that only nodes with a label are used.
        num_nodes: N.
        class_names: C names, or None for numbers.

    Raises:
        GraphError: if a node in a mask has no label or one out of range.
    """
    if labels.dim() not in (1, 2) or len(labels) != num_nodes or labels.is_complex() or 0 in labels.shape:
        raise GraphError(
            f"data.y has shape {list(labels.shape)} and dtype {labels.dtype}; "
            f"it must have one label, or one row of labels, for each of the {num_nodes} nodes."
        )
    # float64 holds every class number exactly, and NaN.
    values: Array = labels.to(torch.float64).numpy()
    used = np.ones(num_nodes, dtype=bool) if split is None else split != 0
    if labels.dim() == 2 and labels.shape[1] > 1:
        return _multi_label(values, used, class_names)
    values = values.reshape(-1)
    if split is None:
        used = ~(np.isnan(values) | (values < 0))
    return _single_label(values, used, class_names)


def _multi_label(values: Array, used: Array, class_names: Sequence[str] | None) -> tuple[Array, tuple[str, ...]]:
    num_classes = values.shape[1]
    if class_names is not None and len(class_names) != num_classes:
        raise GraphError(
            f"There are {len(class_names)} class names, but data.y has {num_classes} columns: name each one."
        )
    wrong = used[:, None] & (values != 0) & (values != 1)
    if wrong.any():
        node, column = (int(i) for i in np.argwhere(wrong)[0])
        raise GraphError(
            f"data.y[{node}, {column}] is {values[node, column]:g}; with several columns every label must be 0 or 1."
        )
    return np.where(used[:, None], values, values == 1).astype(np.float32), _names(class_names, num_classes)


def _single_label(values: Array, used: Array, class_names: Sequence[str] | None) -> tuple[Array, tuple[str, ...]]:
    valid = (values >= 0) & (values < _MOST_CLASSES) & (values == np.floor(values))
    if class_names is None:
        num_classes, accepted = int(values[valid].max(initial=-1)) + 1, "class numbers from 0 on"
    else:
        num_classes, accepted = len(class_names), f"class numbers from 0 to {len(class_names) - 1}"
        valid &= values < num_classes
    wrong = used & ~valid
    if wrong.any():
        node = int(wrong.argmax())
        raise GraphError(
            f"data.y[{node}] is {values[node]:g}, and node {node} is used; labels must be {accepted}: "
            "correct it, or leave the node out of every mask."
        )
    return np.where(valid, values, -1).astype(np.int64), _names(class_names, num_classes)


def _names(class_names: Sequence[str] | None, num_classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(num_classes) if class_names is None else class_names))
