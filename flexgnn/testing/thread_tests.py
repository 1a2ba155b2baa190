"""Tests of several threads at one tier: on different keys, and reading the same one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from flexgnn.core.tier import Array, TierBackend
from flexgnn.testing.kit import Kit
from flexgnn.testing.samples import assert_same_bits, read_back, sample


class ThreadTests(Kit):
    """Readers and writers side by side."""

    def test_threads_on_different_keys(self, tier: TierBackend) -> None:
        def work(worker: int) -> None:
            for version in range(20):
                array = np.full((101, 103), 1000 * worker + version)
                tier.put(f"{worker}", array)
                assert_same_bits(read_back(tier, f"{worker}", array), array)
                tier.put(f"{worker} passing", array[:3])
                tier.delete(f"{worker} passing")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert sorted(tier.keys()) == sorted(map(str, range(8)))
        assert tier.used_bytes == 8 * 101 * 103 * 8

    def test_threads_read_one_key(self, tier: TierBackend) -> None:
        array = sample("float32", (10007, 13))
        tier.put("a", array)
        with ThreadPoolExecutor(8) as pool:
            for out in pool.map(lambda _: read_back(tier, "a", array), range(32)):
                assert_same_bits(out, array)

    def test_readers_beside_writers_of_other_keys(self, tier: TierBackend) -> None:
        array = sample("float32", (4001, 31))
        tier.put("read", array)

        def write(worker: int) -> None:
            for version in range(15):
                written = sample("int32", (100 * worker + 300 * version + 1, 17), seed=version)
                tier.put(f"written {worker}", written)
                assert_same_bits(read_back(tier, f"written {worker}", written), written)

        _beside(lambda reader: _read_parts(tier, array, reader), write)
        assert sorted(tier.keys()) == ["read", *(f"written {worker}" for worker in range(3))]

    def test_readers_beside_deletes_of_other_keys(self, tier: TierBackend) -> None:
        array = sample("float32", (4001, 31))
        tier.put("read", array)

        def delete(worker: int) -> None:
            for version in range(30):
                tier.put(f"{worker}/{version}", array[:100])
            for version in range(30):
                tier.delete(f"{worker}/{version}")

        _beside(lambda reader: _read_parts(tier, array, reader), delete)
        assert list(tier.keys()) == ["read"]
        assert tier.used_bytes == array.nbytes


def _read_parts(tier: TierBackend, array: Array, reader: int) -> None:
    """Read the blob ``read``, and a few of its rows that depend on ``reader``."""
    assert_same_bits(read_back(tier, "read", array), array)
    start = 1000 * reader
    rows = np.empty_like(array[start : start + 1000 + reader])
    tier.get_rows("read", start, rows)
    assert_same_bits(rows, array[start : start + len(rows)])


def _beside(read: Callable[[int], None], change: Callable[[int], None]) -> None:
    """Three threads that read for as long as three others make their changes."""
    changed = threading.Event()

    def read_on(reader: int) -> None:
        while True:
            last = changed.is_set()
            read(reader)
            if last:
                return

    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read_on, reader) for reader in range(3)]
        try:
            list(pool.map(change, range(3)))
        finally:
            changed.set()
        for reader in readers:
            reader.result()
