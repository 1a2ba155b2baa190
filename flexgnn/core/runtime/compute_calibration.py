"""Measures how fast this machine computes: small pieces of what tiles do, on all threads at once, as in a run.

Shape legend: T rows of a tile, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from flexgnn.core.plan.rates import VECTOR_COLUMNS, ComputeRates, Figure, FigureKind
from flexgnn.core.plan.work import tile_work
from flexgnn.core.program.dropout import dropout
from flexgnn.core.program.kernels import NO_CURSOR, NO_VECTOR, pull_max, pull_max_gradient, pull_sum
from flexgnn.core.program.loss import count_correct, tile_loss
from flexgnn.core.program.program import RowContext, Segment
from flexgnn.core.program.segments import run_backward
from flexgnn.core.runtime.executor import single_threaded_products
from flexgnn.core.tier import Array

_TILE_ROWS = 2048
_PRODUCT_WIDTHS = (16, 64, 128, 512)
_OPERATOR_BYTES = (2**18, 2**20, 2**22, 2**24)
_PULL_WIDTHS = (16, 32, 64, 128, 256)
_PULL_BYTES = (2**16, 2**18, 2**20, 2**22, 2**24, 2**25, 2**27)
_DEGREE = 16
_LOSS_CLASSES = (2, 16, 64, 256)
_STREAMED_BYTES = 2**25

_ROUNDS = 3
"""Everything is measured in turn, and again: what disturbs the machine for a moment reaches one round of a figure."""

Job = Callable[[int, int], object]
"""``job(thread, repeat)`` does a thread's part of one repeat."""
Sample = tuple[FigureKind, tuple[int, ...], Array]
"""Some values of a figure."""


def measure_compute(threads: int) -> ComputeRates:
    """All figures, on ``threads`` threads. Takes a few seconds and, for their duration, about 200 MiB."""
    samples: dict[tuple[FigureKind, tuple[int, ...]], list[Array]] = {}
    with single_threaded_products(), ThreadPoolExecutor(threads) as pool:
        bench = _Bench(pool, threads)
        pulls = _Pulls(bench)
        for _ in range(_ROUNDS):
            for measure in (_products, _operators, _calls, _losses, _copies, pulls.measure, _steps):
                for kind, at, values in measure(bench):
                    samples.setdefault((kind, at), []).append(values)
    figures = tuple(_figure(kind, at, np.concatenate(values)) for (kind, at), values in samples.items())
    return ComputeRates(threads=threads, figures=figures)


def _figure(kind: FigureKind, at: tuple[int, ...], values: Array) -> Figure:
    low, median, high = (float(value) for value in np.percentile(values, (25, 50, 75)))
    return Figure(kind=kind, at=at, value=median, low=low, high=high)


@dataclass(frozen=True)
class _Bench:
    """Runs jobs on all threads at once."""

    pool: ThreadPoolExecutor
    threads: int

    def seconds(self, job: Job, *, repeats: int = 2, threads: int | None = None) -> Array:
        """Processor time of the job on a thread, on average, in each repeat but the first, which is not counted.

        Not wall time, which other processes would add to.
        """
        everyone = range(threads or self.threads)

        def timed(thread: int, repeat: int) -> float:
            start = time.thread_time()
            job(thread, repeat)
            return time.thread_time() - start

        return np.array(
            [np.mean(list(self.pool.map(timed, everyone, [repeat] * len(everyone)))) for repeat in range(repeats + 1)][
                1:
            ]
        )

    def wall_seconds(self, job: Job, *, repeats: int = 2) -> Array:
        """From the start of the first thread to the end of the last, in each repeat."""
        taken = []
        for repeat in range(repeats):
            start = time.perf_counter()
            list(self.pool.map(job, range(self.threads), [repeat] * self.threads))
            taken.append(time.perf_counter() - start)
        return np.array(taken)


def _products(bench: _Bench) -> Iterator[Sample]:
    widest = max(_PRODUCT_WIDTHS)
    tiles = [torch.rand(2, _TILE_ROWS * widest) for _ in range(bench.threads)]
    for inner, columns in product(_PRODUCT_WIDTHS, repeat=2):
        flops = 2 * _TILE_ROWS * inner * columns
        count = max(1, 2**26 // flops)
        weight = torch.rand(columns, inner)

        def rows(thread: int, _: int, inner: int = inner, weight: torch.Tensor = weight, count: int = count) -> None:
            tile = tiles[thread][0, : _TILE_ROWS * inner].view(_TILE_ROWS, inner)
            for _ in range(count):
                torch.mm(tile, weight.t())

        def reduction(thread: int, _: int, inner: int = inner, columns: int = columns, count: int = count) -> None:
            tile = tiles[thread][0, : _TILE_ROWS * inner].view(_TILE_ROWS, inner)
            gradient = tiles[thread][1, : _TILE_ROWS * columns].view(_TILE_ROWS, columns)
            for _ in range(count):
                torch.mm(gradient.t(), tile)

        yield "product", (inner, columns), bench.seconds(rows) / (count * flops)
        yield "reduction", (columns, inner), bench.seconds(reduction) / (count * flops)


def _operators(bench: _Bench) -> Iterator[Sample]:
    for size_bytes in _OPERATOR_BYTES:
        # Of one operator with one input and one output.
        tiles = [torch.rand(size_bytes // 8) for _ in range(bench.threads)]
        count = max(1, 2**24 // size_bytes)

        def work(thread: int, _: int, tiles: list[torch.Tensor] = tiles, count: int = count) -> None:
            for _ in range(count):
                torch.relu(tiles[thread])
                torch.mul(tiles[thread], 0.5)

        yield "operator", (size_bytes,), bench.seconds(work) / (2 * count * size_bytes)


def _calls(bench: _Bench) -> Iterator[Sample]:
    """A segment on so few rows that nothing but calls takes time."""
    weights = [torch.nn.Parameter(torch.rand(4, 4)) for _ in range(2)]
    segment = Segment(
        stage=0,
        inputs=("x",),
        outputs=("y",),
        run=lambda values, rows: (torch.relu(values[0] @ weights[0].t()) @ weights[1].t(),),
        parameters=tuple(weights),
    )
    values = {"x": torch.rand(4, 4)}
    rows = RowContext(start=0, seed=0, epoch=0, training=True)
    count = 20

    def run() -> object:
        return run_backward(
            segment, values, rows, frozenset("xy"), lambda outputs: {"y": torch.empty_like(outputs["y"])}
        )

    calls = count * tile_work(lambda _: run, _TILE_ROWS).calls

    def work(thread: int, _: int) -> None:
        for _ in range(count):
            run()

    yield "call", (), bench.seconds(work, threads=1) / calls
    yield "serial", (), bench.wall_seconds(work) / (calls * bench.threads)


def _losses(bench: _Bench) -> Iterator[Sample]:
    kinds: tuple[tuple[FigureKind, bool], ...] = (("loss", False), ("losses", True))
    split = torch.tensor([1, 1, 1, 2, 4], dtype=torch.uint8).repeat(_TILE_ROWS // 5 + 1)[:_TILE_ROWS]
    for (kind, multi_label), classes in product(kinds, _LOSS_CLASSES):
        logits = torch.rand(_TILE_ROWS, classes)
        one = torch.zeros(_TILE_ROWS, dtype=torch.int64)
        labels = torch.zeros(_TILE_ROWS, classes) if multi_label else one

        def work(thread: int, _: int, logits: torch.Tensor = logits, labels: torch.Tensor = labels) -> None:
            for _ in range(2):
                tile_loss(logits, labels, split, 1)
                count_correct(logits, labels, split)

        yield kind, (classes,), bench.seconds(work) / (2 * _TILE_ROWS)


def _copies(bench: _Bench) -> Iterator[Sample]:
    width, rows_in_reach = 128, _STREAMED_BYTES // 512
    source, target = (np.ones((rows_in_reach, width), dtype=np.float32) for _ in range(2))
    part = rows_in_reach // bench.threads
    chosen = np.random.default_rng(0).integers(0, rows_in_reach, rows_in_reach)

    def stream(thread: int, _: int) -> None:
        own = slice(thread * part, (thread + 1) * part)
        np.copyto(target[own], source[own])

    def gather(thread: int, _: int) -> None:
        own = slice(thread * part, (thread + 1) * part)
        np.take(source, chosen[own], axis=0, out=target[own], mode="clip")

    size_bytes = part * width * 4
    yield "stream", (), bench.seconds(stream) / (2 * size_bytes)
    yield "gather", (), bench.seconds(gather) / size_bytes
    tile = torch.rand(_TILE_ROWS, width)
    context = RowContext(start=0, seed=0, epoch=0, training=True)
    drawn = bench.seconds(lambda thread, _: dropout(tile, 0.5, thread, context))
    yield "draw", (), drawn / tile.numel()


class _Pulls:
    """Sums over neighbours that are drawn at random from a number of rows, ascending in each row."""

    tiles = 4
    """Of each thread, in a repeat."""

    def __init__(self, bench: _Bench) -> None:
        self._bench = bench
        shape = (bench.threads, self.tiles, _TILE_ROWS, _DEGREE)
        self._drawn = np.sort(np.random.default_rng(0).random(shape, dtype=np.float32), axis=-1)
        self._memory = np.ones(max(_PULL_BYTES) // 4, dtype=np.float32)

    def measure(self, bench: _Bench) -> Iterator[Sample]:
        """Everything of sums and maxima over neighbours."""
        near = _PULL_BYTES[1]
        for width in _PULL_WIDTHS:
            # Rows with few and with many edges tell a row from its edges.
            few = self._seconds(width, near, degree=4) / _TILE_ROWS
            many = self._seconds(width, near) / _TILE_ROWS
            of_row = np.maximum(few - (many - few) * 4 / (_DEGREE - 4), 0.1 * few)
            yield "row", (width,), of_row
            for reach_bytes in _PULL_BYTES:
                of_tile = self._seconds(width, reach_bytes) / _TILE_ROWS
                yield "pull", (width, reach_bytes), np.maximum(of_tile - of_row.min(), 0.1 * of_tile) / _DEGREE
        whole = 8 * VECTOR_COLUMNS
        extra = self._seconds(whole - 1, near) - self._seconds(whole, near)
        beyond = (whole - 1) % VECTOR_COLUMNS
        yield "remainder", (), np.maximum(extra / (_TILE_ROWS * _DEGREE * beyond), 1e-12)
        yield "maximum", (), self._maximum(128, near) / self._seconds(128, near).min()

    def _seconds(self, width: int, reach_bytes: int, degree: int = _DEGREE, repeats: int = 2) -> Array:
        """Of one tile on each thread."""
        num_rows = max(reach_bytes // (4 * width), 1)
        local = self._memory[: num_rows * width].reshape(num_rows, width)
        indptr = np.arange(_TILE_ROWS + 1, dtype=np.int64) * degree
        outs = [np.empty((_TILE_ROWS, width), dtype=np.float32) for _ in range(self._bench.threads)]
        # Other rows in each repeat, or all that a repeat touches might be found in a cache by the next.
        indices = [self._indices(num_rows, degree, repeat) for repeat in range(repeats + 1)]

        def pull(thread: int, repeat: int) -> None:
            for tile in range(self.tiles):
                pull_sum(*_within(local), indptr, indices[repeat][thread, tile], *[NO_VECTOR] * 3, 0, 0, outs[thread])

        return self._bench.seconds(pull, repeats=repeats) / self.tiles

    def _indices(self, num_rows: int, degree: int, repeat: int) -> Array:
        shifted = (self._drawn[..., :degree] + np.float32(0.37 * repeat)) % 1
        indices = np.minimum((shifted * num_rows).astype(np.int32), num_rows - 1)
        return indices.reshape(*indices.shape[:2], -1)

    def _maximum(self, width: int, reach_bytes: int) -> Array:
        """Of one tile on each thread: the mean of the maximum and its gradient, each a touched column."""
        num_rows = reach_bytes // (4 * width)
        local = self._memory[: num_rows * width].reshape(num_rows, width)
        half = width // 2
        indptr = np.arange(_TILE_ROWS + 1, dtype=np.int64) * _DEGREE
        outs = [np.empty((2, _TILE_ROWS, width), dtype=np.float32) for _ in range(self._bench.threads)]
        halves = [np.empty((2, _TILE_ROWS, half), dtype=np.float32) for _ in range(self._bench.threads)]
        indices = self._indices(num_rows, _DEGREE, 0)

        def pull(thread: int, _: int) -> None:
            pull_max(*_within(local), indptr, indices[thread, 0], 0, *outs[thread])
            pull_max_gradient(*_within(local), indptr, indices[thread, 0], 0, *halves[thread])

        return self._bench.seconds(pull) / 2


def _within(local: Array) -> tuple[Array, Array, int, int, Array, Array, bool]:
    """A single pass over rows that are all at hand, as kernels take it."""
    return local, local[:0], 0, 0, NO_CURSOR, NO_CURSOR, True


def _steps(bench: _Bench) -> Iterator[Sample]:
    """A step hands a tile to every thread, and waits for all."""
    yield "step", (), bench.wall_seconds(lambda thread, _: None, repeats=20)
