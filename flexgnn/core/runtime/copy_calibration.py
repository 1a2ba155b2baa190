"""Measures copies between host memory and a compute tier that is apart from it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from flexgnn.core.compute import ComputeBackend
from flexgnn.core.copies import StagedCopies
from flexgnn.core.plan.cost import CopySpeeds

_FEW_BYTES, _MANY_BYTES = 2**12, 2**24
_REPEATS = 5


def measure_copies(backend: ComputeBackend) -> CopySpeeds | None:
    """Speeds each way, of one copy at a time; takes milliseconds. None: ``backend`` computes in host memory."""
    copies = backend.copies()
    if not isinstance(copies, StagedCopies):
        return None
    device, host = backend.allocate(_MANY_BYTES), copies.new_buffer(_MANY_BYTES)

    def seconds(target: torch.Tensor, source: torch.Tensor, size_bytes: int) -> float:
        return _median(lambda: copies.begin(target[:size_bytes], source[:size_bytes]).synchronize())

    few = (seconds(device, host, _FEW_BYTES) + seconds(host, device, _FEW_BYTES)) / 2
    inward, outward = seconds(device, host, _MANY_BYTES), seconds(host, device, _MANY_BYTES)
    return CopySpeeds(
        in_bytes_per_second=_MANY_BYTES / max(inward - few, inward / 2),
        out_bytes_per_second=_MANY_BYTES / max(outward - few, outward / 2),
        call_seconds=few,
    )


def _median(job: Callable[[], None]) -> float:
    """Of the seconds that ``job`` takes, once it has run before."""
    job()
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))
