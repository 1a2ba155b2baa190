"""How fast a machine computes: figures by kind and size, and what follows from them for sizes between.

Every figure is in seconds of one thread while all threads of the pool do the same, as in a run: a figure tells what
the threads cost each other. Kinds, the sizes that they are measured at, and the unit:

=============  ==================================  ==================================================================
``product``    k, n                                a flop of ``(T x k) (k x n)`` over the T rows of a tile
``odd``        none                                a product with an odd number of columns, in products with one more
``reduction``  m, n                                a flop of ``(m x T) (T x n)``: the gradient of a weight
``operator``   bytes that it touches               a byte of an operator that is no product
``tile``       none                                a tile, whatever it computes
``call``       none                                a call of a torch operator, one thread alone
``serial``     none                                a call of a torch operator, divided by the threads that call
``draw``       none                                a value of dropout
``stream``     none                                a byte read from or written to memory in order
``gather``     none                                a byte of rows copied from where they lie to where they go together
``pull``       width, bytes in reach               an edge of a sum over neighbours; see below
``row``        width                               a row of a sum over neighbours
``remainder``  none                                an edge and column beyond a multiple of 8 columns
``maximum``    none                                a maximum over neighbours and its gradient, in sums of that width
``loss``       classes                             a row of loss, gradient and accuracies, one label a node
``losses``     classes                             the same with several labels a node
``step``       none                                a step, whatever it computes
=============  ==================================  ==================================================================

For ``pull``, rows are drawn at random from so many bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from flexgnn.core.plan.work import Product, Work
from flexgnn.core.tier import Array

FigureKind = Literal[
    "product",
    "odd",
    "reduction",
    "operator",
    "tile",
    "call",
    "serial",
    "draw",
    "stream",
    "gather",
    "pull",
    "row",
    "remainder",
    "maximum",
    "loss",
    "losses",
    "step",
]
FIGURE_KINDS: tuple[FigureKind, ...] = get_args(FigureKind)

_SIZES: dict[FigureKind, int] = {
    "product": 2,
    "reduction": 2,
    "operator": 1,
    "pull": 2,
    "row": 1,
    "loss": 1,
    "losses": 1,
}
"""How many sizes a figure of a kind is at; 0 for all others."""

LINE_COLUMNS = 16
"""Float32 in a cache line."""
VECTOR_COLUMNS = 8
"""Columns that a kernel adds at once; those beyond a multiple of it cost extra."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured or stated figure."""

    kind: FigureKind
    at: tuple[int, ...]
    """Sizes, by kind."""
    value: float
    """The median, in the unit of the kind."""
    low: float
    """First quartile of the repeats."""
    high: float
    """Third quartile of the repeats."""


@dataclass(frozen=True, kw_only=True)
class ComputeRates:
    """The figures of one machine. Every kind has at least one."""

    threads: int
    """Of the pool that works on tiles."""
    figures: tuple[Figure, ...]

    def __post_init__(self) -> None:
        """Check that nothing is missing.

        Raises:
            ValueError: if a kind has no figure, or a figure is not a positive number.
        """
        missing = set(FIGURE_KINDS) - {figure.kind for figure in self.figures}
        if missing or self.threads < 1:
            raise ValueError(f"figures of {', '.join(sorted(missing)) or 'any thread'} are missing")
        for figure in self.figures:
            if len(figure.at) != _SIZES.get(figure.kind, 0):
                raise ValueError(f"the figure {figure.kind} is at {figure.at}")
        if not all(math.isfinite(f.value) and f.value > 0 for f in self.figures):
            raise ValueError("a figure is not above 0")

    def work_seconds(self, work: Work) -> float:
        """Of one thread for ``work``, calls of operators excepted."""
        products = sum(self._product(of_shape) for of_shape in work.products)
        operators = sum(size * self._operator_byte(size) for size in work.elementwise_bytes)
        return products + operators + work.drawn * self.single("draw")

    def loss_seconds(self, columns: int, *, multi_label: bool) -> float:
        """Of one thread for a row of loss, gradient and accuracies."""
        sizes, values = self._curve("losses" if multi_label else "loss")
        return _linear(columns, sizes, values)

    def row_seconds(self, width: int) -> float:
        """Of one thread for a row that is summed into, beside its edges."""
        return _linear(width, *self._curve("row"))

    def edge_seconds(self, width: int, reach: Reach) -> Array:
        """Of one thread for an edge of a sum over rows of ``width`` float32, by tile of ``reach``: float64."""
        # Rows that don't fill cache lines reach into others.
        touched = width + LINE_COLUMNS - math.gcd(width, LINE_COLUMNS)
        widths = self._pull_widths
        below = max((w for w in widths if w <= touched), default=widths[0])
        above = min((w for w in widths if w >= touched), default=widths[-1])
        bounds = reach.bytes_between(touched)
        seconds = self._reached(below, reach, bounds)
        if touched > above:
            seconds = seconds * touched / above
        elif below < above:
            wider = self._reached(above, reach, bounds)
            seconds = seconds + (wider - seconds) * (touched - below) / (above - below)
        return seconds + width % VECTOR_COLUMNS * self.single("remainder")

    def single(self, kind: FigureKind) -> float:
        """The figure of a kind that has one."""
        return self._by_kind[kind][0].value

    @cached_property
    def _by_kind(self) -> dict[FigureKind, list[Figure]]:
        return {kind: [f for f in self.figures if f.kind == kind] for kind in FIGURE_KINDS}

    def _curve(self, kind: FigureKind) -> tuple[Array, Array]:
        """Sizes and values of a kind that is measured at one size, ascending."""
        figures = sorted(self._by_kind[kind], key=lambda figure: figure.at)
        return np.array([f.at[-1] for f in figures], dtype=float), np.array([f.value for f in figures])

    def _product(self, of_shape: Product) -> float:
        m, k, n = of_shape
        if k > max(m, n):
            return 2.0 * m * k * n * self._flop("reduction", m, n)
        columns = n if m >= n else m
        return 2.0 * m * k * n * self._flop("product", k, columns) * (self.single("odd") if columns % 2 else 1.0)

    def _flop(self, kind: FigureKind, first: int, second: int) -> float:
        """Between the sizes that were measured, linear in the logarithms of both; outside, the nearest."""
        rows, columns, values = self._grids[kind]
        by_row = np.array([np.interp(math.log(max(second, 1)), columns, of_row) for of_row in values])
        return float(np.interp(math.log(max(first, 1)), rows, by_row))

    @cached_property
    def _grids(self) -> dict[FigureKind, tuple[Array, Array, Array]]:
        kinds: tuple[FigureKind, ...] = ("product", "reduction")
        return {kind: _grid(self._by_kind[kind]) for kind in kinds}

    def _operator_byte(self, size_bytes: int) -> float:
        sizes, values = self._curve_of_operators
        return float(np.interp(math.log(max(size_bytes, 1)), sizes, values))

    @cached_property
    def _curve_of_operators(self) -> tuple[Array, Array]:
        sizes, values = self._curve("operator")
        return np.log(sizes), values

    @cached_property
    def _pull_widths(self) -> list[int]:
        return sorted({figure.at[0] for figure in self._by_kind["pull"]})

    def _reached(self, width: int, reach: Reach, bounds: Array) -> Array:
        """Seconds of an edge at a width that was measured, by tile: means over how far the rows are."""
        seconds: Array = reach.shares @ _mean_slopes(bounds, *self._pull_slopes[width])
        return seconds

    @cached_property
    def _pull_slopes(self) -> dict[int, tuple[Array, Array]]:
        """By width: bounds of reach in bytes, and the seconds of an edge to a row between two of them.

        Where rows are drawn at random from W bytes, the bytes touched since a row was last touched are anything up to W
        with equal chance, so that the mean over W is measured; what a row costs at W itself is the slope of W times it.
        """
        slopes = {}
        for width in self._pull_widths:
            figures = sorted((f.at[1], f.value) for f in self._by_kind["pull"] if f.at[0] == width)
            bounds = np.array([0.0, *(size for size, _ in figures)])
            sums = np.array([0.0, *(size * value for size, value in figures)])
            # Farther is never faster; a figure that says so was disturbed.
            slopes[width] = bounds, np.maximum.accumulate(np.diff(sums) / np.diff(bounds))
        return slopes


@dataclass(frozen=True, kw_only=True, eq=False)
class Reach:
    """How far the rows are that the edges of a graph lead to: what a thread touched since it last touched the row.

    There are K ranges of distances, and T tiles.
    """

    rows: Array
    """float64, K + 1, ascending: bounds of the ranges, in different rows touched since."""
    edges: Array
    """float64, K + 1, ascending: the same bounds in edges followed since."""
    degree: float
    """Edges of a row on average."""
    shares: Array
    """float64, T x K: of the edges of each tile, by range; they add up to 1."""

    def bytes_between(self, width: int) -> Array:
        """The bounds in bytes (K + 1): rows of ``width`` float32 that are read and written, and indices."""
        per_edge = 4 + 4 * width / self.degree
        return self.rows * 4 * width + self.edges * per_edge


def _mean_slopes(at: Array, bounds: Array, slopes: Array) -> Array:
    """Means of a step function between consecutive values of ``at``; its last step goes on for ever."""
    sums = np.concatenate([[0.0], np.cumsum(np.diff(bounds) * slopes)])
    integral = np.interp(at, bounds, sums) + np.maximum(at - bounds[-1], 0) * slopes[-1]
    means: Array = np.diff(integral) / np.maximum(np.diff(at), 1e-9)
    return means


def _linear(size: float, sizes: Array, values: Array) -> float:
    """Between the sizes linear, below the smallest its value, above the largest in proportion."""
    return float(np.interp(size, sizes, values) * max(size / sizes[-1], 1.0))


def _grid(figures: Sequence[Figure]) -> tuple[Array, Array, Array]:
    """Logarithms of both sizes, and the values over them.

    Raises:
        KeyError: if a pair of sizes is missing.
    """
    values = {f.at: f.value for f in figures}
    firsts, seconds = sorted({f.at[0] for f in figures}), sorted({f.at[1] for f in figures})
    grid = np.array([[values[first, second] for second in seconds] for first in firsts])
    return np.log(firsts), np.log(seconds), grid
