"""Sizes of memory as people write them."""

from __future__ import annotations

import re

from flexgnn.core.errors import ConfigError

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def parse_size(size: str | int) -> int:
    """Bytes in ``size``: an ``int``, or text such as ``"512MiB"``, ``"2GB"``, ``"1048576"``.

    Raises:
        ConfigError: if ``size`` is not a positive size in one of those forms.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        size_bytes = size
    else:
        match = _SIZE.fullmatch(str(size))
        unit = _UNITS.get(match[2].upper()) if match else None
        if match is None or unit is None:
            raise ConfigError(f"{size!r} is not a size: write bytes or a number with KiB, MiB, GiB, KB, MB or GB.")
        size_bytes = int(min(float(match[1]) * unit, 2.0**63))
    if not 0 < size_bytes < 2**63:
        raise ConfigError(f"{size!r} is not a size: it must be above zero and below 8 EiB.")
    return size_bytes


def format_size(size_bytes: float) -> str:
    """``size_bytes`` as a person reads it, in binary units: ``"1.5 GiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"
