"""The functions that graphs of segments are made of, where they are not torch's own.

Each works on each row alone. One whose name ends in an underscore writes over its first argument.

Shape legend: R rows of a tile, D and E widths.
"""

from __future__ import annotations

import torch
from torch import Tensor


def plus(a: Tensor, b: Tensor) -> Tensor:
    """The sum of two tensors of the same shape (R x D)."""
    return torch.add(a, b)


def plus_(a: Tensor, b: Tensor) -> Tensor:
    """:func:`plus` in place."""
    return a.add_(b)


def plus_bias(a: Tensor, bias: Tensor) -> Tensor:
    """``a`` (R x D), with ``bias`` (D) added to each row."""
    return torch.add(a, bias)


def plus_bias_(a: Tensor, bias: Tensor) -> Tensor:
    """:func:`plus_bias` in place."""
    return a.add_(bias)


def beside_rows(x: Tensor, vector: Tensor) -> Tensor:
    """Each row of ``x`` (R x D), followed by the E elements of ``vector``: R x (D + E)."""
    return torch.cat([x, vector.reshape(1, -1).expand(len(x), -1)], dim=1)


def plus_product(a: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """``a + x weight'``, from R x E, R x D and E x D."""
    return torch.addmm(a, x, weight.t())


def plus_product_(a: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """:func:`plus_product` in place."""
    return a.addmm_(x, weight.t())


def product_of_rows(gradient: Tensor, x: Tensor) -> Tensor:
    """The sum over rows of outer products: ``gradient' x`` (E x D), from R x E and R x D."""
    return torch.mm(gradient.t(), x)


def sum_of_rows(gradient: Tensor) -> Tensor:
    """D, from R x D."""
    return gradient.sum(0)


def relu_gradient(gradient: Tensor, value: Tensor) -> Tensor:
    """``gradient`` where ``value``, the output of a ReLU, is above 0; else 0 (R x D each)."""
    result: Tensor = torch.ops.aten.threshold_backward(gradient, value, 0)
    return result


def relu_gradient_(gradient: Tensor, value: Tensor) -> Tensor:
    """:func:`relu_gradient` in place."""
    torch.ops.aten.threshold_backward.grad_input(gradient, value, 0, grad_input=gradient)
    return gradient


def standardized(x: Tensor, affine: Tensor) -> Tensor:
    """``x`` (R x D) less a center, times a scale, which are the rows of ``affine`` (2 x D)."""
    return torch.sub(x, affine[0]).mul_(affine[1])


def standardized_gradient(gradient: Tensor, x: Tensor, affine: Tensor) -> Tensor:
    """The gradient of ``affine`` (2 x D), from that of :func:`standardized` (R x D)."""
    return torch.stack([gradient.sum(0).mul_(-affine[1]), torch.sub(x, affine[0]).mul_(gradient).sum(0)])


def scaled_columns(gradient: Tensor, affine: Tensor) -> Tensor:
    """The gradient of ``x`` (R x D), from that of :func:`standardized`."""
    return torch.mul(gradient, affine[1])


def scaled_columns_(gradient: Tensor, affine: Tensor) -> Tensor:
    """:func:`scaled_columns` in place."""
    return gradient.mul_(affine[1])
