"""What conformance tests compare with: every bit counts."""

import numpy as np
import pytest

from flexgnn.testing import assert_same_bits, sample


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (np.array([0.0]), np.array([-0.0])),
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([1, 2]), np.array([[1, 2]])),
        (np.array([1, 2]), np.array([1, 2], dtype=np.uint64)),
        (np.array(np.nan), np.array(-np.nan)),
    ],
)
def test_differences_fail(actual: np.ndarray, expected: np.ndarray) -> None:
    with pytest.raises(AssertionError):
        assert_same_bits(actual, expected)


def test_equal_bits_pass_whatever_their_values_and_layout() -> None:
    assert_same_bits(np.array([np.nan, -0.0]), np.array([np.nan, -0.0]))
    assert_same_bits(np.arange(6).reshape(2, 3).T, np.arange(6).reshape(2, 3).T.copy())
    assert_same_bits(np.empty((0, 5)), np.empty((0, 5)))
    assert_same_bits(np.array(7), np.array(7))


def test_samples_are_the_same_in_every_call_and_differ_by_seed() -> None:
    assert_same_bits(sample("float32", (7, 11)), sample("float32", (7, 11)))
    assert sample("uint8", (99,)).tobytes() != sample("uint8", (99,), seed=3).tobytes()
