"""What was measured of this machine, kept for later runs: planners take their rates from it.

A file of the same form describes a machine that is not at hand (``flexgnn plan --machine``).
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numba
import numpy as np
import psutil
import torch

from flexgnn.core.cache import cache_directory
from flexgnn.core.compute import CPU_TIER
from flexgnn.core.errors import ConfigError
from flexgnn.core.plan.cost import TierRates
from flexgnn.core.plan.rates import ComputeRates, Figure
from flexgnn.core.tier import Array

FORMAT_VERSION = 4
LIFETIME = timedelta(days=90)
"""What was measured longer ago is measured again."""
ANY = "*"
"""Stands for every backend, or every place, in a profile of a machine that is not at hand."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What figures of computation hold for."""

    cpu: str
    cores: int
    threads: int
    torch: str
    numba: str

    @classmethod
    def at_hand(cls, threads: int, processor: str | None = None) -> Machine:
        """This machine, with ``threads`` threads at work; ``processor``: a device that computes in place of the CPU."""
        return cls(
            cpu=processor or _cpu_model(),
            cores=os.cpu_count() or 1,
            threads=threads,
            torch=torch.__version__,
            numba=numba.__version__,
        )


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Blobs of one size written to a tier and read back, by so many threads at once."""

    block_bytes: int
    threads: int
    write_bytes_per_second: float
    """Until the last byte is on the device."""
    read_bytes_per_second: float
    """With nothing of it in the page cache."""
    write_cpu_seconds_per_byte: float
    """Of this process, all its threads together."""
    read_cpu_seconds_per_byte: float
    cached_write_bytes_per_second: float | None = None
    """Until the system has taken it, over blobs that were there before; None where that was not measured."""
    cached_read_bytes_per_second: float | None = None
    """With all of it in the page cache."""
    cached_write_cpu_seconds_per_byte: float | None = None
    cached_read_cpu_seconds_per_byte: float | None = None


@dataclass(frozen=True, kw_only=True)
class TierProfile:
    """One backend with certain settings in one place."""

    backend: str
    settings: dict[str, str]
    place: str
    """The mount point of its directory, or what a backend elsewhere calls its place."""
    measured_at: str | None
    """ISO 8601; None where it is stated."""
    measurements: tuple[Measurement, ...]

    def rates(self, *, cached: bool = False) -> TierRates:
        """For planning: a run moves with one thread in each direction, and a call's time grows with its size.

        ``cached``: whether the system has the memory to keep all that is on the tier.
        """
        alone = [m for m in self.measurements if m.threads == 1]
        sizes = np.array([m.block_bytes for m in alone], dtype=float)

        def figures(name: str) -> Array:
            """Of each measurement, the cached one where that is wanted and was measured."""
            found = [(cached and getattr(m, f"cached_{name}")) or getattr(m, name) for m in alone]
            return np.array(found)

        read_call, read_rate = _line(sizes, sizes / figures("read_bytes_per_second"))
        write_call, write_rate = _line(sizes, sizes / figures("write_bytes_per_second"))
        return TierRates(
            read_bytes_per_second=read_rate,
            write_bytes_per_second=write_rate,
            call_seconds=(read_call + write_call) / 2,
            read_cpu_seconds_per_byte=float(np.median(figures("read_cpu_seconds_per_byte"))),
            write_cpu_seconds_per_byte=float(np.median(figures("write_cpu_seconds_per_byte"))),
        )


@dataclass(frozen=True, kw_only=True)
class ComputeProfile:
    """What was measured of computation."""

    machine: Machine
    measured_at: str | None
    """ISO 8601; None where it is stated."""
    rates: ComputeRates


@dataclass(frozen=True, kw_only=True)
class MachineProfile:
    """Everything that was measured of a machine, or is stated of one that is not at hand."""

    memory_bytes: int
    """Of the compute tier."""
    storage_bytes: int | None = None
    """Of each storage tier, where that is stated."""
    host_memory_bytes: int | None = None
    """Of the host, where the compute tier is apart from it and that is stated."""
    compute_tier: str = CPU_TIER
    compute: ComputeProfile | None = None
    """None where only storage was measured."""
    tiers: tuple[TierProfile, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where figures are from that were not measured."""

    def find_rates(
        self, backend: str, settings: Mapping[str, Any], place: str | None = None, *, cached: bool = False
    ) -> TierRates | None:
        """Of that tier (without ``place``: anywhere), or what the profile states of any tier; ``cached``: as above.

        None if it was never measured, or too long ago.
        """
        for name, values, where in ((backend, as_text(settings), place), (ANY, {}, None)):
            for profile in self.tiers:
                found = (profile.backend, profile.settings) == (name, values) and where in (None, profile.place)
                if found and _fresh(profile.measured_at):
                    return profile.rates(cached=cached)
        return None

    def compute_rates(self, threads: int, processor: str | None = None) -> ComputeRates | None:
        """Of this machine with ``threads`` at work; None if that was not measured, or long ago."""
        known = self.compute
        if known is None or known.machine != Machine.at_hand(threads, processor) or not _fresh(known.measured_at):
            return None
        return known.rates

    def with_compute(self, rates: ComputeRates, processor: str | None = None) -> MachineProfile:
        """With ``rates`` as measured now, on this machine."""
        machine = Machine.at_hand(rates.threads, processor)
        return replace(self, compute=ComputeProfile(machine=machine, measured_at=now(), rates=rates))

    def with_tiers(self, measured: Sequence[TierProfile]) -> MachineProfile:
        """With ``measured`` in place of older ones of the same tiers."""
        new = {(p.backend, json.dumps(p.settings, sort_keys=True), p.place): p for p in [*self.tiers, *measured]}
        return replace(self, tiers=tuple(new.values()))


def as_text(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings in the form in which profiles are compared."""
    return {name: str(value) for name, value in settings.items()}


def now() -> str:
    """The time, as profiles note it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_profile(path: Path) -> MachineProfile:
    """The profile in a file.

    Raises:
        OSError, ValueError, KeyError, TypeError: if there is none that makes sense.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    if document["flexgnn_profile"] != FORMAT_VERSION:
        raise ValueError(f"it has profile format {document['flexgnn_profile']}, not {FORMAT_VERSION}")
    compute = document["compute"]
    return MachineProfile(
        memory_bytes=int(document["memory_bytes"]),
        storage_bytes=document["storage_bytes"],
        host_memory_bytes=document["host_memory_bytes"],
        compute_tier=str(document["compute_tier"]),
        compute=None if compute is None else _compute_of(compute),
        tiers=tuple(_tier_of(tier) for tier in document["tiers"]),
        sources=dict(document["sources"]),
    )


def load_profile(compute_tier: str = CPU_TIER) -> MachineProfile:
    """All that was measured here; nothing if that is missing or can't be read: it can be measured again.

    Each compute tier has a profile, and that of the CPU has the storage tiers.
    """
    try:
        return read_profile(profile_path(compute_tier))
    except (OSError, ValueError, KeyError, TypeError):
        return MachineProfile(memory_bytes=psutil.virtual_memory().total)


def save_profile(change: Callable[[MachineProfile], MachineProfile], compute_tier: str = CPU_TIER) -> Path:
    """Keep what ``change`` makes of the profile that is there.

    Raises:
        ConfigError: if the cache directory can't be written.
    """
    path = profile_path(compute_tier)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = as_json(change(load_profile(compute_tier)))
        descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(unfinished, path)
    except OSError as error:
        raise ConfigError(
            f"The measured rates can't be saved to {path} ({os.strerror(error.errno or 0)}): "
            "set the environment variable FLEXGNN_CACHE to a directory that can be written."
        ) from error
    return path


def as_json(profile: MachineProfile) -> str:
    """The text of a profile's file."""
    document = {"flexgnn_profile": FORMAT_VERSION, **asdict(profile)}
    return json.dumps(document, indent=1) + "\n"


def profile_path(compute_tier: str = CPU_TIER) -> Path:
    """The file of this machine."""
    return cache_directory() / ("machine.json" if compute_tier == CPU_TIER else f"machine-{compute_tier}.json")


def _compute_of(values: dict[str, Any]) -> ComputeProfile:
    rates = values["rates"]
    figures = tuple(Figure(**{**figure, "at": tuple(figure["at"])}) for figure in rates["figures"])
    return ComputeProfile(
        machine=Machine(**values["machine"]),
        measured_at=values["measured_at"],
        rates=ComputeRates(threads=rates["threads"], figures=figures),
    )


def _tier_of(values: dict[str, Any]) -> TierProfile:
    return TierProfile(**{**values, "measurements": tuple(Measurement(**m) for m in values["measurements"])})


def _fresh(measured_at: str | None) -> bool:
    return measured_at is None or datetime.now(UTC) - datetime.fromisoformat(measured_at) <= LIFETIME


def _cpu_model() -> str:
    """What the system calls the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _line(sizes: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """Seconds of a call of no bytes, and bytes a second beyond that, by least squares over relative errors."""
    weights = 1 / seconds
    columns = np.stack([np.ones_like(sizes), sizes], axis=1) * weights[:, None]
    call, per_byte = np.linalg.lstsq(columns, np.ones_like(sizes), rcond=None)[0]
    if call < 0 or per_byte <= 0:
        return 0.0, float((sizes / seconds).max())
    return float(call), float(1 / per_byte)
