"""The ``ram`` compute tier: memory that a CPU computes in."""

from __future__ import annotations

import contextlib
import mmap
import sys

import numpy as np
import torch
from torch import Tensor

from flexgnn.core.compute import ComputeBackend
from flexgnn.core.errors import BudgetError
from flexgnn.core.free_memory import free_memory_bytes
from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.sizes import format_size


class RamBackend(ComputeBackend):
    """The machine's RAM."""

    name = "ram"

    def free_bytes(self) -> int:
        """The machine's available memory, or what a container or job limit leaves of it."""
        return free_memory_bytes()

    def allocate(self, size_bytes: int) -> Tensor:
        """A buffer that takes memory page by page as it is written, and gives it back once it is forgotten.

        Raises:
            BudgetError: if the system does not grant the memory.
        """
        try:
            pages = mmap.mmap(-1, max(1, size_bytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            raise BudgetError(
                f"The system does not grant {format_size(size_bytes)} of RAM ({error}); "
                f"{format_size(self.free_bytes())} are free: lower --device-memory."
            ) from error
        if sys.platform == "linux":
            # Faulting in 2 MiB at a time fills fresh memory 4 to 5 times faster than 4 KiB at a time.
            with contextlib.suppress(OSError):  # a kernel without huge pages
                pages.madvise(mmap.MADV_HUGEPAGE)
        return torch.from_numpy(np.frombuffer(pages, dtype=np.uint8, count=size_bytes))


@hookimpl
def flexgnn_list_compute_backends() -> list[type[ComputeBackend]]:
    """The backend of this module."""
    return [RamBackend]
