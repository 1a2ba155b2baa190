"""Measures how fast a device with memory of its own computes: the figures of ``rates.py``, in wall time.

Everything is launched many times and waited for once, as in a run. A device works off what was launched one after the
other, so there is one thread; what it takes to launch is the figure ``serial``, a lower bound of every tile.

Shape legend: T rows of a tile, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

from flexgnn.core.compute import ComputeBackend
from flexgnn.core.graph.layout import MULTI_CLASS, MULTI_LABEL
from flexgnn.core.plan.rates import ComputeRates, Figure, FigureKind
from flexgnn.core.program.criterion import default_loss
from flexgnn.core.program.dropout import dropout
from flexgnn.core.program.loss import count_correct, tile_loss
from flexgnn.core.program.neighbors import Neighbors
from flexgnn.core.program.row_context import RowContext

_PRODUCT_WIDTHS = (16, 64, 128, 512)
_OPERATOR_BYTES = (2**20, 2**24, 2**26)
_PULL_WIDTHS = (16, 32, 64, 128, 256)
_PULL_BYTES = (2**20, 2**24, 2**26, 2**28)
_LOSS_CLASSES = (2, 16, 64, 256)
_DEGREE = 16
_REPEATS = 5
_TIMES = 8
"""Launches that are waited for together."""
_LEAST_SECONDS = 1e-14
"""Of a figure that is a difference of two measured ones."""

Sample = tuple[FigureKind, tuple[int, ...], list[float]]


def measure_device(backend: ComputeBackend) -> ComputeRates:
    """All figures of ``backend``. Takes a few seconds and, for their duration, about 1 GiB of its memory at most."""
    bench = _DeviceBench(backend)
    parts = (bench.products, bench.operators, bench.calls, bench.losses, bench.copies, bench.pulls)
    figures = tuple(_figure(*sample) for part in parts for sample in part())
    return ComputeRates(threads=1, figures=figures)


def _figure(kind: FigureKind, at: tuple[int, ...], values: list[float]) -> Figure:
    low, median, high = torch.tensor(values, dtype=torch.float64).quantile(
        torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    )
    return Figure(kind=kind, at=at, value=float(median), low=float(low), high=float(high))


class _DeviceBench:
    """Times small pieces of what tiles do."""

    def __init__(self, backend: ComputeBackend) -> None:
        self._backend, self._kernels = backend, backend.kernels()
        self._rows = max(backend.tile_rows, 2048)
        self._context = RowContext(start=0, seed=0, epoch=0, training=True)

    def products(self) -> Iterator[Sample]:
        """Of a tile by a weight, and of a weight's gradient."""
        for inner, columns in product(_PRODUCT_WIDTHS, repeat=2):
            x, weight, gradient = self._ones(inner), self._of(columns, inner), self._ones(columns)
            flops = 2 * self._rows * inner * columns
            yield "product", (inner, columns), self._each(lambda: torch.mm(x, weight.t()), flops)  # noqa: B023
            yield "reduction", (columns, inner), self._each(lambda: torch.mm(gradient.t(), x), flops)  # noqa: B023
        x, odd, even = self._ones(128), self._of(47, 128), self._of(48, 128)
        slow, fast = (self._each(lambda: torch.mm(x, w.t()), 1) for w in (odd, even))  # noqa: B023
        yield "odd", (), [s / min(fast) for s in slow]

    def operators(self) -> Iterator[Sample]:
        """Of one with one input and one output."""
        for size_bytes in _OPERATOR_BYTES:
            values = self._of(size_bytes // 8)
            yield "operator", (size_bytes,), self._each(lambda: torch.mul(values, 0.5), size_bytes)  # noqa: B023

    def calls(self) -> Iterator[Sample]:
        """Of an operator on so few values that nothing but its launch takes time."""
        values = self._of(8)
        launches = self._each(lambda: values.mul_(0.5), 1, times=200)
        yield "serial", (), launches
        # Beside others the device takes less for one than the thread that launches it.
        for kind in ("call", "tile", "step"):
            yield kind, (), [seconds / 4 for seconds in launches]

    def losses(self) -> Iterator[Sample]:
        """A row of loss, gradient and accuracies."""
        split = torch.tensor([1, 1, 1, 2, 4], dtype=torch.uint8).repeat(self._rows // 5 + 1)[: self._rows]
        split = split.to(self._backend.device)
        kinds: tuple[tuple[FigureKind, bool], ...] = (("loss", False), ("losses", True))
        for (kind, multi_label), classes in product(kinds, _LOSS_CLASSES):
            logits, loss = self._ones(classes), default_loss(MULTI_LABEL if multi_label else MULTI_CLASS)
            labels = self._ones(classes) if multi_label else self._ones(1)[:, 0].long() * 0

            def work() -> None:
                tile_loss(logits, labels, split, loss, 1)  # noqa: B023
                count_correct(logits, labels, split)  # noqa: B023

            yield kind, (classes,), self._each(work, self._rows)

    def copies(self) -> Iterator[Sample]:
        """Bytes in order and row by row, and values of dropout."""
        source, target = (self._of(2**16, 128) for _ in range(2))
        chosen = torch.randint(0, len(source), (len(source),), dtype=torch.int32, device=self._backend.device)
        yield "stream", (), self._each(lambda: target.copy_(source), 2 * source.nbytes)
        yield "gather", (), self._each(lambda: self._kernels.gather(source, chosen, target), source.nbytes)
        tile = self._ones(128)
        yield "draw", (), self._each(lambda: dropout(tile, 0.5, 0, self._context), tile.numel())

    def pulls(self) -> Iterator[Sample]:
        """Sums and maxima over neighbours that are drawn at random from a number of rows."""
        for width in _PULL_WIDTHS:
            few, near = self._pull(width, _PULL_BYTES[0], 4), self._pull(width, _PULL_BYTES[0], _DEGREE)
            of_row = [max(f - (n - f) * 4 / (_DEGREE - 4), 0.1 * f) for f, n in zip(few, near, strict=True)]
            yield "row", (width,), of_row
            for reach_bytes in _PULL_BYTES:
                seconds = self._pull(width, reach_bytes, _DEGREE)
                yield "pull", (width, reach_bytes), [max(s - min(of_row), 0.1 * s) / _DEGREE for s in seconds]
        whole, odd = self._pull(64, _PULL_BYTES[0], _DEGREE), self._pull(63, _PULL_BYTES[0], _DEGREE)
        beyond = _DEGREE * 7
        yield "remainder", (), [max((o - w) / beyond, _LEAST_SECONDS) for o, w in zip(odd, whole, strict=True)]
        maxima = self._pull(128, _PULL_BYTES[0], _DEGREE, maximum=True)
        yield "maximum", (), [m / min(self._pull(128, _PULL_BYTES[0], _DEGREE)) for m in maxima]

    def _pull(self, width: int, reach_bytes: int, degree: int, *, maximum: bool = False) -> list[float]:
        """Of a row."""
        neighbors = self._neighbors(width, reach_bytes, degree)
        out, ties = self._ones(width), self._ones(width)
        if maximum:
            return self._each(lambda: self._kernels.pull_max(neighbors, 0, out, ties), self._rows)
        return self._each(lambda: self._kernels.pull_sum(neighbors, 0, None, None, None, out), self._rows)

    def _neighbors(self, width: int, reach_bytes: int, degree: int) -> Neighbors:
        local = self._of(max(reach_bytes // (4 * width), 1), width)
        shape, device = (self._rows, degree), self._backend.device
        indices = torch.randint(0, len(local), shape, dtype=torch.int32, device=device).sort(dim=1).values
        return Neighbors(
            local=local,
            hubs=local[:0],
            halo=local[:0],
            halo_start=0,
            halo_stop=0,
            cursor=None,
            next_cursor=None,
            last_pass=True,
            indptr=torch.arange(self._rows + 1, device=device) * degree,
            indices=indices.reshape(-1),
            weights=None,
            edge_data={},
            positions=indices.reshape(-1),
            own=0,
        )

    def _ones(self, columns: int) -> Tensor:
        """T x ``columns``."""
        return self._of(self._rows, columns)

    def _of(self, *shape: int) -> Tensor:
        return torch.ones(shape, device=self._backend.device)

    def _each(self, job: Callable[[], object], units: int, times: int = _TIMES) -> list[float]:
        """Seconds of a unit of ``job``, in each repeat."""
        found = []
        for repeat in range(_REPEATS + 1):
            began = time.perf_counter()
            for _ in range(times):
                job()
            self._backend.finish()
            if repeat > 0:  # the first compiles
                found.append((time.perf_counter() - began) / (times * units))
        return found
