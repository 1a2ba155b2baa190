"""What a segment does to a tile of rows, counted: products, bytes of other operators, calls, random values.

Counts grow linearly with rows: they are taken on a few, by watching the operators that torch runs, and extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flexgnn.core.program.dropout import counting_draws

Product = tuple[int, int, int]
"""m, k, n: an m x k matrix times a k x n matrix."""


@dataclass(frozen=True, kw_only=True)
class LossWork:
    """The loss, its gradient and the accuracies of a tile."""

    columns: int
    """C."""
    multi_label: bool
    size_bytes: int = 0
    """Read and written by the operators of it."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one phase computes on one full tile, aggregations excepted."""

    products: tuple[Product, ...] = ()
    """One for each matrix product."""
    elementwise_bytes: tuple[int, ...] = ()
    """Bytes read and written by each other operator that is not a view."""
    calls: int = 0
    """Operators, views included."""
    drawn: int = 0
    """Random values."""
    loss: LossWork | None = None

    @property
    def flops(self) -> int:
        """Of the products: a multiplication and an addition count as two."""
        return sum(2 * m * k * n for m, k, n in self.products)

    @property
    def size_bytes(self) -> int:
        """Read and written by operators that are no products."""
        return sum(self.elementwise_bytes) + (0 if self.loss is None else self.loss.size_bytes)

    def __add__(self, other: Work) -> Work:
        return Work(
            products=self.products + other.products,
            elementwise_bytes=self.elementwise_bytes + other.elementwise_bytes,
            calls=self.calls + other.calls,
            drawn=self.drawn + other.drawn,
            loss=self.loss or other.loss,
        )


def tile_work(prepare: Callable[[int], Callable[[], object]], rows: int) -> Work:
    """The work of ``prepare(r)()`` on r rows, without that of ``prepare``, extrapolated from a few to ``rows``.

    Torch's random state is left as it is.
    """
    few, more = 32, 96
    low, high = _count(prepare(few)), _count(prepare(more))

    def extended(a: int, b: int) -> int:
        return a + (b - a) * (rows - few) // (more - few)

    return Work(
        products=tuple(
            (extended(a[0], b[0]), extended(a[1], b[1]), extended(a[2], b[2]))
            for a, b in zip(low.products, high.products, strict=True)
        ),
        elementwise_bytes=tuple(
            extended(a, b) for a, b in zip(low.elementwise_bytes, high.elementwise_bytes, strict=True)
        ),
        calls=low.calls,
        drawn=extended(low.drawn, high.drawn),
    )


def _count(run: Callable[[], object]) -> Work:
    meter = _OperatorMeter()
    with torch.random.fork_rng(devices=[]), counting_draws() as draws, meter:
        run()
    return Work(
        products=tuple(meter.products),
        elementwise_bytes=tuple(meter.elementwise_bytes),
        calls=meter.calls,
        drawn=draws.values,
    )


_FACTORS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}
"""Operators that multiply matrices: where among their arguments the first factor is, behind what they add."""

_WRITES_NOTHING = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided")


class _OperatorMeter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no annotations here
    """Notes the operators that run while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: list[Product] = []
        self.elementwise_bytes: list[int] = []
        self.calls = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        known = {t.untyped_storage()._cdata for t in inputs}
        result = func(*args, **(kwargs or {}))
        outputs = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        self.calls += 1
        name = func.overloadpacket.__name__
        changed = func._schema.is_mutable or any(t.untyped_storage()._cdata not in known for t in outputs)
        if name in _FACTORS:
            first = _FACTORS[name]
            self._note_product(args[first], args[first + 1], adds=first > 0)
        elif changed and name not in _WRITES_NOTHING:
            self.elementwise_bytes.append(sum(map(_touched_bytes, [*inputs, *outputs])))
        return result

    def _note_product(self, a: Tensor, b: Tensor, *, adds: bool) -> None:
        m, k, n = math.prod(a.shape[:-1]), a.shape[-1], b.shape[-1]
        self.products.append((m, k, n))
        if adds:  # What is added is copied to the result first.
            self.elementwise_bytes.append(m * n * a.element_size())


def _touched_bytes(tensor: Tensor) -> int:
    """Of its elements, one that is expanded counted once."""
    sizes = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride != 0)
    return math.prod(sizes) * tensor.element_size()
