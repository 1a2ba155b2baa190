"""Sums of a GPU beside those of a CPU, in one pass and in several."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flexgnn.core.program.cpu_kernels import CpuKernels
from flexgnn.core.program.row_kernels import RowKernels
from tests.blocks import BOUNDS, SEEDS, RowsToPull, few_examples


def summed(
    kernels: RowKernels, rows: RowsToPull, bounds: list[int], device: str, options: tuple[bool, bool, bool]
) -> Tensor:
    weighted, looped, scaled = options
    drawn = torch.rand(2, rows.num_rows, generator=torch.Generator().manual_seed(0)).to(device)
    loops, scale = drawn[0] if looped else None, drawn[1] if scaled else None

    def pull(n, first, _, out):
        kernels.pull_sum(n, first, n.weights if weighted else None, loops, scale, out)

    return rows.pull(bounds, device, [rows.rows[0].shape[1]], pull)[0]


@few_examples(10)
@given(
    seed=SEEDS,
    bounds=BOUNDS,
    width=st.sampled_from([1, 5, 64, 300]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    options=st.tuples(*[st.booleans()] * 3),
)
def test_sums_are_those_of_a_cpu_with_the_same_bits_in_any_passes(
    triton_kernels, device, seed, bounds, width, dtype, options
):
    rows = RowsToPull(seed, width, dtype)
    out = summed(triton_kernels, rows, bounds, device, options)
    assert torch.equal(out, summed(triton_kernels, rows, [], device, options))
    torch.testing.assert_close(out, summed(CpuKernels(), rows, bounds, "cpu", options), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("num_rows", "width"), [(0, 3), (2, 0)])
def test_nothing_to_sum(triton_kernels, device, num_rows, width):
    for n in RowsToPull(1, width).passes([], device):
        triton_kernels.pull_sum(n, 0, None, None, None, torch.empty(num_rows, width, device=device))


def test_rows_are_gathered_and_added_to(triton_kernels, device):
    rows = torch.arange(12.0, device=device).view(4, 3)
    out = torch.empty(3, 3, device=device)
    triton_kernels.gather(rows, torch.tensor([2, 0, 2], dtype=torch.int32, device=device), out)
    assert torch.equal(out, rows[[2, 0, 2]])
    expected = rows.clone()
    expected[1] += out[0]
    expected[3] += out[1]
    triton_kernels.add_rows(rows, torch.tensor([1, 3], device=device), out[:2])
    assert torch.equal(rows, expected)
