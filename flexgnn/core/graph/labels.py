"""Checks labels and brings them into the form that is stored.

Shapes: N nodes, C classes, or numbers a node.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from flexgnn.core.errors import ConfigError, GraphError
from flexgnn.core.graph.layout import MULTI_CLASS, MULTI_LABEL, REGRESSION, TASKS
from flexgnn.core.tier import Array

_MOST_CLASSES = 2**20
_NUMBERS_HINT = 'Are they numbers to be predicted? Import with task="regression" (--task regression).'


def check_task(task: str | None) -> None:
    """Refuse what is no task.

    Raises:
        ConfigError: if ``task`` is neither None nor one of the tasks.
    """
    if task is not None and task not in TASKS:
        raise ConfigError(f"There is no task {task!r}. There are: {', '.join(TASKS)}.")


def checked_labels(
    labels: torch.Tensor,
    split: Array | None,
    num_nodes: int,
    class_names: Sequence[str] | None,
    task: str | None,
) -> tuple[Array, str, tuple[str, ...]]:
    """The labels, int64 [N] or float32 [N, C], what they are, and the names of the classes.

    Nodes outside every mask may lack a label (negative or NaN): they get -1, zeros where a node has several classes,
    and for regression stay as they are.

    Args:
        labels: [N], [N, 1] or [N, C].
        split: uint8 [N]; None if the graph has no masks, so that only nodes with a class are used, or all.
        num_nodes: N.
        class_names: C names, or None for numbers.
        task: what they are; None: regression if there are fractions, else classes.

    Raises:
        GraphError: if a node in a mask has no label or one out of range.
    """
    if labels.dim() not in (1, 2) or len(labels) != num_nodes or labels.is_complex() or 0 in labels.shape:
        raise GraphError(
            f"data.y has shape {list(labels.shape)} and dtype {labels.dtype}; "
            f"it must have one label, or one row of labels, for each of the {num_nodes} nodes."
        )
    # float64 holds every class number exactly, and NaN.
    values: Array = labels.to(torch.float64).reshape(num_nodes, -1).numpy()
    used = np.ones(num_nodes, dtype=bool) if split is None else split != 0
    task = task or _task_of(values[used])
    if task == MULTI_CLASS:
        if values.shape[1] > 1:
            raise GraphError(f"data.y has {values.shape[1]} columns: task={MULTI_CLASS!r} is for one class a node.")
        values = values[:, 0]
        if split is None:
            used = ~(np.isnan(values) | (values < 0))
        return _single_label(values, used, class_names)
    if class_names is not None and len(class_names) != values.shape[1]:
        raise GraphError(
            f"There are {len(class_names)} class names, but data.y has {values.shape[1]} columns: name each one."
        )
    checked = _numbers(values, used) if task == REGRESSION else _multi_label(values, used)
    return checked, task, _names(class_names, values.shape[1])


def _task_of(values: Array) -> str:
    """What labels of used nodes must be: there are no fractions of classes."""
    if (np.isfinite(values) & (values != np.floor(values))).any():
        return REGRESSION
    return MULTI_LABEL if values.shape[1] > 1 else MULTI_CLASS


def _numbers(values: Array, used: Array) -> Array:
    with np.errstate(over="ignore"):
        stored = values.astype(np.float32)
    wrong = used[:, None] & ~np.isfinite(stored)
    if wrong.any():
        node, column = (int(i) for i in np.argwhere(wrong)[0])
        raise GraphError(
            f"data.y[{node}, {column}] is {values[node, column]:g}, and node {node} is used; numbers to be predicted "
            "must be finite as float32: correct it, or leave the node out of every mask."
        )
    return stored


def _multi_label(values: Array, used: Array) -> Array:
    wrong = used[:, None] & (values != 0) & (values != 1)
    if wrong.any():
        node, column = (int(i) for i in np.argwhere(wrong)[0])
        raise GraphError(
            f"data.y[{node}, {column}] is {values[node, column]:g}; with several columns every label must be 0 or 1. "
            + _NUMBERS_HINT
        )
    return np.where(used[:, None], values, values == 1).astype(np.float32)


def _single_label(values: Array, used: Array, class_names: Sequence[str] | None) -> tuple[Array, str, tuple[str, ...]]:
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
            f"correct it, or leave the node out of every mask. {_NUMBERS_HINT}"
        )
    return np.where(valid, values, -1).astype(np.int64), MULTI_CLASS, _names(class_names, num_classes)


def _names(class_names: Sequence[str] | None, num_classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(num_classes) if class_names is None else class_names))
