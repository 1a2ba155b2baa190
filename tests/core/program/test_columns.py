"""Work on some columns of rows: what NumPy makes of them, and no column beyond."""

from __future__ import annotations

import numpy as np
import pytest

from flexgnn.core.compiling import compiled
from flexgnn.core.program.columns import add_leaky_gradient, add_scaled, dot, leaky_dot, scale_columns
from flexgnn.core.program.lanes import LANES, exp_lanes, load_lanes, put_lanes
from flexgnn.core.program.rows import row_address
from flexgnn.core.tier import Array

COLUMNS, FIRST, SLOPE = 64, 3, np.float32(0.2)
COUNTS = [1, 7, 8, 9, 16, 23, 28]


@compiled()
def _exp_of(values: Array) -> None:
    row = row_address(values, 0)
    for c in range(np.uint64(0), np.uint64(values.shape[1]), LANES):
        put_lanes(row, c, exp_lanes(load_lanes(row, c)))


@compiled()
def _products(rows: Array, first: np.uint64, count: np.uint64, slope: np.float32, out: Array) -> None:
    a, b, weights = row_address(rows, 0), row_address(rows, 1), row_address(rows, 2)
    out[0] = dot(a, first, b, first + np.uint64(1), count)
    out[1] = leaky_dot(weights, a, b, first, count, slope)


@compiled()
def _changes(rows: Array, first: np.uint64, count: np.uint64, slope: np.float32, out: Array) -> None:
    a, b, weights = row_address(rows, 0), row_address(rows, 1), row_address(rows, 2)
    add_scaled(row_address(out, 0), first, a, first + np.uint64(1), count, np.float32(3))
    scale_columns(row_address(out, 1), first, count, np.float32(3))
    add_leaky_gradient(weights, a, b, first, count, slope, np.float32(3), row_address(out, 2), np.uint64(0))
    at = np.uint64(COLUMNS // 2)
    add_leaky_gradient(weights, a, b, first, count, slope, np.float32(3), row_address(out, 3), at)


def test_exponentials_are_within_two_units_in_the_last_place() -> None:
    values = np.linspace(-87, 88, 2**16, dtype=np.float32)[None]
    exact = np.exp(values.astype(np.float64))
    _exp_of(values)
    assert float((np.abs(values - exact) / np.spacing(exact.astype(np.float32))).max()) <= 2
    beyond = np.array([[-88, -1e30, -np.inf, 0, 0, 0, 0, np.nan]], dtype=np.float32)
    _exp_of(beyond)
    np.testing.assert_allclose(beyond[0, :3], np.exp(-87.0), rtol=1e-6)
    assert np.all(beyond[0, 3:7] == 1)
    assert np.isnan(beyond[0, 7])


@pytest.mark.parametrize("count", COUNTS)
def test_columns_are_worked_on_as_by_numpy(count: int) -> None:
    rows = np.random.default_rng(count).standard_normal((3, COLUMNS), dtype=np.float32)
    chosen, shifted = slice(FIRST, FIRST + count), slice(FIRST + 1, FIRST + 1 + count)
    a, b, weights = rows[:, chosen].astype(np.float64)
    x = a + b
    leaky, slopes = np.where(x > 0, x, SLOPE * x), np.where(x > 0, 1, SLOPE)

    found = np.empty(2, dtype=np.float32)
    _products(rows, np.uint64(FIRST), np.uint64(count), SLOPE, found)
    np.testing.assert_allclose(found, [a @ rows[1, shifted], weights @ leaky], rtol=1e-4, atol=1e-5)

    out = np.ones((4, COLUMNS), dtype=np.float32)
    _changes(rows, np.uint64(FIRST), np.uint64(count), SLOPE, out)
    expected = np.ones((4, COLUMNS))
    expected[0, chosen] += 3.0 * rows[0, shifted]
    expected[1, chosen] *= 3
    expected[2:, chosen] += 3 * weights * slopes
    expected[3, COLUMNS // 2 + FIRST : COLUMNS // 2 + FIRST + count] += 3 * leaky
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
