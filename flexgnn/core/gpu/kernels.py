"""The kernels of a GPU, as the runtime calls them."""

from __future__ import annotations

import torch
from torch import Tensor

from flexgnn.core.gpu.attention import pull_attention
from flexgnn.core.gpu.maxima import pull_max, pull_max_gradient
from flexgnn.core.gpu.sums import pull_sum
from flexgnn.core.program.attention import Attention
from flexgnn.core.program.neighbors import Neighbors
from flexgnn.core.program.row_kernels import Place, RowKernels


class TritonKernels(RowKernels):
    """Launched on the current stream of the device that is current."""

    def pull_sum(
        self, n: Neighbors, first: int, weights: Tensor | None, loops: Tensor | None, scale: Tensor | None, out: Tensor
    ) -> None:
        pull_sum(n, first, weights, loops, scale, out)

    def pull_max(self, n: Neighbors, first: int, out: Tensor, ties: Tensor) -> None:
        pull_max(n, first, out, ties)

    def pull_max_gradient(self, n: Neighbors, first: int, value: Tensor, out: Tensor) -> None:
        pull_max_gradient(n, first, value, out)

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
        pull_attention(n, place, attention, work, rows, queries, out, state)

    def gather(self, rows: Tensor, chosen: Tensor, out: Tensor) -> None:
        torch.index_select(rows, 0, chosen, out=out)

    def add_rows(self, out: Tensor, rows: Tensor, values: Tensor) -> None:
        # Each row comes once, and so need not be added to atomically, as index_add_ would.
        out[rows] = out[rows] + values
