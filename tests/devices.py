"""Compute tiers apart from host memory that tests run on: a stand-in, and a GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from flexgnn.backends.cuda_memory import CudaMemoryBackend
from flexgnn.core.compute import ComputeBackend
from tests.stand_in import StandInBackend

NewDevice = Callable[..., ComputeBackend]
"""Called with nothing, or with the least rows of a tile."""


def new_gpu(tile_rows: int = 1) -> ComputeBackend:
    """With tiles of so many rows at least, where real ones are of tens of thousands."""
    backend = CudaMemoryBackend()
    backend.tile_rows = tile_rows  # type: ignore[misc]  # of this one alone
    return backend


def new_stand_in(tile_rows: int = 1) -> ComputeBackend:
    """Likewise, with copies that take their time."""
    return StandInBackend(tile_rows=tile_rows, bytes_per_second=5e8)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
DEVICES = [
    pytest.param(new_stand_in, id="stand-in"),
    pytest.param(new_gpu, id="cuda", marks=[pytest.mark.gpu, needs_gpu]),
]
