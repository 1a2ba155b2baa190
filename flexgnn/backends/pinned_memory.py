"""The ``pinned`` tier: memory of the host, page-locked where a GPU copies from it."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import torch

from flexgnn.core.blob import Array
from flexgnn.core.errors import TierFullError
from flexgnn.core.free_memory import free_memory_bytes
from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.host_memory_tier import HostMemoryTier
from flexgnn.core.sizes import format_size
from flexgnn.core.tier import TierBackend


class PinnedMemoryBackend(HostMemoryTier):
    """Page-locked RAM of the host: below the memory of a GPU, above the SSD."""

    name = "pinned"
    contract_version = 1

    @classmethod
    def free_bytes(cls) -> int:
        return free_memory_bytes()

    @property
    def notice(self) -> str | None:
        return None if torch.cuda.is_available() else "There is no CUDA device: its memory is not page-locked."

    def new_memory(self, size_bytes: int) -> Array:
        try:
            pages = _PinnedPages(size_bytes)
        except (OSError, OverflowError, RuntimeError) as error:
            raise TierFullError(
                f"The system does not grant {format_size(size_bytes)} of page-locked RAM ({error}); "
                f"{format_size(self.free_bytes())} are free: lower --host-memory."
            ) from error
        return pages.array


class _PinnedPages:
    """Pages that stay where they are in RAM for as long as :attr:`array`, or a view of it, lives.

    They are registered with CUDA as they are: ``pin_memory`` of torch takes the next power of two.
    """

    def __init__(self, size_bytes: int) -> None:
        memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._view = np.frombuffer(memory, dtype=np.uint8)
        if torch.cuda.is_available():
            _check(_cuda().cudaHostRegister(self._view.ctypes.data, size_bytes, 0))
            self._registered = True
        self.__array_interface__ = self._view.__array_interface__

    _registered = False

    @property
    def array(self) -> Array:
        """Their bytes; numpy keeps this object as the owner of the memory."""
        return np.asarray(self)

    def __del__(self) -> None:
        if self._registered:
            _cuda().cudaHostUnregister(self._view.ctypes.data)


def _cuda() -> Any:
    """The functions of CUDA's runtime."""
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _check(status: Any) -> None:
    if int(status) != 0:
        raise RuntimeError(f"CUDA can't lock it: {status}")


@hookimpl
def flexgnn_list_tier_backends() -> list[type[TierBackend]]:
    """The backend of this module."""
    return [PinnedMemoryBackend]
