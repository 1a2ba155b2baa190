"""Memory of the host that a GPU copies from and to by itself."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import torch

from flexgnn.core.blob import Array
from flexgnn.core.errors import TierFullError
from flexgnn.core.free_memory import free_memory_bytes
from flexgnn.core.sizes import format_size


def pinned_pages(size_bytes: int) -> Array:
    """``size_bytes`` uint8 (one at least), page-locked where there is a CUDA device, until nothing refers to them.

    They are registered with CUDA as they are: ``pin_memory`` of torch takes the next power of two, and keeps it.

    Raises:
        TierFullError: if the system does not grant them.
    """
    try:
        return np.asarray(_Pages(size_bytes))
    except (OSError, OverflowError, RuntimeError) as error:
        raise TierFullError(
            f"The system does not grant {format_size(size_bytes)} of page-locked RAM ({error}); "
            f"{format_size(free_memory_bytes())} are free: lower --host-memory."
        ) from error


class _Pages:
    """Their owner: numpy keeps it for as long as there is an array over them."""

    _registered = False

    def __init__(self, size_bytes: int) -> None:
        memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._view = np.frombuffer(memory, dtype=np.uint8)
        if torch.cuda.is_available():
            _check(_cuda().cudaHostRegister(self._view.ctypes.data, size_bytes, 0))
            self._registered = True
        self.__array_interface__ = self._view.__array_interface__

    def __del__(self) -> None:
        if self._registered:
            _cuda().cudaHostUnregister(self._view.ctypes.data)


def _cuda() -> Any:
    """The functions of CUDA's runtime."""
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _check(status: Any) -> None:
    if int(status) != 0:
        raise RuntimeError(f"CUDA can't lock it: {status}")
