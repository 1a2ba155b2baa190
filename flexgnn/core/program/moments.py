"""Moments of a value over all rows of the graph: the mean and the variance of each column, added up tile by tile.

A tile's are computed in float64, and put together in the order of the tiles, so that no bit depends on blocks.

Shape legend: R rows of a tile, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flexgnn.core.compiling import compiled
from flexgnn.core.tier import Array


def column_moments(x: Tensor) -> Tensor:
    """Stands for the moments of all rows (2 x D: means, then variances) in a traced graph.

    Run, it gives those of the rows at hand.
    """
    variance, mean = torch.var_mean(x, 0, correction=0)
    return torch.stack([mean, variance])


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Of the columns of some rows."""

    count: int
    """Rows."""
    mean: Tensor
    """float64, D."""
    squares: Tensor
    """float64, D: sums of squared deviations from the mean."""

    def __add__(self, other: Moments) -> Moments:
        """Of the rows of both (Chan, Golub and LeVeque, *Updating formulae*, 1979, equation 2.1)."""
        count = self.count + other.count
        apart = other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + apart * (other.count / count),
            squares=self.squares + other.squares + apart**2 * (self.count * other.count / count),
        )

    @property
    def tensor(self) -> Tensor:
        """float32, 2 x D: means, then variances (biased: over the number of rows)."""
        return torch.stack([self.mean, self.squares / self.count]).float()

    @property
    def unbiased_variance(self) -> Tensor:
        """float32, D."""
        return (self.squares / (self.count - 1)).float()


def moments_of_rows(x: Tensor) -> Moments:
    """The moments of ``x`` (R x D, float32)."""
    if x.device.type != "cpu":
        squares, mean = torch.var_mean(x.double(), 0, correction=0)
        return Moments(count=len(x), mean=mean, squares=squares * len(x))
    sums = np.zeros((2, x.shape[1]))
    _add_moments(x.contiguous().numpy(), *sums)
    mean, squares = torch.from_numpy(sums)
    return Moments(count=len(x), mean=mean, squares=squares)


def moments_gradient(x: Tensor, moments: Tensor, share: Tensor) -> Tensor:
    """What reaches ``x`` (R x D) through its moments.

    Args:
        x: some of the rows.
        moments: of all rows, 2 x D.
        share: 2 x D: the gradient of the mean over the number of rows, and twice that of the variance likewise.
    """
    return torch.sub(x, moments[0]).mul_(share[1]).add_(share[0])


@compiled(boundscheck=False)
def _add_moments(values: Array, mean: Array, squares: Array) -> None:
    """Fill ``mean`` and ``squares``, which are zero, from the rows of ``values``; two passes, while they are cached."""
    rows, width = values.shape
    for r in range(rows):
        for c in range(width):
            mean[c] += values[r, c]
    for c in range(width):
        mean[c] /= rows
    for r in range(rows):
        for c in range(width):
            apart = values[r, c] - mean[c]
            squares[c] += apart * apart
