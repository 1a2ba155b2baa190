"""The pinned backend: the contract, but for what outlives a process, and its memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flexgnn.backends.pinned_memory import PinnedMemoryBackend
from flexgnn.core.blob import Blob
from flexgnn.core.errors import TierFullError
from flexgnn.core.tier import TierOptions
from flexgnn.testing import TierBackendTests, assert_same_bits, read_back, sample

ROWS = sample("float32", (101, 103))


def open_tier(capacity_bytes: int | None = None) -> PinnedMemoryBackend:
    return PinnedMemoryBackend(TierOptions(location="", capacity_bytes=capacity_bytes))


class TestPinnedMemoryBackend(TierBackendTests):
    backend = PinnedMemoryBackend


def test_rows_are_lent_where_they_are() -> None:
    tier = open_tier()
    tier.put("a", ROWS)
    lent = tier.lend_rows("a", 7, 5)
    assert_same_bits(lent, ROWS[7:12])
    lent[0, 0] = 9.0
    assert read_back(tier, "a", ROWS)[7, 0] == 9.0


def test_memory_is_filled_in_place_and_there_afterwards() -> None:
    tier = open_tier(capacity_bytes=ROWS.nbytes)
    with tier.filling("a", Blob(ROWS.dtype, ROWS.shape)) as array:
        assert tier.used_bytes == ROWS.nbytes
        array[...] = ROWS
    assert_same_bits(read_back(tier, "a", ROWS), ROWS)
    with pytest.raises(TierFullError), tier.filling("b", Blob(ROWS.dtype, (1,))):
        pass
    assert list(tier.keys()) == ["a"]


def test_what_was_not_filled_is_not_there() -> None:
    tier = open_tier()
    tier.put("a", ROWS)
    with pytest.raises(KeyboardInterrupt), tier.filling("a", Blob(ROWS.dtype, ROWS.shape)):
        raise KeyboardInterrupt
    assert list(tier.keys()) == []
    assert tier.used_bytes == 0


def test_blobs_of_the_next_epoch_take_the_memory_of_the_last() -> None:
    tier = open_tier()
    tier.put("a", ROWS)
    first = tier.lend_rows("a", 0, 1).ctypes.data
    tier.put("a", ROWS[::-1])
    assert tier.lend_rows("a", 0, 1).ctypes.data == first
    tier.delete("a")
    tier.put("b", np.zeros_like(ROWS))
    assert tier.lend_rows("b", 0, 1).ctypes.data == first


def test_memory_that_is_kept_for_others_is_never_beyond_the_capacity() -> None:
    tier = open_tier(capacity_bytes=1000)
    sizes = (600, 400, 700, 300, 1000, 10)
    for number, size in enumerate(sizes):
        tier.put("a", np.full(size, number, dtype=np.uint8))
        assert read_back(tier, "a", np.zeros(size, dtype=np.uint8)).tolist() == [number] * size
        assert tier.used_bytes + tier.spare_bytes <= 1000
    tier.delete("a")
    assert tier.spare_bytes > 0
    tier.close()
    assert tier.spare_bytes == 0


def test_more_than_the_system_grants() -> None:
    with pytest.raises(TierFullError, match=r"does not grant .*--host-memory"):
        open_tier().new_memory(2**60)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_memory_is_not_locked_and_it_says_so() -> None:
    assert "not page-locked" in str(open_tier().notice)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_memory_is_page_locked() -> None:
    tier = open_tier()
    assert tier.notice is None
    tier.put("a", ROWS)
    assert torch.from_numpy(tier.lend_rows("a", 0, 101)).is_pinned()
