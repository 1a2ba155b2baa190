"""Maxima of a GPU, and their gradients, beside those of a CPU, in one pass and in several."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flexgnn.core.program.cpu_kernels import CpuKernels
from flexgnn.core.program.row_kernels import RowKernels
from tests.blocks import BOUNDS, SEEDS, RowsToPull, few_examples

WIDTHS = st.sampled_from([1, 5, 64, 300])


def with_ties(seed: int, width: int) -> RowsToPull:
    """Rows of few different numbers, one of which is none."""
    rows = RowsToPull(seed, width)
    for part in rows.rows:
        part.round_()
    rows.rows[0][:1, :2] = torch.nan
    return rows


@few_examples(8)
@given(seed=SEEDS, bounds=BOUNDS, width=WIDTHS)
def test_maxima_and_their_ties(triton_kernels, device, seed, bounds, width):
    rows = with_ties(seed, width)

    def pulled(kernels: RowKernels, bounds: list[int], device: str) -> list[Tensor]:
        return rows.pull(
            bounds, device, [width, width], lambda n, first, _, out, ties: kernels.pull_max(n, first, out, ties)
        )

    maxima, ties = pulled(triton_kernels, bounds, device)
    expected, expected_ties = pulled(CpuKernels(), [], "cpu")
    assert torch.equal(maxima, expected)
    assert torch.equal(ties, expected_ties)


@few_examples(8)
@given(seed=SEEDS, bounds=BOUNDS, width=WIDTHS)
def test_gradients_of_maxima(triton_kernels, device, seed, bounds, width):
    rows = RowsToPull(seed, 2 * width)
    for part in rows.rows:
        part[:, width:].round_()
    value = rows.rows[0][rows.own :, width:].contiguous()

    def pulled(kernels: RowKernels, bounds: list[int], device: str) -> Tensor:
        values = value.to(device)
        return rows.pull(
            bounds,
            device,
            [width],
            lambda n, first, stop, out: kernels.pull_max_gradient(n, first, values[first:stop], out),
        )[0]

    gradient = pulled(triton_kernels, bounds, device)
    assert torch.equal(gradient, pulled(triton_kernels, [], device))
    assert torch.equal(gradient, pulled(CpuKernels(), [], "cpu")), "a sum of the same order"
