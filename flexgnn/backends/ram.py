"""The ``ram`` compute tier: memory that a CPU computes in."""

from __future__ import annotations

import contextlib
import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from flexgnn.core.compute import ComputeBackend
from flexgnn.core.errors import BudgetError
from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.sizes import format_size

_CGROUPS = Path("/sys/fs/cgroup")


class RamBackend(ComputeBackend):
    """The machine's RAM."""

    name = "ram"

    def free_bytes(self) -> int:
        """The machine's available memory, or what a container or job limit leaves of it."""
        available = int(psutil.virtual_memory().available)
        membership = Path("/proc/self/cgroup")
        if not membership.exists():
            return available
        return min([available, *cgroup_free_bytes(membership.read_text(), _CGROUPS)])

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


def cgroup_free_bytes(membership: str, mount: Path) -> Iterator[int]:
    """Bytes that each memory limit on this process still allows, page cache that can be dropped included.

    Args:
        membership: text of ``/proc/self/cgroup``, lines ``hierarchy:controllers:path``.
        mount: where the control groups are mounted; version 1 has a folder a controller there.
    """
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            root, files = mount / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        elif controllers == "":
            root, files = mount, ("memory.max", "memory.current", "inactive_file")
        else:
            continue
        # Limits of parents count too. In a container the path may be the host's, with only the root to be seen.
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield from _left_in(folder, *files)


def _left_in(folder: Path, limit_file: str, usage_file: str, cache_field: str) -> Iterator[int]:
    """What one control group leaves, or nothing where it sets no limit."""
    try:
        limit = (folder / limit_file).read_text().strip()
        usage = int((folder / usage_file).read_text())
        fields = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return
    if limit != "max":
        yield max(0, int(limit) - usage + int(fields.get(cache_field, 0)))


@hookimpl
def flexgnn_list_compute_backends() -> list[type[ComputeBackend]]:
    """The backend of this module."""
    return [RamBackend]
