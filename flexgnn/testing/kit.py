"""What all conformance tests of a storage backend start from: which backend, where, and how it is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from flexgnn.core.tier import TierBackend, TierOptions


class Kit:
    """The pieces that a backend's test class supplies, and those that it may replace."""

    backend: ClassVar[type[TierBackend]]
    """The class under test, importable from its module by its name: some tests open it in another process."""
    settings: ClassVar[Mapping[str, Any]] = {}
    """What it is opened with: plain data."""
    large_blob_bytes: ClassVar[int] = 256 << 20
    """Of the blob whose copies are looked for in the memory of a process. Lower it where a tier is slow."""
    num_examples: ClassVar[int] = 100
    """Sequences of operations that are compared with a dictionary. Lower it where a tier is slow."""
    settle_seconds: ClassVar[float] = 0.0
    """How long the last request of a process that was killed may still be at work: on a server, say."""

    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        """An empty place for the tier."""
        place = tmp_path / "outside" / "tier"
        place.mkdir(parents=True)
        return str(place)

    @pytest.fixture
    def tier(self, location: str) -> Iterator[TierBackend]:
        """An empty tier."""
        tier = self.open(location)
        yield tier
        tier.close()

    def need_durable(self) -> None:
        """Skip a test of what outlives a process where the backend says that nothing does."""
        if not self.backend.durable:
            pytest.skip("the tier keeps nothing beyond its process")

    def open(self, location: str, capacity_bytes: int | None = None) -> TierBackend:
        """The tier over ``location``."""
        return self.backend(TierOptions(location=location, capacity_bytes=capacity_bytes, settings=dict(self.settings)))


def check_pieces(cls: type[Kit]) -> None:
    """Raise :class:`TypeError` if a test class lacks a piece that it must supply."""
    backend = getattr(cls, "backend", None)
    if not (isinstance(backend, type) and issubclass(backend, TierBackend)):
        raise TypeError(f"{cls.__name__} needs `backend = ...`, a subclass of TierBackend; it has {backend!r}.")
    supplier = next(base for base in cls.__mro__ if "location" in vars(base))
    if not backend.local and supplier is Kit:
        raise TypeError(f"{cls.__name__} needs a fixture `location`: {backend.__name__} is not on this machine.")
