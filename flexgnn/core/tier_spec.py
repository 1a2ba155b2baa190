"""A storage tier as a user asks for it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flexgnn.core.errors import ConfigError
from flexgnn.core.sizes import parse_size
from flexgnn.core.tier import TierBackend, TierOptions

TierFactory = Callable[[TierOptions], TierBackend]
FORM = "NAME=BACKEND[:LOCATION][,capacity=SIZE][,SETTING=VALUE...]"
"""How a tier is written on the command line."""

DEFAULT_BACKEND = "arrow"
"""Of the one storage tier of a run that names none."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TAKEN = ("store", "ram", "cuda")

HOST_TIER = "pinned"
"""The backend, and the name, of the tier in host memory that a device with memory of its own has below it."""


@dataclass(frozen=True, kw_only=True)
class TierSpec:
    """One storage tier of a run; several may stand side by side."""

    name: str
    """What reports call it."""
    backend: str | TierFactory
    """Name of a backend, or what makes a tier from :class:`~flexgnn.core.tier.TierOptions`, such as a backend class."""
    location: str | Path | None = None
    """An existing directory to make a private scratch directory in (None: the system's temporary directory), or, for a
    backend that is not on this machine, what it calls a place, such as a URL."""
    capacity: str | int | None = None
    """The most that it may hold, as in ``"20GiB"``; None: what is free there."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the backend."""

    def __post_init__(self) -> None:
        """Check the name and the capacity."""
        if not _NAME.fullmatch(self.name) or self.name in _TAKEN:
            raise ConfigError(
                f"A storage tier can't be called {self.name!r}: use letters, digits, ., - and _, and none of "
                f"{', '.join(_TAKEN)}."
            )
        if self.capacity is not None:
            parse_size(self.capacity)

    @property
    def capacity_bytes(self) -> int | None:
        """:attr:`capacity` in bytes."""
        return None if self.capacity is None else parse_size(self.capacity)

    @classmethod
    def parse(cls, text: str) -> TierSpec:
        """The tier that ``text`` describes, as in ``fast=arrow:/mnt/nvme,capacity=20GiB``.

        Raises:
            ConfigError: if it has another form.
        """
        name, _, rest = text.partition("=")
        first, *pairs = rest.split(",")
        backend, _, location = first.partition(":")
        if not backend or not all("=" in pair for pair in pairs):
            raise ConfigError(f"{text!r} is no storage tier: write {FORM}, as in fast=arrow:/mnt/nvme,capacity=20GiB.")
        settings = parse_pairs(pairs)
        capacity = settings.pop("capacity", None)
        return cls(
            name=name,
            backend=backend,
            location=os.path.expanduser(location) or None,
            capacity=capacity,
            settings=settings,
        )


def check_no_host_tier(specs: Sequence[TierSpec]) -> None:
    """Refuse a tier called like the one that a device with memory of its own has below it anyway.

    Raises:
        ConfigError: if there is one.
    """
    if any(spec.name == HOST_TIER for spec in specs):
        raise ConfigError(
            f"A tier called {HOST_TIER!r} is there by itself with this device: give it a size with --host-memory, and "
            "other storage tiers other names."
        )


def parse_pairs(pairs: list[str]) -> dict[str, str]:
    """``name=value`` texts as a mapping.

    Raises:
        ConfigError: if one has no ``=``, or a name comes twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"{pair!r} is not accepted: write NAME=VALUE.")
        if name in found:
            raise ConfigError(f"{name!r} is given twice: {found[name]!r} and {value!r}.")
        found[name] = value
    return found


def tier_specs(
    tiers: Sequence[TierSpec | str],
    *,
    ssd_backend: str,
    ssd_path: str | Path | None,
    ssd_options: Mapping[str, Any] | None,
) -> list[TierSpec]:
    """The storage tiers of a run: those of ``tiers``, or the one that the other arguments describe.

    Raises:
        ConfigError: if both are given, or two tiers have one name.
    """
    if not tiers:
        return [TierSpec(name=ssd_backend, backend=ssd_backend, location=ssd_path, settings=ssd_options or {})]
    if ssd_backend != DEFAULT_BACKEND or ssd_path is not None or ssd_options:
        raise ConfigError(
            "Storage is described twice: use --tier alone, or --ssd-backend with --ssd-path and --ssd-option."
        )
    specs = [TierSpec.parse(tier) if isinstance(tier, str) else tier for tier in tiers]
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"There are {names.count(name)} storage tiers called {name!r}: give each its own name.")
    return specs
