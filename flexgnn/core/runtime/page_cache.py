"""How much of what a run puts on local storage the system will keep in memory as well."""

from __future__ import annotations

from pathlib import Path

import psutil

_SHARE = 0.15
"""Of the available memory. Linux lets writers wait once a fifth of it is dirty (``vm.dirty_ratio``)."""
_CGROUPS = Path("/sys/fs/cgroup")


def cached_bytes() -> int:
    """What can be written, over and over, without waiting for a device, and be read back from memory."""
    return int(_SHARE * min(psutil.virtual_memory().available, _cgroup_bytes()))


def _cgroup_bytes() -> float:
    """What the memory cgroup of this process still allows; infinite without one, or without a limit."""
    try:
        path = Path("/proc/self/cgroup").read_text(encoding="utf-8").split("::", 1)[1].splitlines()[0]
        group = _CGROUPS / path.lstrip("/")
        return int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError, IndexError):
        return float("inf")
