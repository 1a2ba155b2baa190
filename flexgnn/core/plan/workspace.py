"""How much memory a tile's activations and gradients take: measured on a few rows, before planning.

Bytes grow linearly with rows: two row counts give the slope and what is there without any row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _AllocationMeter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no annotations here
    """Follows the bytes of all tensors that operators make while it is active, and their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak_bytes: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        known = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}  # type: ignore[no-untyped-call]
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in known:
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._live.setdefault(storage._cdata, (reference, storage.nbytes()))
        self.peak_bytes = max(self.peak_bytes, sum(size for _, size in self._live.values()))
        return result


def measured_bytes(work: Callable[[], object]) -> int:
    """The peak of bytes that torch operators allocate during ``work``."""
    meter = _AllocationMeter()
    with meter, torch.random.fork_rng(devices=[]):
        work()
    return meter.peak_bytes


def bytes_for_rows(measure: Callable[[int], int], rows: int) -> int:
    """Extrapolate ``measure(r)``, bytes at r rows, to ``rows``."""
    few, more = 32, 96
    low, high = measure(few), measure(more)
    slope = (high - low) / (more - few)
    return int(max(low, low + slope * (rows - few))) + 1
