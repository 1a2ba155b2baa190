"""Masks that are drawn on a GPU are those that are drawn on a CPU."""

from __future__ import annotations

import pytest
import torch

from flexgnn.core.program.dropout import counting_draws, dropout, dropout_
from flexgnn.core.program.row_context import RowContext


@pytest.mark.parametrize(
    ("shape", "start"),
    [((65, 7), 0), ((3, 5000), 1000), ((1, 1), 2**31), ((2, 3, 2), 5), ((4, 2048), 2**33), ((0, 3), 1), ((3, 0), 1)],
)
@pytest.mark.usefixtures("triton_kernels")
def test_masks_are_those_of_a_cpu(device, shape, start):
    from flexgnn.core.gpu.dropout import masked

    rows = RowContext(start=start, seed=3, epoch=2, training=True)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = dropout(x, 0.3, 4, rows)
    values = x.to(device)
    out = torch.full_like(values, torch.nan)
    assert masked(values, 0.3, 4, rows, out) is out
    assert torch.equal(out.cpu(), expected)
    assert torch.equal(masked(values, 0.3, 4, rows, values).cpu(), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_dropout_on_a_gpu(device):
    rows = RowContext(start=9, seed=3, epoch=2, training=True)
    x = torch.randn(30, 20)
    expected = dropout(x, 0.3, 4, rows)
    with counting_draws() as count:
        assert torch.equal(dropout(x.to(device), 0.3, 4, rows).cpu(), expected)
        assert torch.equal(dropout_(x.to(device), 0.3, 4, rows).cpu(), expected)
    assert count.values == 2 * x.numel()
