"""Tests of blobs: what is put comes back, until it is replaced or deleted, also from a tier that is opened again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexgnn.core.tier import TierBackend
from flexgnn.testing.kit import Kit
from flexgnn.testing.samples import DTYPES, ODD_KEYS, SHAPES, assert_same_bits, read_back, sample


class BlobTests(Kit):
    """Round trips, replacing, deleting, keys, reopening."""

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_round_trip(self, tier: TierBackend, dtype: str, shape: tuple[int, ...]) -> None:
        array = sample(dtype, shape)
        tier.put("a", array)
        assert_same_bits(read_back(tier, "a", array), array)
        assert tier.size_bytes("a") == array.nbytes

    def test_round_trip_of_a_large_blob(self, tier: TierBackend) -> None:
        array = sample("float32", (1 << 16, 128))
        tier.put("large", array)
        assert_same_bits(read_back(tier, "large", array), array)

    @pytest.mark.parametrize("view", [np.s_[::2], np.s_[:, 1:3], np.s_[::-1, ::3]])
    def test_put_of_a_view_that_is_not_contiguous(self, tier: TierBackend, view: Any) -> None:
        array = sample("float32", (7, 11))[view]
        tier.put("view", array)
        tier.put("transposed", array.T)
        assert_same_bits(read_back(tier, "view", np.ascontiguousarray(array)), array)
        assert_same_bits(read_back(tier, "transposed", np.ascontiguousarray(array.T)), array.T)

    def test_put_copies(self, tier: TierBackend) -> None:
        array = sample("int64", (7, 11)).copy()
        before = array.copy()
        tier.put("a", array)
        array[:] = 0
        assert_same_bits(read_back(tier, "a", before), before)

    def test_put_leaves_the_array_as_it_is(self, tier: TierBackend) -> None:
        array = sample("float32", (7, 11)).copy()
        before = array.copy()
        tier.put("a", array)
        assert_same_bits(array, before)

    def test_put_again_replaces_the_whole_blob(self, tier: TierBackend) -> None:
        for array in (
            sample("float32", (7, 11)),
            sample("int16", (3,)),
            sample("float64", (13, 5)),
            sample("bool", ()),
        ):
            tier.put("a", array)
            assert_same_bits(read_back(tier, "a", array), array)
            assert list(tier.keys()) == ["a"]
            assert tier.size_bytes("a") == array.nbytes

    @pytest.mark.parametrize("array", [np.array(["text"]), np.zeros(3, dtype=">f4"), np.array([None])])
    def test_put_of_what_is_no_number(self, tier: TierBackend, array: Any) -> None:
        before = sample("float32", (7,))
        tier.put("a", before)
        with pytest.raises(ValueError, match="not"):
            tier.put("a", array)
        assert_same_bits(read_back(tier, "a", before), before)

    def test_delete(self, tier: TierBackend) -> None:
        tier.put("a", sample("float32", (7,)))
        tier.put("b", sample("float32", (5,)))
        tier.delete("a")
        assert list(tier.keys()) == ["b"]
        with pytest.raises(KeyError):
            tier.get("a", np.empty(7, dtype=np.float32))
        tier.put("a", sample("int8", (3,)))
        assert sorted(tier.keys()) == ["a", "b"]

    def test_clear(self, tier: TierBackend) -> None:
        for key in ("a", "a/b", "x" * 200):
            tier.put(key, sample("float32", (7,)))
        tier.clear()
        assert list(tier.keys()) == []
        assert tier.used_bytes == 0
        tier.clear()

    @pytest.mark.parametrize("key", ["absent", "x" * 200, "../absent", "here/not"])
    def test_a_key_that_was_never_put(self, tier: TierBackend, key: str) -> None:
        tier.put("here", sample("float32", (7,)))
        out = np.empty(7, dtype=np.float32)
        for use in (tier.delete, tier.size_bytes, lambda k: tier.get(k, out), lambda k: tier.get_rows(k, 0, out)):
            with pytest.raises(KeyError):
                use(key)

    @pytest.mark.parametrize("key", ["", "x" * 201])
    def test_a_key_of_a_wrong_length(self, tier: TierBackend, key: str) -> None:
        with pytest.raises(ValueError, match="key"):
            tier.put(key, sample("float32", (7,)))
        assert list(tier.keys()) == []

    def test_odd_keys_stay_apart_and_inside_the_location(self, location: str) -> None:
        tier = self.open(location)
        for number, key in enumerate(ODD_KEYS):
            tier.put(key, np.array([number, 7]))
        if self.backend.durable:
            tier.close()
            tier = self.open(location)
        assert sorted(tier.keys()) == sorted(ODD_KEYS)
        for number, key in enumerate(ODD_KEYS):
            assert read_back(tier, key, np.array([0, 0])).tolist() == [number, 7]
        if self.backend.local:
            outside = Path(location).parent
            assert [p.name for p in outside.rglob("*") if not p.is_relative_to(location)] == []
        for key in ODD_KEYS:
            assert tier.where(key)
            tier.delete(key)
        assert list(tier.keys()) == []
        tier.close()

    def test_reopened(self, location: str) -> None:
        self.need_durable()
        arrays = {f"{dtype} {shape}": sample(dtype, shape) for dtype in DTYPES for shape in SHAPES}
        first = self.open(location)
        for key, array in arrays.items():
            first.put(key, array)
        first.put("deleted", sample("float32", (7,)))
        first.delete("deleted")
        first.flush()
        first.close()
        first.close()
        second = self.open(location)
        assert sorted(second.keys()) == sorted(arrays)
        for key, array in arrays.items():
            assert second.size_bytes(key) == array.nbytes
            assert_same_bits(read_back(second, key, array), array)
        second.close()

    def test_flush_at_any_time(self, tier: TierBackend) -> None:
        tier.flush()
        tier.put("a", sample("float32", (7, 11)))
        tier.put("b", sample("float32", (7, 11)))
        tier.delete("b")
        tier.flush()
        tier.flush()
        assert list(tier.keys()) == ["a"]
