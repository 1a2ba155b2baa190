"""What aggregates on a device: the contract between the runtime and the kernels of each kind of device.

Shape legend: B rows of a block, T rows of a tile, D width, and those of ``neighbors.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from flexgnn.core.program.attention import Attention
from flexgnn.core.program.neighbors import Neighbors
from flexgnn.core.program.row_context import RowContext


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which rows a tile is."""

    first: int
    """Block row of its row 0."""
    rows: RowContext
    """The same in the graph, and what random operators need to know."""


class RowKernels(ABC):
    """Kernels of one kind of device. Every row is summed in the order of its edges, whatever the passes are.

    All tensors are in the memory of the device, contiguous, and float32 where nothing else is said.
    """

    @abstractmethod
    def pull_sum(
        self, n: Neighbors, first: int, weights: Tensor | None, loops: Tensor | None, scale: Tensor | None, out: Tensor
    ) -> None:
        """``out[t] = scale[r] * (loops[r] * z[r] + sum over j of weights[r, j] * z[j])`` for ``r = first + t``.

        ``out`` is T x D. None stands for weights (E) and scales (B) of 1; without ``loops`` (B), the graph's own are
        taken, and with them these are passed over. ``scale`` is applied in the last pass.
        """

    @abstractmethod
    def pull_max(self, n: Neighbors, first: int, out: Tensor, ties: Tensor) -> None:
        """``out[t] = max over j of z[j]``, elementwise, 0 without neighbours; ``ties``: how many j reach it.

        Both are T x D. Edges that occur twice count twice, as in PyG.
        """

    @abstractmethod
    def pull_max_gradient(self, n: Neighbors, first: int, value: Tensor, out: Tensor) -> None:
        """Gradient of :meth:`pull_max` for its input rows ``value`` (T x D) into ``out``, pulled over out-edges.

        The rows of ``n`` have 2 D columns: of each receiver, the output's gradient divided by its ties, then the
        output.
        """

    @abstractmethod
    def pull_attention(
        self,
        n: Neighbors,
        place: Place,
        attention: Attention,
        work: int,
        rows: Tensor,
        queries: Tensor,
        out: Tensor,
        state: Tensor,
    ) -> None:
        """A pass of an attention, or of its gradients; ``work`` and the rest as in ``attention_kernels.py``."""

    @abstractmethod
    def gather(self, rows: Tensor, chosen: Tensor, out: Tensor) -> None:
        """``out = rows[chosen]``; ``chosen`` is int32, and every index is in range."""

    @abstractmethod
    def add_rows(self, out: Tensor, rows: Tensor, values: Tensor) -> None:
        """``out[rows[i]] += values[i]``; ``rows`` are int64, each once."""
