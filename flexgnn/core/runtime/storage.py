"""The storage tiers during a run: opened in places of their own, and left without a trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from flexgnn.core.blob import Blob
from flexgnn.core.errors import ConfigError, DamagedBlobError, TierFullError
from flexgnn.core.host_memory_tier import HostMemoryTier
from flexgnn.core.plan.cost import ASSUMED_TIER_RATES, CopySpeeds, TierRates
from flexgnn.core.plan.placement import StorageTier
from flexgnn.core.plan.plan import Plan
from flexgnn.core.plan.profile import MachineProfile
from flexgnn.core.plugins import Plugins
from flexgnn.core.runtime.checksums import Checksums
from flexgnn.core.runtime.events import Listener, TierOpened
from flexgnn.core.runtime.scratch import check_parent, free_bytes, mount_point, scratch_location
from flexgnn.core.settings import parse_settings
from flexgnn.core.sizes import format_size
from flexgnn.core.tier import Array, TierBackend, TierOptions
from flexgnn.core.tier_spec import TierFactory, TierSpec

_HOST_MEMORY_SHARE = 0.75
"""Of what is free. The system can't swap locked memory out, and needs some to keep files in that are read."""


@dataclass(frozen=True, kw_only=True)
class ConfiguredTier:
    """A storage tier that a run may use: what was asked for, and the backend that was found for it."""

    spec: TierSpec
    factory: TierFactory
    local: bool
    alignment_bytes: int
    host_memory: type[HostMemoryTier] | None = None
    """The backend, where it keeps everything in memory."""

    @classmethod
    def configure(cls, spec: TierSpec, plugins: Plugins) -> ConfiguredTier:
        """Find the backend of ``spec``, and check what can be checked before a run.

        Raises:
            PluginError: if there is no such backend.
            ConfigError: if a setting is not accepted, or a location is missing.
            TierError: if the location is a directory that does not exist.
        """
        factory: Any = plugins.tier_backend(spec.backend) if isinstance(spec.backend, str) else spec.backend
        if not (isinstance(factory, type) and issubclass(factory, TierBackend)):
            check_parent(spec.location)
            return cls(spec=spec, factory=factory, local=True, alignment_bytes=1)
        parse_settings(factory.name, factory.settings_type, spec.settings)
        if issubclass(factory, HostMemoryTier):
            return cls(spec=spec, factory=factory, local=True, alignment_bytes=1, host_memory=factory)
        if factory.local:
            check_parent(spec.location)
        elif spec.location is None:
            raise ConfigError(
                f"The tier {spec.name} needs a location, since {factory.name} is not on this machine: "
                f"--tier {spec.name}={factory.name}:LOCATION."
            )
        return cls(spec=spec, factory=factory, local=factory.local, alignment_bytes=factory.alignment_bytes)

    @property
    def backend_name(self) -> str:
        """Name of the backend, or of what makes the tier."""
        return self.spec.backend if isinstance(self.spec.backend, str) else self.spec.name

    @property
    def place(self) -> str:
        """What measurements of it hold for: the mount point of its directory, or the place that was named."""
        return mount_point(self.spec.location) if self.local else str(self.spec.location)

    @property
    def named(self) -> bool:
        """Whether the backend has a name, under which what is measured can be found again."""
        return isinstance(self.spec.backend, str)

    def place_of_its_own(self, listener: Listener) -> AbstractContextManager[str]:
        """A scratch location; of a tier in host memory no place at all."""
        if self.host_memory is not None:
            return nullcontext("")
        return scratch_location(self.spec.location, listener, local=self.local)

    def known_rates(self, profile: MachineProfile, *, cached: bool = False) -> TierRates | None:
        """What ``profile`` says of it; ``cached``: with all that is on it in the page cache."""
        return profile.find_rates(self.backend_name, self.spec.settings, self.place, cached=cached)

    def for_planning(
        self, profile: MachineProfile, speeds: CopySpeeds | None, *, staged_bytes: int, cached: bool
    ) -> StorageTier:
        """The tier as planners see it: its capacity, or what is free where it will be, and measured rates if any.

        Args:
            profile: of this machine.
            speeds: of copies to and from the compute tier, where that is apart from host memory.
            staged_bytes: what copies take of the capacity of a tier in host memory.
            cached: whether the system keeps in memory what is on it.
        """
        limits = [self.spec.capacity_bytes, self._allowed_bytes()]
        known = [limit for limit in limits if limit is not None]
        capacity = min(known, default=None)
        if self.host_memory is not None and capacity is not None:
            capacity = max(0, capacity - staged_bytes)
        return StorageTier(
            name=self.spec.name,
            capacity_bytes=capacity,
            rates=self._rates(profile, speeds, cached=cached),
            in_host_memory=self.host_memory is not None,
            alignment_bytes=self.alignment_bytes,
        )

    def _allowed_bytes(self) -> int | None:
        """What is free; of host memory some is left for others, unless the user says how much to take."""
        if self.host_memory is not None:
            share = 1 if self.spec.capacity_bytes is not None else _HOST_MEMORY_SHARE
            return int(share * self.host_memory.free_bytes())
        return free_bytes(self.spec.location) if self.local else None

    def _rates(self, profile: MachineProfile, speeds: CopySpeeds | None, *, cached: bool) -> TierRates:
        """From and to the compute tier."""
        if speeds is not None and self.host_memory is not None:
            return speeds.of_host_memory()
        own = self.known_rates(profile, cached=cached) or ASSUMED_TIER_RATES
        return own if speeds is None else speeds.through_host_memory(own)


class Storage:
    """The open tiers of a run, by name."""

    def __init__(self, tiers: Mapping[str, TierBackend], *, verify: bool) -> None:
        self._tiers = tiers
        self._checksums = {name: Checksums(tier, name) for name, tier in tiers.items()} if verify else {}

    def put(self, tier: str, key: str, array: Array) -> None:
        """Store ``array`` under ``key`` on ``tier``."""
        if self._checksums:
            self._checksums[tier].remember(key, array)
        self._tiers[tier].put(key, array)

    def get_rows(self, tier: str, key: str, start: int, out: Array) -> None:
        """Fill ``out`` with rows of blob ``key`` on ``tier``, from row ``start`` on.

        Raises:
            DamagedBlobError: if they are not what was put, or gone.
        """
        try:
            self._tiers[tier].get_rows(key, start, out)
        except KeyError as error:
            raise DamagedBlobError(
                f"Tensor {key!r} on the tier {tier} ({self._tiers[tier].where(key)}) is gone: nothing else may change "
                "what a run has stored."
            ) from error
        if self._checksums:
            self._checksums[tier].check(key, start, out)

    def delete(self, tier: str, key: str) -> None:
        """Forget the blob ``key`` on ``tier``."""
        self._tiers[tier].delete(key)

    def lend_rows(self, tier: str, key: str, start: int, num_rows: int) -> Array | None:
        """The memory of these rows, if that is what ``tier`` keeps them in, and nothing is to be verified."""
        backend = self._tiers[tier]
        if self._checksums or not isinstance(backend, HostMemoryTier):
            return None
        return backend.lend_rows(key, start, num_rows)

    def filling(self, tier: str, key: str, blob: Blob) -> AbstractContextManager[Array] | None:
        """Memory to fill with what is to be under ``key``, likewise."""
        backend = self._tiers[tier]
        if self._checksums or not isinstance(backend, HostMemoryTier):
            return None
        return backend.filling(key, blob)

    @property
    def peak_bytes(self) -> dict[str, int]:
        """The most that each tier held so far."""
        return {name: tier.peak_bytes for name, tier in self._tiers.items()}


@dataclass(frozen=True, kw_only=True)
class StoredRows:
    """Rows of a blob, from ``first_row`` on: a :class:`~flexgnn.core.copies.RowSource`."""

    storage: Storage
    tier: str
    key: str
    first_row: int

    def read(self, start: int, out: Array) -> None:
        """Fill ``out``."""
        self.storage.get_rows(self.tier, self.key, self.first_row + start, out)

    def lend(self, num_rows: int) -> Array | None:
        """Their memory."""
        return self.storage.lend_rows(self.tier, self.key, self.first_row, num_rows)


@dataclass(frozen=True, kw_only=True)
class StoredBlob:
    """The place of a blob: a :class:`~flexgnn.core.copies.BlobSink`."""

    storage: Storage
    tier: str
    key: str

    def write(self, array: Array) -> None:
        """Put it."""
        self.storage.put(self.tier, self.key, array)

    def fill(self, blob: Blob) -> AbstractContextManager[Array] | None:
        """Its memory."""
        return self.storage.filling(self.tier, self.key, blob)


@contextmanager
def open_storage(
    plan: Plan, tiers: Mapping[str, ConfiguredTier], listener: Listener, *, verify: bool
) -> Iterator[Storage | None]:
    """The tiers that ``plan`` uses, or None where it writes nothing. Their content is gone on the way out.

    Raises:
        TierError: if one can't be opened.
    """
    if not plan.stored_bytes:
        yield None
        return
    with ExitStack() as stack:
        opened = {
            name: stack.enter_context(_opened(tiers[name], size_bytes, plan.capacities[name], listener))
            for name, size_bytes in plan.stored_bytes.items()
        }
        yield Storage(opened, verify=verify)


@contextmanager
def _opened(
    tier: ConfiguredTier, size_bytes: int, capacity_bytes: int | None, listener: Listener
) -> Iterator[TierBackend]:
    """``tier`` with room for ``size_bytes``, or in host memory for as much as it may keep for other blobs as well."""
    spec = tier.spec
    with tier.place_of_its_own(listener) as location, ExitStack() as stack:
        allowed = size_bytes if tier.host_memory is None else capacity_bytes
        options = TierOptions(location=location, capacity_bytes=allowed, settings=spec.settings)
        backend = tier.factory(options)
        stack.callback(backend.close)
        if not tier.local:
            stack.callback(backend.clear)
        room = backend.room_bytes()
        if room is not None and room < size_bytes:
            where = f"in {location}, where" if location else "of which"
            raise TierFullError(
                f"The plan spills {format_size(size_bytes)} to {spec.name} {where} {format_size(room)} are free: "
                f"{'name another place' if location else 'lower --host-memory'}, or give more --device-memory."
            )
        listener(TierOpened(name=spec.name, backend=backend.name, location=location, notice=backend.notice))
        yield backend
