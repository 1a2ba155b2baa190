"""Measures sums and maxima over neighbours: by width, and by how far the rows are that the edges lead to.

Shape legend: T rows of a tile, D width.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flexgnn.core.plan.rates import VECTOR_COLUMNS
from flexgnn.core.program.kernels import NO_CURSOR, NO_VECTOR, pull_max, pull_max_gradient, pull_sum
from flexgnn.core.runtime.bench import TILE_ROWS, Bench, Sample
from flexgnn.core.tier import Array

_PULL_WIDTHS = (16, 32, 64, 128, 256)
_NEAR_BYTES = 2**18
"""In a cache of a core of its own."""
_PULL_BYTES = (_NEAR_BYTES, 2**20, 2**22, 2**24, 2**25, 2**26, 2**27)
_DEGREE = 16

NO_VECTORS = (NO_VECTOR, NO_VECTOR, NO_VECTOR)
"""For a sum without weights, loops and scales."""


class PullMeasurement:
    """Sums over neighbours that are drawn at random from a number of rows, ascending in each row."""

    tiles = 8
    """Of each thread, in a repeat."""

    def __init__(self, threads: int) -> None:
        shape = (threads, self.tiles, TILE_ROWS, _DEGREE)
        random = np.random.default_rng(0)
        drawn = np.sort(random.random(shape, dtype=np.float32), axis=-1)
        # Other rows in each repeat, or all that a repeat touches might be found in a cache by the next.
        self._drawn = [(drawn + np.float32(0.37 * repeat)) % 1 for repeat in range(3)]
        self._memory = np.empty(0, dtype=np.float32)

    def samples(self, bench: Bench) -> Iterator[Sample]:
        """Everything of sums and maxima over neighbours."""
        self._memory = np.ones(max(_PULL_BYTES) // 4, dtype=np.float32)
        yield from self._samples(bench)
        self._memory = self._memory[:0].copy()

    def _samples(self, bench: Bench) -> Iterator[Sample]:
        # What is measured first would be measured cold.
        self._seconds(bench, _PULL_WIDTHS[0], max(_PULL_BYTES))
        for width in _PULL_WIDTHS:
            # Rows with few and with many edges tell a row from its edges.
            few = self._seconds(bench, width, _NEAR_BYTES, degree=4) / TILE_ROWS
            near = self._seconds(bench, width, _NEAR_BYTES) / TILE_ROWS
            of_row = np.maximum(few - (near - few) * 4 / (_DEGREE - 4), 0.1 * few)
            yield "row", (width,), of_row
            for reach_bytes in _PULL_BYTES:
                seconds = self._seconds(bench, width, reach_bytes) / TILE_ROWS
                yield "pull", (width, reach_bytes), np.maximum(seconds - of_row.min(), 0.1 * seconds) / _DEGREE
        whole = 8 * VECTOR_COLUMNS
        extra = self._seconds(bench, whole - 1, _NEAR_BYTES) - self._seconds(bench, whole, _NEAR_BYTES)
        beyond = (whole - 1) % VECTOR_COLUMNS
        yield "remainder", (), np.maximum(extra / (TILE_ROWS * _DEGREE * beyond), 1e-12)
        yield "maximum", (), self._maximum(bench, 128, _NEAR_BYTES) / self._seconds(bench, 128, _NEAR_BYTES).min()

    def _seconds(self, bench: Bench, width: int, reach_bytes: int, *, degree: int = _DEGREE) -> Array:
        """Of one tile on each thread."""
        local = self._rows(width, reach_bytes)
        indptr = np.arange(TILE_ROWS + 1, dtype=np.int64) * degree
        outs = [np.empty((TILE_ROWS, width), dtype=np.float32) for _ in range(bench.threads)]
        indices = [self._indices(local, degree, repeat) for repeat in range(bench.repeats + 1)]

        def pull(thread: int, repeat: int) -> None:
            for tile in range(self.tiles):
                pull_sum(*whole_pass(local), indptr, indices[repeat][thread, tile], *NO_VECTORS, 0, 0, outs[thread])

        # Rows in reach that fit in a cache are there, as in a run that has touched them before.
        bench.once(pull, repeat=bench.repeats)
        return bench.seconds(pull) / self.tiles

    def _rows(self, width: int, reach_bytes: int) -> Array:
        num_rows = max(reach_bytes // (4 * width), 1)
        return self._memory[: num_rows * width].reshape(num_rows, width)

    def _indices(self, local: Array, degree: int, repeat: int) -> Array:
        """Threads x tiles x edges, int32: each of them leads to any row of ``local``."""
        last = len(local) - 1
        indices = np.minimum(self._drawn[repeat][..., :degree] * (last + 1), last).astype(np.int32)
        flat: Array = indices.reshape(*indices.shape[:2], -1)
        return flat

    def _maximum(self, bench: Bench, width: int, reach_bytes: int) -> Array:
        """Of one tile on each thread: the mean of the maximum and its gradient, each a touched column."""
        local = self._rows(width, reach_bytes)
        half = width // 2
        indptr = np.arange(TILE_ROWS + 1, dtype=np.int64) * _DEGREE
        outs = [np.empty((2, TILE_ROWS, width), dtype=np.float32) for _ in range(bench.threads)]
        halves = [np.empty((2, TILE_ROWS, half), dtype=np.float32) for _ in range(bench.threads)]
        indices = self._indices(local, _DEGREE, 0)

        def pull(thread: int, _: int) -> None:
            pull_max(*whole_pass(local), indptr, indices[thread, 0], 0, *outs[thread])
            pull_max_gradient(*whole_pass(local), indptr, indices[thread, 0], 0, *halves[thread])

        return bench.seconds(pull) / 2


def whole_pass(local: Array) -> tuple[Array, Array, Array, int, int, Array, Array, bool]:
    """A single pass over rows that are all at hand, as kernels take it."""
    return local, local[:0], local[:0], 0, 0, NO_CURSOR, NO_CURSOR, True
