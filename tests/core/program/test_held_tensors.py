"""Which tensors a loss refers to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from flexgnn.core.program.held_tensors import held_tensors

WEIGHT = torch.ones(3)
OTHER = torch.ones(2)
Loss = Callable[[Tensor, Tensor], Tensor]


def with_global(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels, WEIGHT, reduction="none")


def calling_another(logits: Tensor, labels: Tensor) -> Tensor:
    return 2 * with_global(logits, labels)


def with_default(logits: Tensor, labels: Tensor, weight: Tensor = WEIGHT) -> Tensor:
    return cross_entropy(logits, labels, weight, reduction="none")


def with_closure() -> Loss:
    weight = WEIGHT
    return lambda logits, labels: cross_entropy(logits, labels, weight, reduction="none")


class Weighted:
    """A loss that is an object."""

    def __init__(self) -> None:
        self.weights = {"of classes": [WEIGHT]}
        self.itself = self

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels, self.weights["of classes"][0], reduction="none")

    def method(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self(logits, labels)


class Unregistered(torch.nn.Module):
    """A module whose tensor is not a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = WEIGHT

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels, self.weight, reduction="none")


@pytest.mark.parametrize(
    "loss",
    [
        torch.nn.CrossEntropyLoss(weight=WEIGHT),
        partial(cross_entropy, weight=WEIGHT),
        with_global,
        calling_another,
        with_default,
        with_closure(),
        Weighted(),
        Weighted().method,
        Unregistered(),
    ],
)
def test_tensors_of_a_loss_are_found_once(loss: object) -> None:
    (found,) = held_tensors(loss)
    assert found.data_ptr() == WEIGHT.data_ptr()


def test_parameters_of_a_decoder_are_among_them() -> None:
    decoder = torch.nn.Bilinear(2, 2, 1)
    assert [id(tensor) for tensor in held_tensors(decoder)] == [id(tensor) for tensor in decoder.parameters()]


@pytest.mark.parametrize("loss", [None, cross_entropy, torch.nn.MSELoss(), lambda logits, labels: logits.sum(1)])
def test_others_have_none(loss: object) -> None:
    assert held_tensors(loss) == []
