"""Tests of what a tier says about its use, and of its capacity."""

from __future__ import annotations

import pytest

from flexgnn.core.errors import TierFullError
from flexgnn.core.tier import TierBackend
from flexgnn.testing.kit import Kit
from flexgnn.testing.samples import assert_same_bits, read_back, sample


class AccountTests(Kit):
    """Bytes in use are exact, and never more than the capacity."""

    def test_use_is_exact(self, tier: TierBackend) -> None:
        used = []
        for key, array in (
            ("a", sample("float32", (7, 11))),
            ("b", sample("bool", (5,))),
            ("a", sample("int64", (3,))),
            ("empty", sample("float32", (0, 5))),
        ):
            tier.put(key, array)
            used.append(tier.used_bytes)
        assert used == [308, 313, 29, 29]
        tier.delete("b")
        assert tier.used_bytes == 24
        assert tier.peak_bytes == 313

    def test_a_blob_beyond_the_capacity_is_refused(self, location: str) -> None:
        tier = self.open(location, 1000)
        first, second = sample("uint8", (600,)), sample("uint8", (400,))
        tier.put("a", first)
        tier.put("b", second)
        tier.put("empty", sample("float32", (0, 5)))
        with pytest.raises(TierFullError):
            tier.put("c", sample("uint8", (1,)))
        with pytest.raises(TierFullError):
            tier.put("a", sample("uint8", (601,)))
        assert sorted(tier.keys()) == ["a", "b", "empty"]
        assert_same_bits(read_back(tier, "a", first), first)
        assert_same_bits(read_back(tier, "b", second), second)
        assert (tier.used_bytes, tier.peak_bytes) == (1000, 1000)
        tier.close()

    def test_a_blob_that_is_replaced_counts_once(self, location: str) -> None:
        tier = self.open(location, 1000)
        for size in (900, 1000, 10, 1000):
            array = sample("uint8", (size,))
            tier.put("a", array)
            assert tier.used_bytes == size
            assert_same_bits(read_back(tier, "a", array), array)
        tier.close()

    def test_a_deleted_blob_gives_back_its_room(self, location: str) -> None:
        tier = self.open(location, 1000)
        for key in ("a", "b", "a"):
            tier.put(key, sample("uint8", (1000,)))
            tier.delete(key)
            with pytest.raises(KeyError):
                tier.delete(key)
            assert tier.used_bytes == 0
        assert tier.peak_bytes == 1000
        tier.close()

    def test_a_reopened_tier_counts_what_is_there(self, location: str) -> None:
        self.need_durable()
        first = self.open(location)
        for key, size in (("a", 600), ("b", 350), ("a", 500)):
            first.put(key, sample("uint8", (size,)))
        first.close()
        second = self.open(location, 1000)
        assert (second.used_bytes, second.peak_bytes) == (850, 850)
        second.close()
        third = self.open(location, 1000)
        with pytest.raises(TierFullError):
            third.put("c", sample("uint8", (151,)))
        third.put("a", sample("uint8", (650,)))
        assert (third.used_bytes, third.peak_bytes) == (1000, 1000)
        third.close()

    def test_room_is_known_or_without_limit(self, tier: TierBackend) -> None:
        room_bytes = tier.room_bytes()
        assert room_bytes is None or room_bytes > 0
        assert tier.notice is None or tier.notice
