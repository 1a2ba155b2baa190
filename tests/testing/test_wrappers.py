"""Slow, failing and full tiers around a real one."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from flexgnn.backends.arrow import ArrowBackend
from flexgnn.core.errors import TierError, TierFullError
from flexgnn.core.tier import TierBackend, TierOptions
from flexgnn.testing import (
    FailingBackend,
    FullBackend,
    ThrottledBackend,
    TierBackendTests,
    WrapperBackend,
    assert_same_bits,
    read_back,
    sample,
)

ROWS = sample("float32", (101, 103))


class WrappedArrow(WrapperBackend.over(ArrowBackend)):
    """Importable by its name, as the conformance tests ask."""


class TestWrapperBackend(TierBackendTests):
    backend = WrappedArrow
    test_training_over_the_tier_gives_the_losses_of_training_in_memory = None
    """The command line takes registered backends only."""


def open_tier(backend: type[TierBackend], path: Path, capacity_bytes: int | None = None) -> TierBackend:
    return backend(TierOptions(location=str(path), capacity_bytes=capacity_bytes))


def seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def test_a_wrapper_is_declared_as_what_it_wraps(tmp_path: Path) -> None:
    nested = FullBackend.over(ThrottledBackend.over(WrappedArrow), full_bytes=10)
    tier = open_tier(nested, tmp_path)
    direct = WrapperBackend(open_tier(ArrowBackend, tmp_path))
    for wrapper in (nested, tier, direct):
        assert (wrapper.name, wrapper.contract_version, wrapper.local) == ("arrow", 1, True)
        assert wrapper.settings_type is ArrowBackend.settings_type
        assert wrapper.alignment_bytes == ArrowBackend.alignment_bytes
    assert tier.where("a") == open_tier(ArrowBackend, tmp_path).where("a")
    assert tier.room_bytes() == pytest.approx(direct.room_bytes(), rel=0.1)
    assert nested.__name__ == "FullThrottledWrappedArrow"


def test_the_account_counts_a_blob_once_and_keeps_the_capacity(tmp_path: Path) -> None:
    tier = open_tier(FailingBackend.over(ThrottledBackend.over(ArrowBackend)), tmp_path, 2 * ROWS.nbytes)
    tier.put("a", ROWS)
    tier.put("b", ROWS)
    assert tier.used_bytes == 2 * ROWS.nbytes
    with pytest.raises(TierFullError, match="capacity"):
        tier.put("c", ROWS)


def test_bytes_take_their_time(tmp_path: Path) -> None:
    backend = ThrottledBackend.over(
        ArrowBackend, read_bytes_per_second=ROWS.nbytes * 10, write_bytes_per_second=ROWS.nbytes * 5
    )
    tier = open_tier(backend, tmp_path)
    assert seconds(lambda: tier.put("a", ROWS)) >= 0.199
    assert seconds(lambda: read_back(tier, "a", ROWS)) >= 0.099
    assert_same_bits(read_back(tier, "a", ROWS), ROWS)


def test_threads_share_the_bandwidth(tmp_path: Path) -> None:
    tier = open_tier(ThrottledBackend.over(ArrowBackend, read_bytes_per_second=ROWS.nbytes * 20), tmp_path)
    tier.put("a", ROWS)
    with ThreadPoolExecutor(4) as pool:
        assert seconds(lambda: list(pool.map(lambda _: read_back(tier, "a", ROWS), range(4)))) >= 0.19


def test_many_short_calls_take_no_less_and_not_much_more(tmp_path: Path) -> None:
    tier = open_tier(ThrottledBackend.over(ArrowBackend, latency_seconds=0.0003), tmp_path)
    tier.put("a", ROWS)
    row = np.empty((1, 103), dtype=np.float32)

    def read() -> None:
        for _ in range(1000):
            tier.get_rows("a", 0, row)

    taken = [seconds(read) for _ in range(3)]
    assert all(each >= 0.29 for each in taken)
    assert min(taken) < 0.5


def test_every_so_many_calls_fail(tmp_path: Path) -> None:
    tier = open_tier(FailingBackend.over(ArrowBackend, fail_reads_every=3, fail_writes_every=2), tmp_path)
    tier.put("a", ROWS)
    with pytest.raises(TierError, match=r"can't write .*key-a\.arrow"):
        tier.put("a", ROWS[:7])
    for _ in range(2):
        read_back(tier, "a", ROWS)
        read_back(tier, "a", ROWS)
        with pytest.raises(TierError, match=r"can't read .*key-a\.arrow"):
            read_back(tier, "a", ROWS)
    assert tier.used_bytes == ROWS.nbytes
    tier.put("a", ROWS[:7])
    assert_same_bits(read_back(tier, "a", ROWS[:7]), ROWS[:7])


@pytest.mark.parametrize("array", [ROWS, np.zeros(7, dtype=bool), np.array(5.0), np.ones(1, dtype=np.uint8)])
def test_a_torn_write_is_seen_by_checksums_alone(array: np.ndarray, tmp_path: Path) -> None:
    tier = open_tier(FailingBackend.over(ArrowBackend, tear_writes_every=2), tmp_path)
    before = array.copy()
    for key, whole in (("a", True), ("b", False), ("c", True)):
        tier.put(key, array)
        stored = read_back(tier, key, array)
        assert (hashlib.sha256(stored.tobytes()).digest() == hashlib.sha256(array.tobytes()).digest()) is whole
        half = array.nbytes // 2
        assert stored.tobytes()[:half] == array.tobytes()[:half]
    assert_same_bits(array, before)


def test_a_full_tier_keeps_what_it_has_and_takes_more_when_some_goes(tmp_path: Path) -> None:
    tier = open_tier(FullBackend.over(ArrowBackend, full_bytes=1000), tmp_path)
    small = sample("uint8", (400,))
    tier.put("a", small)
    tier.put("b", small)
    for key, size in (("c", 201), ("a", 601)):
        with pytest.raises(TierFullError, match="told to be full"):
            tier.put(key, sample("uint8", (size,)))
    assert sorted(tier.keys()) == ["a", "b"]
    assert_same_bits(read_back(tier, "a", small), small)
    assert tier.used_bytes == 800
    tier.put("a", sample("uint8", (600,)))
    tier.delete("b")
    tier.close()
    reopened = open_tier(FullBackend.over(ArrowBackend, full_bytes=1000), tmp_path)
    with pytest.raises(TierFullError):
        reopened.put("c", sample("uint8", (401,)))
    reopened.put("c", small)
    assert reopened.room_bytes() > 1000


def test_a_full_tier_below_another_wrapper(tmp_path: Path) -> None:
    tier = open_tier(ThrottledBackend.over(FullBackend.over(ArrowBackend, full_bytes=1000)), tmp_path)
    for _ in range(3):
        tier.put("a", sample("uint8", (1000,)))
        with pytest.raises(TierFullError):
            tier.put("b", sample("uint8", (1,)))
        tier.delete("a")
