"""Losses that tiles can make: a sum over training nodes, divided by a number that is known from their labels.

Shape legend: R rows, C outputs of the model, K columns of labels. Labels are int64, R (one class a node), or float32,
R x K (several classes or numbers a node).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss, nll_loss

from flexgnn.core.errors import ConfigError
from flexgnn.core.graph.layout import MULTI_CLASS, MULTI_LABEL

RowLosses = Callable[[Tensor, Tensor], Tensor]
"""From logits (R x C) and labels to one loss a row (R), or several (R x ...)."""

_REDUCTIONS = ("mean", "sum", "none")
_IGNORED = -100
"""In the place of a class: the node has no part in the loss."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingLoss:
    """A loss of all training nodes: ``total`` over them, divided by the sum of their ``divisor``."""

    total: Callable[[Tensor, Tensor, Tensor], Tensor]
    """The sum over the chosen rows: of logits (R x C), labels and which rows are chosen (bool, R)."""
    divisor: Callable[[Tensor], float] | None
    """What rows with these labels add to the divisor; None: the total is not divided."""


def default_loss(task: str) -> TrainingLoss:
    """The mean cross entropy of classes, binary cross entropy of several classes a node, squared error of numbers."""
    if task == MULTI_CLASS:
        return TrainingLoss(total=_cross_entropy, divisor=len)
    elementwise = binary_cross_entropy_with_logits if task == MULTI_LABEL else mse_loss
    return TrainingLoss(total=partial(_summed, partial(elementwise, reduction="none"), 0), divisor=Tensor.numel)


def user_loss(loss: RowLosses, outputs: int, labels: Tensor) -> TrainingLoss:
    """The loss that a user named.

    A loss with a ``reduction``, as torch's have, is summed over tiles and divided once, as the reduction says: ``mean``
    over the training nodes (of cross entropy, by class weights), or ``sum``. Any other gives one loss a row
    (or several a row), and their mean is taken.

    Args:
        loss: called with logits (float32) and labels of some rows, from several threads.
        outputs: C.
        labels: of a few training nodes, one at least, to try ``loss`` on.

    Raises:
        ConfigError: if it can't be made of sums over rows, or fails on these labels.
    """
    if not callable(loss):
        raise ConfigError(f"The loss is {loss!r}: give a loss of torch.nn, or a function of logits and labels.")
    if isinstance(loss, type):
        raise ConfigError(f"The loss is the class {loss.__name__}: give an object of it, as in {loss.__name__}().")
    if isinstance(loss, torch.nn.Module) and any(p.requires_grad for p in loss.parameters()):
        raise ConfigError("The loss has parameters to be trained, and FlexGNN trains those of the model: freeze them.")
    reduction = _setting(loss, "reduction", "none")
    if reduction not in _REDUCTIONS:
        raise ConfigError(f"The loss has reduction {reduction!r}; FlexGNN takes {', '.join(_REDUCTIONS)}.")
    labels = labels[torch.arange(8) % len(labels)]
    logits = torch.randn(8, outputs, generator=torch.Generator().manual_seed(0))
    rows = _unreduced(loss)
    losses = _tried(rows, logits, labels)
    _check_rows(rows, logits, labels, losses)
    found = TrainingLoss(
        total=partial(_summed, rows, labels.flatten()[0].item()), divisor=_divisor(loss, reduction, losses[0].numel())
    )
    if reduction != "none":
        ours = losses.sum() / (1 if found.divisor is None else found.divisor(labels))
        _check_equal(ours, _tried(loss, logits, labels), f"reduction {reduction!r} is not that of torch's losses")
    return found


def _cross_entropy(logits: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
    targets = torch.where(chosen, labels, _IGNORED)  # cheaper than to choose rows
    return cross_entropy(logits, targets, ignore_index=_IGNORED, reduction="sum")


def _summed(rows: RowLosses, accepted: float, logits: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
    """The sum of ``rows`` over the chosen ones; ``accepted``: a label that it accepts."""
    if logits.device.type != "cpu":
        return sum_without_choosing(rows, accepted, logits, labels, chosen)
    if not chosen.any():  # What a function makes of no rows may be undefined.
        return logits[:0].sum()
    return rows(logits[chosen], labels[chosen]).sum()


def sum_without_choosing(rows: RowLosses, accepted: float, logits: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
    """The same, for a device, which would have to be waited for to know how many rows there are to choose.

    Rows that are not chosen have zeros for logits and ``accepted`` for labels, and no part in the sum or the gradient,
    whatever comes of them.
    """

    def among(values: Tensor, otherwise: float) -> Tensor:
        return torch.where(chosen.view(-1, *[1] * (values.ndim - 1)), values, otherwise)

    return among(rows(among(logits, 0.0), among(labels, accepted)), 0.0).sum()


def _setting(loss: Any, name: str, otherwise: Any) -> Any:
    """An attribute of a module; of a function, the argument that it takes where it is called without."""
    if isinstance(loss, torch.nn.Module):
        return getattr(loss, name, otherwise)
    try:
        parameter = inspect.signature(loss).parameters.get(name)
    except ValueError:  # Some functions of C have no signature.
        return otherwise
    return otherwise if parameter is None or parameter.default is parameter.empty else parameter.default


def _unreduced(loss: Any) -> RowLosses:
    """The same loss without the reduction."""
    if _setting(loss, "reduction", None) is None:
        return loss  # type: ignore[no-any-return]
    if not isinstance(loss, torch.nn.Module):
        return partial(loss, reduction="none")
    unreduced: Any = copy.copy(loss)
    unreduced.reduction = "none"
    return unreduced  # type: ignore[no-any-return]


def _divisor(loss: Any, reduction: str, losses_per_row: int) -> Callable[[Tensor], float] | None:
    if reduction == "sum":
        return None
    function = loss.func if isinstance(loss, partial) else loss
    if function in (cross_entropy, nll_loss) or isinstance(loss, torch.nn.CrossEntropyLoss | torch.nn.NLLLoss):
        return partial(_class_weights, _setting(loss, "weight", None), _setting(loss, "ignore_index", _IGNORED))
    return lambda labels: losses_per_row * len(labels)


def _class_weights(weight: Tensor | None, ignored: int, labels: Tensor) -> float:
    """The sum of the class weights of rows, over which torch takes the mean of cross entropy."""
    if labels.ndim > 1:  # Shares of classes in the place of a class: torch counts rows.
        return len(labels)
    counted = labels[labels != ignored]
    return len(counted) if weight is None else float(weight[counted].sum(dtype=torch.float64))


def _tried(loss: RowLosses, logits: Tensor, labels: Tensor) -> Tensor:
    try:
        value = loss(logits.clone().requires_grad_(), labels)
    except Exception as error:  # whatever a user's function raises
        kind = "one class" if labels.ndim == 1 else "several classes or numbers"
        raise ConfigError(
            f"The loss fails on logits {_form(logits)} and labels {_form(labels)} of this graph, {kind} a node: "
            f"{str(error).strip().partition(chr(10))[0]}"
        ) from error
    if not isinstance(value, Tensor):
        raise ConfigError(f"The loss gives a {type(value).__name__}: return a tensor of one loss a row.")
    if not value.requires_grad:
        raise ConfigError("The loss gives nothing that has a gradient for the logits: compute it with torch operators.")
    return value.detach()


def _form(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} ({str(tensor.dtype).removeprefix('torch.')})"


def _check_rows(rows: RowLosses, logits: Tensor, labels: Tensor, losses: Tensor) -> None:
    """Refuse what is not one loss a row, each of its own row alone."""
    if losses.ndim == 0 or len(losses) != len(logits):
        raise ConfigError(
            f"The loss gives shape {list(losses.shape)} for {len(logits)} rows of logits: return one loss a row, "
            "without taking their mean; FlexGNN takes it over all training nodes."
        )
    parts = [_tried(rows, logits[part], labels[part]) for part in (slice(3), slice(3, None))]
    if any(part.shape[1:] != losses.shape[1:] for part in parts):
        raise ConfigError("The loss gives another shape for fewer rows: return one loss a row, of that row alone.")
    complaint = "loss of a row depends on chance, or on the other rows, of which a tile has only some"
    _check_equal(torch.cat(parts), losses, complaint)


def _check_equal(ours: Tensor, expected: Tensor, complaint: str) -> None:
    if not torch.allclose(ours, expected, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise ConfigError(f"This loss can't be made exactly, tile by tile: its {complaint}.")
