"""Measures storage tiers where they will be used: both directions, blobs of several sizes, several threads."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import numpy as np

from flexgnn.core.errors import ConfigError
from flexgnn.core.plan.profile import Measurement, TierProfile, as_text
from flexgnn.core.runtime.scratch import scratch_location
from flexgnn.core.runtime.storage import ConfiguredTier
from flexgnn.core.tier import Array, TierBackend, TierOptions

BLOCK_BYTES = (2**20, 2**24, 2**26)
TOTAL_BYTES = 2**28
"""Written and read for each size and number of threads: enough for a disk to show its sustained speed for a moment."""

Job = Callable[[int], None]
"""Moves the blob of that number."""


def calibrate_tier(
    tier: ConfiguredTier,
    *,
    block_bytes: Sequence[int] = BLOCK_BYTES,
    threads: Sequence[int] = (1,),
    total_bytes: int = TOTAL_BYTES,
) -> TierProfile:
    """Measure one tier in a scratch place of its own.

    Args:
        tier: what to measure.
        block_bytes: sizes of blobs.
        threads: how many read or write at the same time.
        total_bytes: to move in each direction, for each size and number of threads.

    Raises:
        TierError: if the tier fails. ConfigError: if it is in memory.
    """
    if tier.host_memory is not None:
        raise ConfigError(f"The tier {tier.spec.name} is in memory, and is measured when a device copies from it.")
    with scratch_location(tier.spec.location, lambda event: None, local=tier.local) as location:
        options = TierOptions(location=location, settings=tier.spec.settings)
        measurements = tuple(
            _measure(tier, options, size, count, max(total_bytes // size, count))
            for size, count in product(block_bytes, threads)
        )
    return TierProfile(
        backend=tier.backend_name,
        settings=as_text(tier.spec.settings),
        place=tier.place,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        measurements=measurements,
    )


def _measure(tier: ConfiguredTier, options: TierOptions, block_bytes: int, threads: int, num_blobs: int) -> Measurement:
    # A buffer a thread, begun at a page as those of a run begin at cache lines or pages; random, against compression.
    source = _pages(block_bytes)
    source[:] = np.frombuffer(np.random.default_rng(0).bytes(block_bytes), dtype=np.uint8)
    buffers = [_pages(block_bytes) for _ in range(threads)]
    size_bytes = num_blobs * block_bytes
    with _open(tier, options) as backend:

        def write(number: int) -> None:
            backend.put(f"blob/{number}", source)

        def read_back(number: int) -> None:
            backend.get(f"blob/{number}", buffers[number % threads])

        written = _timed(write, num_blobs, threads, backend.flush)
        # Blobs that take the place of others find the page cache's memory at hand, as in every epoch but the first.
        again = _timed(write, num_blobs, threads, lambda: None)
        kept = _timed(read_back, num_blobs, threads, lambda: None)
        backend.flush()
    if tier.local:
        drop_cached_pages(Path(options.location))
    with _open(tier, options) as backend:

        def read(number: int) -> None:
            backend.get(f"blob/{number}", buffers[number % threads])

        fetched = _timed(read, num_blobs, threads, lambda: None)
        backend.clear()
    return Measurement(
        block_bytes=block_bytes,
        threads=threads,
        write_bytes_per_second=size_bytes / written[0],
        read_bytes_per_second=size_bytes / fetched[0],
        write_cpu_seconds_per_byte=written[1] / size_bytes,
        read_cpu_seconds_per_byte=fetched[1] / size_bytes,
        cached_write_bytes_per_second=size_bytes / again[0],
        cached_read_bytes_per_second=size_bytes / kept[0],
        cached_write_cpu_seconds_per_byte=again[1] / size_bytes,
        cached_read_cpu_seconds_per_byte=kept[1] / size_bytes,
    )


@contextlib.contextmanager
def _open(tier: ConfiguredTier, options: TierOptions) -> Iterator[TierBackend]:
    with contextlib.closing(tier.factory(options)) as backend:
        yield backend


def _timed(job: Job, count: int, threads: int, finish: Callable[[], None]) -> tuple[float, float]:
    """Wall and processor seconds of ``count`` jobs and ``finish``; a thread does every job that is its turn."""

    def work(first: int) -> None:
        for number in range(first, count, threads):
            job(number)

    with ThreadPoolExecutor(threads) as pool:
        wall, processor = time.perf_counter(), time.process_time()
        list(pool.map(work, range(threads)))
        finish()
        return time.perf_counter() - wall, time.process_time() - processor


def drop_cached_pages(directory: Path) -> None:
    """Ask the system to forget what it caches of files below ``directory``, so that reading them reaches the device."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in directory.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def _pages(size_bytes: int) -> Array:
    """``size_bytes`` uint8 that begin at a page of memory, touched."""
    page = 4096
    buffer = np.zeros(size_bytes + page, dtype=np.uint8)
    start = -buffer.ctypes.data % page
    return buffer[start : start + size_bytes]
