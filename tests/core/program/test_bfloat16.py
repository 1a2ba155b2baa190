"""Rows that are stored as bfloat16: what they come back as."""

from __future__ import annotations

import numpy as np
import torch

from flexgnn.core.program.bfloat16 import BITS_DTYPE, as_stored, stored_array, stored_dtype


def test_values_are_rounded_to_the_nearest_and_ties_to_even() -> None:
    step = 2.0**-7  # between neighbours from 1 on
    values = torch.tensor([1.0, 1 + 0.49 * step, 1 + 0.5 * step, 1 + 1.5 * step, -1 - 0.51 * step, 3e38, 1e-40, -0.0])
    expected = torch.tensor([1.0, 1.0, 1.0, 1 + 2 * step, -1 - step, 3e38, 1e-40, -0.0])
    stored = stored_array(torch.empty(len(values), dtype=stored_dtype(BITS_DTYPE)).copy_(values))
    assert stored.dtype == BITS_DTYPE
    back = (stored.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(back[:5], expected[:5].numpy())
    np.testing.assert_allclose(back[5:], expected[5:].numpy(), rtol=2**-9, atol=2**-134)
    assert np.signbit(back[7])
    assert np.array_equal(as_stored(values).numpy(), back)


def test_what_is_not_a_number_stays_so() -> None:
    values = torch.tensor([float("nan"), float("inf"), -float("inf")])
    back = torch.empty(3, dtype=stored_dtype(BITS_DTYPE)).copy_(values).float()
    assert back[0].isnan()
    assert torch.equal(back[1:], values[1:])


def test_float32_is_stored_as_it_is() -> None:
    tensor = torch.zeros(2, dtype=stored_dtype("float32"))
    stored_array(tensor)[0] = 1.1
    assert tensor[0] == np.float32(1.1)
