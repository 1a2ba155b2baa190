"""What compiled kernels do with some columns of rows, lanes at a time; see ``rows.py`` and ``lanes.py``.

All columns but the last few are taken by whole lanes: to choose among lanes is no slower for reading, but for writing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flexgnn.core.compiling import compiled
from flexgnn.core.program.lanes import (
    LANES,
    add_lanes,
    load_lanes,
    load_some,
    multiply_lanes,
    put_lanes,
    put_some,
    select_lanes,
    spread,
    total_of,
)
from flexgnn.core.program.rows import element, store

Unsigned = Any
"""np.uint64, which a type checker has no arithmetic with."""

KERNEL_OPTIONS: dict[str, Any] = {"fastmath": {"contract", "reassoc"}, "boundscheck": False}
"""Of Numba, for kernels that work on rows by their address."""

_ZERO = np.uint64(0)

_inlined = compiled(forceinline=True, **KERNEL_OPTIONS)


@_inlined
def add_to(row: np.uint64, column: Unsigned, value: np.float32) -> None:
    """Add to one column."""
    store(row, column, element(row, column) + value)


@_inlined
def dot(a: np.uint64, first_a: Unsigned, b: np.uint64, first_b: Unsigned, count: Unsigned) -> np.float32:
    """The product of ``count`` columns of two rows."""
    sums, c = spread(np.float32(0)), _ZERO
    while c + LANES <= count:
        sums = add_lanes(sums, multiply_lanes(load_lanes(a, first_a + c), load_lanes(b, first_b + c)))
        c += LANES
    if c < count:
        rest = count - c
        sums = add_lanes(sums, multiply_lanes(load_some(a, first_a + c, rest), load_some(b, first_b + c, rest)))
    total: np.float32 = total_of(sums)
    return total


@_inlined
def add_scaled(
    out: np.uint64, first_out: Unsigned, row: np.uint64, first: Unsigned, count: Unsigned, factor: np.float32
) -> None:
    """Add ``count`` columns of ``row``, times ``factor``, to those of ``out``."""
    factors, c = spread(factor), _ZERO
    while c + LANES <= count:
        added = multiply_lanes(factors, load_lanes(row, first + c))
        put_lanes(out, first_out + c, add_lanes(load_lanes(out, first_out + c), added))
        c += LANES
    if c < count:
        rest = count - c
        added = multiply_lanes(factors, load_some(row, first + c, rest))
        put_some(out, first_out + c, rest, add_lanes(load_some(out, first_out + c, rest), added))


@_inlined
def scale_columns(out: np.uint64, first: Unsigned, count: Unsigned, factor: np.float32) -> None:
    """Multiply ``count`` columns by ``factor``."""
    factors, c = spread(factor), _ZERO
    while c + LANES <= count:
        put_lanes(out, first + c, multiply_lanes(factors, load_lanes(out, first + c)))
        c += LANES
    if c < count:
        rest = count - c
        put_some(out, first + c, rest, multiply_lanes(factors, load_some(out, first + c, rest)))


@_inlined
def leaky_dot(
    weights: np.uint64, a: np.uint64, b: np.uint64, first: Unsigned, count: Unsigned, slope: np.float32
) -> np.float32:
    """The product of ``weights`` and the leaky ReLU of ``a + b``, of ``count`` columns of all three."""
    slopes, sums, c = spread(slope), spread(np.float32(0)), _ZERO
    while c < count:
        rest = count - c
        x = add_lanes(load_some(a, first + c, rest), load_some(b, first + c, rest))
        leaky = select_lanes(x, x, multiply_lanes(slopes, x))
        sums = add_lanes(sums, multiply_lanes(load_some(weights, first + c, rest), leaky))
        c += LANES
    total: np.float32 = total_of(sums)
    return total


@_inlined
def add_leaky_gradient(
    weights: np.uint64,
    a: np.uint64,
    b: np.uint64,
    first: Unsigned,
    count: Unsigned,
    slope: np.float32,
    gradient: np.float32,
    out: np.uint64,
    weights_at: Unsigned,
) -> None:
    """Add the gradient of ``a``, which is that of ``b``, where ``gradient`` is that of :func:`leaky_dot`.

    That of the weights is added so many columns further on as ``weights_at`` says; 0: it is not wanted.
    """
    gradients, slopes, ones, c = spread(gradient), spread(slope), spread(np.float32(1)), first
    while c < first + count:
        rest = first + count - c
        x = add_lanes(load_some(a, c, rest), load_some(b, c, rest))
        of_leaky = select_lanes(x, ones, slopes)
        added = multiply_lanes(gradients, multiply_lanes(load_some(weights, c, rest), of_leaky))
        _put(out, c, rest, add_lanes(load_some(out, c, rest), added))
        if weights_at > _ZERO:
            leaky = multiply_lanes(gradients, multiply_lanes(of_leaky, x))
            _put(out, weights_at + c, rest, add_lanes(load_some(out, weights_at + c, rest), leaky))
        c += LANES


@_inlined
def _put(out: np.uint64, column: Unsigned, rest: Unsigned, values: Any) -> None:
    if rest >= LANES:
        put_lanes(out, column, values)
    else:
        put_some(out, column, rest, values)
