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
from torch import Tensor

from flexgnn.core.plan.rates import FAR_PERCENT, NEAR_BYTES, VECTOR_COLUMNS, ComputeRates, Figure, FigureKind
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
_TILES_IN_TURN = 8
_FLOPS_AT_ONCE = 2**27
_OPERATOR_BYTES = (2**18, 2**20, 2**22, 2**24)
_PULL_WIDTHS = (16, 32, 64, 128, 256)
_PULL_BYTES = (NEAR_BYTES, 2**20, 2**22, 2**24, 2**27)
_DEGREE = 16
_LOSS_CLASSES = (2, 16, 64, 256)
_STREAMED_BYTES = 2**25

_ROUNDS = 3
"""Everything is measured in turn, and again: what disturbs the machine for a moment reaches one round of a figure."""

_NO_VECTORS = (NO_VECTOR, NO_VECTOR, NO_VECTOR)

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
    # Tiles come from memory, each product from other ones.
    memory = torch.rand(bench.threads, _TILES_IN_TURN, _TILE_ROWS * max(_PRODUCT_WIDTHS))
    for inner, columns in product(_PRODUCT_WIDTHS, repeat=2):
        flops = 2 * _TILE_ROWS * inner * columns
        both = [_product_seconds(bench, memory, inner, columns, transposed) / flops for transposed in (True, False)]
        yield "product", (inner, columns), (both[0] + both[1]) / 2
        yield "reduction", (columns, inner), _reduction_seconds(bench, memory, inner, columns) / flops
    odd, even = (_product_seconds(bench, memory, 128, columns, True) for columns in (47, 48))
    yield "odd", (), odd / even.min()


def _product_seconds(bench: _Bench, memory: Tensor, inner: int, columns: int, transposed: bool) -> Array:
    """Of a tile by a weight, which forward takes transposed and backward as it is."""
    weight = torch.rand(columns, inner).t() if transposed else torch.rand(inner, columns)
    count = max(1, _FLOPS_AT_ONCE // (2 * _TILE_ROWS * inner * columns))

    def multiply(thread: int, _: int) -> None:
        for turn in range(count):
            torch.mm(_tile(memory[thread], turn, inner), weight)

    return bench.seconds(multiply) / count


def _reduction_seconds(bench: _Bench, memory: Tensor, inner: int, columns: int) -> Array:
    count = max(1, _FLOPS_AT_ONCE // (2 * _TILE_ROWS * inner * columns))

    def multiply(thread: int, _: int) -> None:
        for turn in range(count):
            torch.mm(_tile(memory[thread], turn, columns).t(), _tile(memory[thread], turn + 1, inner))

    return bench.seconds(multiply) / count


def _tile(memory: Tensor, turn: int, width: int) -> Tensor:
    """T x width of a thread's memory."""
    return memory[turn % _TILES_IN_TURN, : _TILE_ROWS * width].view(_TILE_ROWS, width)


def _operators(bench: _Bench) -> Iterator[Sample]:
    for size_bytes in _OPERATOR_BYTES:
        # Of one operator with one input and one output.
        tiles = [torch.rand(size_bytes // 8) for _ in range(bench.threads)]
        count = max(1, 2**24 // size_bytes)

        def work(thread: int, _: int, tiles: list[Tensor] = tiles, count: int = count) -> None:
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

        def work(thread: int, _: int, logits: Tensor = logits, labels: Tensor = labels) -> None:
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
        np.multiply(source[own], 2, out=target[own])

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
        random = np.random.default_rng(0)
        self._drawn = np.sort(random.random(shape, dtype=np.float32), axis=-1)
        self._far = random.random(shape, dtype=np.float32) * 100
        self._memory = np.ones(max(_PULL_BYTES) // 4, dtype=np.float32)

    def measure(self, bench: _Bench) -> Iterator[Sample]:
        """Everything of sums and maxima over neighbours."""
        for width in _PULL_WIDTHS:
            # Rows with few and with many edges tell a row from its edges.
            few = self._seconds(width, NEAR_BYTES, degree=4) / _TILE_ROWS
            near = self._seconds(width, NEAR_BYTES) / _TILE_ROWS
            of_row = np.maximum(few - (near - few) * 4 / (_DEGREE - 4), 0.1 * few)
            of_near = (near - of_row.min()) / _DEGREE
            yield "row", (width,), of_row
            for percent, reach_bytes in product(FAR_PERCENT, _PULL_BYTES):
                seconds = self._seconds(width, reach_bytes, percent=percent) / _TILE_ROWS
                of_edge = (seconds - of_row.min()) / _DEGREE
                of_far = (of_edge - of_near.min() * (1 - percent / 100)) * 100 / percent
                yield "pull", (width, reach_bytes, percent), np.maximum(of_far, 0.1 * of_near)
        whole = 8 * VECTOR_COLUMNS
        extra = self._seconds(whole - 1, NEAR_BYTES) - self._seconds(whole, NEAR_BYTES)
        beyond = (whole - 1) % VECTOR_COLUMNS
        yield "remainder", (), np.maximum(extra / (_TILE_ROWS * _DEGREE * beyond), 1e-12)
        yield "maximum", (), self._maximum(128, NEAR_BYTES) / self._seconds(128, NEAR_BYTES).min()

    def _seconds(self, width: int, reach_bytes: int, *, degree: int = _DEGREE, percent: int = 100) -> Array:
        """Of one tile on each thread."""
        num_rows = max(reach_bytes // (4 * width), 1)
        local = self._memory[: num_rows * width].reshape(num_rows, width)
        indptr = np.arange(_TILE_ROWS + 1, dtype=np.int64) * degree
        outs = [np.empty((_TILE_ROWS, width), dtype=np.float32) for _ in range(self._bench.threads)]
        # Other rows in each repeat, or all that a repeat touches might be found in a cache by the next.
        repeats = 2
        indices = [self._indices(width, num_rows, degree, percent, repeat) for repeat in range(repeats + 1)]

        def pull(thread: int, repeat: int) -> None:
            for tile in range(self.tiles):
                pull_sum(*_within(local), indptr, indices[repeat][thread, tile], *_NO_VECTORS, 0, 0, outs[thread])

        return self._bench.seconds(pull, repeats=repeats) / self.tiles

    def _indices(self, width: int, num_rows: int, degree: int, percent: int, repeat: int) -> Array:
        """Threads x tiles x edges, int32."""
        shifted = (self._drawn[..., :degree] + np.float32(0.37 * repeat)) % 1
        reach = np.where(self._far[..., :degree] < percent, num_rows, min(NEAR_BYTES // (4 * width), num_rows))
        indices = np.minimum(shifted * reach, reach - 1).astype(np.int32)
        flat: Array = indices.reshape(*indices.shape[:2], -1)
        return flat

    def _maximum(self, width: int, reach_bytes: int) -> Array:
        """Of one tile on each thread: the mean of the maximum and its gradient, each a touched column."""
        num_rows = reach_bytes // (4 * width)
        local = self._memory[: num_rows * width].reshape(num_rows, width)
        half = width // 2
        indptr = np.arange(_TILE_ROWS + 1, dtype=np.int64) * _DEGREE
        outs = [np.empty((2, _TILE_ROWS, width), dtype=np.float32) for _ in range(self._bench.threads)]
        halves = [np.empty((2, _TILE_ROWS, half), dtype=np.float32) for _ in range(self._bench.threads)]
        indices = self._indices(width, num_rows, _DEGREE, 100, 0)

        def pull(thread: int, _: int) -> None:
            pull_max(*_within(local), indptr, indices[thread, 0], 0, *outs[thread])
            pull_max_gradient(*_within(local), indptr, indices[thread, 0], 0, *halves[thread])

        return self._bench.seconds(pull) / 2


def _within(local: Array) -> tuple[Array, Array, Array, int, int, Array, Array, bool]:
    """A single pass over rows that are all at hand, as kernels take it."""
    return local, local[:0], local[:0], 0, 0, NO_CURSOR, NO_CURSOR, True


def _steps(bench: _Bench) -> Iterator[Sample]:
    """A step hands a tile to every thread, and waits for all; a tile calls a kernel on views of arrays."""
    yield "step", (), bench.wall_seconds(lambda thread, _: None, repeats=20)
    row = np.zeros((2, 1), dtype=np.float32)
    indptr, indices = np.zeros(2, dtype=np.int64), np.zeros(0, dtype=np.int32)
    count = 20

    def work(thread: int, _: int) -> None:
        for _ in range(count):
            for _ in range(4):
                torch.from_numpy(row[:1])
            pull_sum(*_within(row), indptr, indices, *_NO_VECTORS, 0, 0, row[1:])

    yield "tile", (), bench.seconds(work, threads=1) / count
