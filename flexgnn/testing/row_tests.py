"""Tests of reads into the caller's buffer: some rows, and buffers that don't fit."""

from __future__ import annotations

import numpy as np
import pytest

from flexgnn.core.tier import TierBackend
from flexgnn.testing.kit import Kit
from flexgnn.testing.samples import assert_same_bits, sample


class RowTests(Kit):
    """Rows, and what is refused."""

    @pytest.mark.parametrize("shape", [(13,), (13, 5), (13, 2, 3), (13, 0)])
    @pytest.mark.parametrize("dtype", ["bool", "float16", "float32", "int64"])
    def test_rows(self, tier: TierBackend, dtype: str, shape: tuple[int, ...]) -> None:
        array = sample(dtype, shape)
        tier.put("a", array)
        for start, stop in [(0, 13), (0, 5), (3, 7), (12, 13), (0, 0), (7, 7), (13, 13)]:
            out = np.empty((stop - start, *shape[1:]), dtype=dtype)
            tier.get_rows("a", start, out)
            assert_same_bits(out, array[start:stop])

    def test_rows_of_a_large_blob(self, tier: TierBackend) -> None:
        array = sample("float32", (100_003, 33))
        tier.put("a", array)
        for start, rows in [(0, 1), (1, 1), (4093, 7), (31_013, 50_021), (100_002, 1)]:
            out = np.empty((rows, 33), dtype=np.float32)
            tier.get_rows("a", start, out)
            assert_same_bits(out, array[start : start + rows])

    def test_rows_into_a_part_of_a_buffer(self, tier: TierBackend) -> None:
        array = sample("int64", (7, 11))
        tier.put("a", array)
        buffer = np.zeros((5, 11), dtype=np.int64)
        tier.get_rows("a", 2, buffer[1:4])
        assert_same_bits(buffer[1:4], array[2:5])
        assert not buffer[[0, 4]].any()

    @pytest.mark.parametrize("offset", [1, 3, 8, 100])
    def test_a_buffer_that_begins_anywhere(self, tier: TierBackend, offset: int) -> None:
        array = sample("float64", (1009, 7))
        tier.put("a", array)
        memory = np.zeros(array.nbytes + offset, dtype=np.uint8)
        out = memory[offset:].view(np.float64).reshape(array.shape)
        tier.get("a", out)
        assert_same_bits(out, array)
        assert not memory[:offset].any()

    @pytest.mark.parametrize(("start", "rows"), [(-1, 2), (0, 8), (6, 2), (8, 0), (100, 1)])
    def test_rows_out_of_range(self, tier: TierBackend, start: int, rows: int) -> None:
        tier.put("a", sample("float32", (7, 11)))
        with pytest.raises(ValueError, match="a"):
            tier.get_rows("a", start, np.empty((rows, 11), dtype=np.float32))

    @pytest.mark.parametrize("dtype", ["float16", "int32", "float64"])
    def test_buffer_of_a_wrong_dtype(self, tier: TierBackend, dtype: str) -> None:
        tier.put("a", sample("float32", (7, 11)))
        with pytest.raises(ValueError, match="a"):
            tier.get_rows("a", 0, np.empty((7, 11), dtype=dtype))

    @pytest.mark.parametrize("shape", [(7, 10), (7,), (77,), (7, 11, 1), ()])
    def test_buffer_of_a_wrong_shape(self, tier: TierBackend, shape: tuple[int, ...]) -> None:
        tier.put("a", sample("float32", (7, 11)))
        with pytest.raises(ValueError, match="a"):
            tier.get_rows("a", 0, np.empty(shape, dtype=np.float32))

    def test_get_into_a_buffer_of_a_wrong_size(self, tier: TierBackend) -> None:
        tier.put("a", sample("float32", (7, 11)))
        for rows in (6, 8):
            with pytest.raises(ValueError, match="a"):
                tier.get("a", np.empty((rows, 11), dtype=np.float32))

    def test_buffer_that_is_not_contiguous_or_read_only(self, tier: TierBackend) -> None:
        tier.put("a", sample("float32", (7, 11)))
        sealed = np.zeros((7, 11), dtype=np.float32)
        sealed.flags.writeable = False
        for out in (np.zeros((11, 7), dtype=np.float32).T, np.zeros((14, 11), dtype=np.float32)[::2], sealed):
            with pytest.raises(ValueError, match="a"):
                tier.get("a", out)
            assert not out.any()
