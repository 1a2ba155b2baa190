"""Measures how fast this machine computes: small pieces of what tiles do, on all threads at once, as in a run.

Shape legend: T rows of a tile, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch_geometric.nn import GIN

from flexgnn.core.graph.layout import ALIGNED_ROWS, MULTI_CLASS, MULTI_LABEL
from flexgnn.core.plan.rates import ComputeRates, Figure, FigureKind
from flexgnn.core.plan.work import tile_work
from flexgnn.core.program.criterion import TrainingLoss, default_loss
from flexgnn.core.program.dropout import dropout
from flexgnn.core.program.kernels import pull_sum
from flexgnn.core.program.loss import count_correct, tile_loss
from flexgnn.core.program.lower import lower
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.program.segments import run_backward
from flexgnn.core.runtime.bench import TILE_ROWS, Bench, Sample
from flexgnn.core.runtime.pull_calibration import NO_VECTORS, PullMeasurement, whole_pass
from flexgnn.core.runtime.tile_pool import single_threaded_products, tile_pool
from flexgnn.core.tier import Array

_PRODUCT_WIDTHS = (16, 64, 128, 512)
_FLOPS_AT_ONCE = 2**26
_OPERATOR_BYTES = (2**18, 2**20, 2**22, 2**24)
_LOSS_CLASSES = (2, 16, 64, 256)
_STREAMED_BYTES = 2**26
"""More than most caches hold."""

_ROUNDS = 3
"""Everything is measured in turn, and again: what disturbs the machine for a moment reaches one round of a figure. The
first is not counted."""


def measure_compute(threads: int) -> ComputeRates:
    """All figures, on ``threads`` threads. Takes a few seconds and, for their duration, about 250 MiB."""
    samples: dict[tuple[FigureKind, tuple[int, ...]], list[Array]] = {}
    pulls = PullMeasurement(threads)
    with single_threaded_products(), tile_pool(threads) as pool:
        for number in range(_ROUNDS):
            bench = Bench(pool=pool, threads=threads, repeats=1 if number == 0 else 2)
            for measure in (_products, _operators, _calls, _losses, _copies, pulls.samples, _steps):
                for kind, at, values in measure(bench):
                    if number > 0:
                        samples.setdefault((kind, at), []).append(values)
    figures = tuple(_figure(kind, at, np.concatenate(values)) for (kind, at), values in samples.items())
    return ComputeRates(threads=threads, figures=figures)


def _figure(kind: FigureKind, at: tuple[int, ...], values: Array) -> Figure:
    low, median, high = (float(value) for value in np.percentile(values, (25, 50, 75)))
    return Figure(kind=kind, at=at, value=median, low=low, high=high)


def _products(bench: Bench) -> Iterator[Sample]:
    tiles = _Tiles(bench.threads)
    for inner, columns in product(_PRODUCT_WIDTHS, repeat=2):
        flops = 2 * TILE_ROWS * inner * columns
        # Forward takes the weight transposed, backward as it is.
        both = [_product_seconds(bench, tiles, inner, columns, transposed) / flops for transposed in (True, False)]
        yield "product", (inner, columns), (both[0] + both[1]) / 2
        yield "reduction", (columns, inner), _reduction_seconds(bench, tiles, inner, columns) / flops
    odd, even = (_product_seconds(bench, tiles, 128, columns, transposed=True) for columns in (47, 48))
    yield "odd", (), odd / even.min()


class _Tiles:
    """Tiles out of more memory than caches hold, other ones in each turn."""

    def __init__(self, threads: int) -> None:
        self._memory = torch.ones(_STREAMED_BYTES // 4)
        self._apart = len(self._memory) // threads

    def take(self, thread: int, turn: int, width: int) -> Tensor:
        """T x ``width``."""
        size = TILE_ROWS * width
        first = (thread * self._apart + turn * size) % (len(self._memory) - size)
        first -= first % ALIGNED_ROWS
        return self._memory[first : first + size].view(TILE_ROWS, width)


def _product_seconds(bench: Bench, tiles: _Tiles, inner: int, columns: int, transposed: bool) -> Array:
    """Of a tile by a weight."""
    weight = torch.ones(columns, inner).t() if transposed else torch.ones(inner, columns)
    count = max(1, _FLOPS_AT_ONCE // (2 * TILE_ROWS * inner * columns))

    def multiply(thread: int, _: int) -> None:
        for turn in range(count):
            torch.mm(tiles.take(thread, turn, inner), weight)

    return bench.seconds(multiply) / count


def _reduction_seconds(bench: Bench, tiles: _Tiles, inner: int, columns: int) -> Array:
    """Of a weight's gradient."""
    count = max(1, _FLOPS_AT_ONCE // (2 * TILE_ROWS * inner * columns))

    def multiply(thread: int, _: int) -> None:
        for turn in range(count):
            torch.mm(tiles.take(thread, turn, columns).t(), tiles.take(thread, turn + 1, inner))

    return bench.seconds(multiply) / count


def _operators(bench: Bench) -> Iterator[Sample]:
    for size_bytes in _OPERATOR_BYTES:
        # Of one operator with one input and one output.
        tiles = [torch.rand(size_bytes // 8) for _ in range(bench.threads)]
        count = max(1, 2**24 // size_bytes)

        def work(thread: int, _: int, tiles: list[Tensor] = tiles, count: int = count) -> None:
            for _ in range(count):
                torch.relu(tiles[thread])
                torch.mul(tiles[thread], 0.5)

        yield "operator", (size_bytes,), bench.seconds(work) / (2 * count * size_bytes)


def _calls(bench: Bench) -> Iterator[Sample]:
    """A segment on so few rows that nothing but calls takes time."""
    segment = lower(GIN(4, 4, num_layers=1), num_features=4).segments[-1]
    values = {name: torch.rand(4, 4) for name in segment.inputs}
    rows = RowContext(start=0, seed=0, epoch=0, training=True)
    count = 20

    def run() -> object:
        return run_backward(segment, values, rows, frozenset(segment.outputs), lambda outputs: outputs)

    calls = count * tile_work(lambda _: run, TILE_ROWS).calls

    def work(thread: int, _: int) -> None:
        for _ in range(count):
            run()

    yield "call", (), bench.seconds(work) / calls
    yield "serial", (), bench.wall_seconds(work) / (calls * bench.threads)


def _losses(bench: Bench) -> Iterator[Sample]:
    kinds: tuple[tuple[FigureKind, bool], ...] = (("loss", False), ("losses", True))
    split = torch.tensor([1, 1, 1, 2, 4], dtype=torch.uint8).repeat(TILE_ROWS // 5 + 1)[:TILE_ROWS]
    for (kind, multi_label), classes in product(kinds, _LOSS_CLASSES):
        logits = torch.rand(TILE_ROWS, classes)
        one = torch.zeros(TILE_ROWS, dtype=torch.int64)
        labels = torch.zeros(TILE_ROWS, classes) if multi_label else one
        loss = default_loss(MULTI_LABEL if multi_label else MULTI_CLASS)

        def work(
            thread: int, _: int, logits: Tensor = logits, labels: Tensor = labels, loss: TrainingLoss = loss
        ) -> None:
            for _ in range(2):
                tile_loss(logits, labels, split, loss, 1)
                count_correct(logits, labels, split)

        yield kind, (classes,), bench.seconds(work) / (2 * TILE_ROWS)


def _copies(bench: Bench) -> Iterator[Sample]:
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
    tile = torch.rand(TILE_ROWS, width)
    context = RowContext(start=0, seed=0, epoch=0, training=True)
    drawn = bench.seconds(lambda thread, _: dropout(tile, 0.5, thread, context))
    yield "draw", (), drawn / tile.numel()


def _steps(bench: Bench) -> Iterator[Sample]:
    """A step hands a tile to every thread, and waits for all; a tile calls a kernel on views of arrays."""
    yield "step", (), bench.wall_seconds(lambda thread, _: None)
    row = np.zeros((2, 1), dtype=np.float32)
    indptr, indices = np.zeros(2, dtype=np.int64), np.zeros(0, dtype=np.int32)
    count = 20

    def work(thread: int, _: int) -> None:
        for _ in range(count):
            for _ in range(4):
                torch.from_numpy(row[:1])
            pull_sum(*whole_pass(row), indptr, indices, *NO_VECTORS, 0, 0, row[1:])

    yield "tile", (), bench.seconds(work) / count
