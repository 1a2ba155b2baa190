"""How much memory this process can still take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")


def free_memory_bytes() -> int:
    """The machine's available memory, or what a container or job limit leaves of it."""
    available = int(psutil.virtual_memory().available)
    membership = Path("/proc/self/cgroup")
    if not membership.exists():
        return available
    return min([available, *cgroup_free_bytes(membership.read_text(), _CGROUPS)])


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
