"""Rates of the machine at hand: those that were kept, or measured now, once, and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from flexgnn.core.compute import CPU_TIER, ComputeBackend
from flexgnn.core.errors import ConfigError
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plan.cost import TierRates
from flexgnn.core.plan.profile import MachineProfile, load_profile, save_profile
from flexgnn.core.plan.rates import ComputeRates
from flexgnn.core.runtime.calibration import calibrate_tier
from flexgnn.core.runtime.compute_calibration import measure_compute
from flexgnn.core.runtime.device_calibration import measure_device
from flexgnn.core.runtime.events import Listener, MeasurementStarted, ProfileNotSaved
from flexgnn.core.runtime.residence import full_memory_named
from flexgnn.core.runtime.storage import ConfiguredTier

_QUICK_BLOCK_BYTES, _QUICK_BYTES = (2**20, 2**23), 2**26
"""For a tier that a run is waiting for: about two seconds on a slow disk."""


_STORE_CHUNKS, _STORE_CALL_SECONDS = 4, 2e-4


class MachineAtHand:
    """The profile of this machine. What is missing is measured when it is first asked for."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.profile = load_profile()

    def compute_rates(self, backend: ComputeBackend) -> ComputeRates:
        """How fast this machine computes in the memory of ``backend``; measuring that takes a few seconds."""
        return self._device_rates(backend) if backend.separate else self._cpu_rates(backend.threads())

    def _device_rates(self, backend: ComputeBackend) -> ComputeRates:
        processor = backend.processor()
        known = load_profile(backend.name).compute_rates(backend.threads(), processor)
        if known is None:
            self._listener(MeasurementStarted(subject=f"computation of {processor}"))
            with full_memory_named(backend, "to measure its speed"):
                known = measure_device(backend)
            self._save(lambda profile: profile.with_compute(known, processor), backend.name)
        return known

    def _cpu_rates(self, threads: int) -> ComputeRates:
        known = self.profile.compute_rates(threads)
        if known is None:
            self._listener(MeasurementStarted(subject="this machine's computation"))
            known = measure_compute(threads)
            self._keep(lambda profile: profile.with_compute(known))
        return known

    def store_rates(self, store: GraphStore) -> TierRates:
        """How fast the graph store is read on this machine, from the page cache; measured each time, at once."""
        num_rows = min(_STORE_CHUNKS * store.info.chunk_rows, store.info.num_nodes)
        out = np.empty((num_rows, store.info.num_features), dtype=np.float32)
        seconds, processor = [], []
        for _ in range(4):
            began, used = time.perf_counter(), time.process_time()
            store.read("features", 0, num_rows, out)
            seconds.append(time.perf_counter() - began)
            processor.append(time.process_time() - used)
        # The first reading may be from the disk, and finds `out` without memory behind it.
        return TierRates(
            read_bytes_per_second=out.nbytes / float(np.median(seconds[1:])),
            call_seconds=_STORE_CALL_SECONDS,
            read_cpu_seconds_per_byte=float(np.median(processor[1:])) / out.nbytes,
        )

    def measure_unknown(self, tiers: Iterable[ConfiguredTier]) -> bool:
        """Measure those of ``tiers`` that have a backend's name and were never measured; whether there was any.

        Raises:
            TierError: if a tier fails.
        """
        stored = [tier for tier in tiers if tier.named and tier.host_memory is None]
        unknown = [tier for tier in stored if tier.known_rates(self.profile) is None]
        for tier in unknown:
            self._listener(MeasurementStarted(subject=f"the storage tier {tier.spec.name}"))
            measured = calibrate_tier(tier, block_bytes=_QUICK_BLOCK_BYTES, total_bytes=_QUICK_BYTES)
            self._keep(partial(MachineProfile.with_tiers, measured=[measured]))
        return bool(unknown)

    def _keep(self, change: Callable[[MachineProfile], MachineProfile]) -> None:
        """For this run, and if the cache can be written, for later ones."""
        self.profile = change(self.profile)
        self._save(change, CPU_TIER)

    def _save(self, change: Callable[[MachineProfile], MachineProfile], compute_tier: str) -> None:
        try:
            save_profile(change, compute_tier)
        except ConfigError as error:
            self._listener(ProfileNotSaved(message=str(error)))
