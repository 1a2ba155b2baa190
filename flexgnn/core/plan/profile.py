"""What was measured of this machine, kept for later runs: planners take their rates from it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flexgnn.core.cache import cache_directory
from flexgnn.core.errors import ConfigError
from flexgnn.core.plan.cost import TierRates

FORMAT_VERSION = 1


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


@dataclass(frozen=True, kw_only=True)
class TierProfile:
    """One backend with certain settings in one place."""

    backend: str
    settings: dict[str, str]
    place: str
    """The mount point of its directory, or what a backend elsewhere calls its place."""
    measured_at: str
    """ISO 8601."""
    measurements: tuple[Measurement, ...]

    @property
    def rates(self) -> TierRates:
        """For planning: a run moves with one thread in each direction, and a call's time grows with its size."""
        alone = [m for m in self.measurements if m.threads == 1]
        sizes = np.array([m.block_bytes for m in alone], dtype=float)
        read_call, read_rate = _line(sizes, np.array([m.block_bytes / m.read_bytes_per_second for m in alone]))
        write_call, write_rate = _line(sizes, np.array([m.block_bytes / m.write_bytes_per_second for m in alone]))
        cpu = [(m.read_cpu_seconds_per_byte + m.write_cpu_seconds_per_byte) / 2 for m in alone]
        return TierRates(
            read_bytes_per_second=read_rate,
            write_bytes_per_second=write_rate,
            call_seconds=(read_call + write_call) / 2,
            cpu_seconds_per_byte=float(np.median(cpu)),
        )


def find_rates(backend: str, settings: Mapping[str, Any], place: str) -> TierRates | None:
    """What was measured of that tier; None if it never was."""
    for profile in load_profiles():
        if (profile.backend, profile.settings, profile.place) == (backend, as_text(settings), place):
            return profile.rates
    return None


def as_text(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings in the form in which profiles are compared."""
    return {name: str(value) for name, value in settings.items()}


def load_profiles() -> list[TierProfile]:
    """All that was measured; nothing if that is missing or can't be read: it can be measured again."""
    try:
        document = json.loads(profile_path().read_text(encoding="utf-8"))
        if document["flexgnn_profile"] != FORMAT_VERSION:
            return []
        return [
            TierProfile(**{**tier, "measurements": tuple(Measurement(**m) for m in tier["measurements"])})
            for tier in document["tiers"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def save_profiles(measured: Sequence[TierProfile]) -> Path:
    """Keep ``measured``, in place of older ones of the same tiers.

    Raises:
        ConfigError: if the cache directory can't be written.
    """
    new = {(p.backend, json.dumps(p.settings, sort_keys=True), p.place): p for p in [*load_profiles(), *measured]}
    document = {"flexgnn_profile": FORMAT_VERSION, "tiers": [asdict(profile) for profile in new.values()]}
    path = profile_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=1) + "\n")
        os.replace(unfinished, path)
    except OSError as error:
        raise ConfigError(
            f"The measured rates can't be saved to {path} ({os.strerror(error.errno or 0)}): "
            "set the environment variable FLEXGNN_CACHE to a directory that can be written."
        ) from error
    return path


def profile_path() -> Path:
    """The file of this machine."""
    return cache_directory() / "machine.json"


def _line(sizes: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """Seconds of a call of no bytes, and bytes a second beyond that, by least squares over relative errors."""
    weights = 1 / seconds
    columns = np.stack([np.ones_like(sizes), sizes], axis=1) * weights[:, None]
    call, per_byte = np.linalg.lstsq(columns, np.ones_like(sizes), rcond=None)[0]
    if call < 0 or per_byte <= 0:
        return 0.0, float((sizes / seconds).max())
    return float(call), float(1 / per_byte)
