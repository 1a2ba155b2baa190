from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexgnn.backends.arrow import ArrowBackend
from flexgnn.core.errors import DamagedBlobError
from flexgnn.core.runtime.checksums import Checksums
from flexgnn.core.tier import TierOptions
from flexgnn.testing import sample


@pytest.fixture
def tier(tmp_path: Path) -> ArrowBackend:
    return ArrowBackend(TierOptions(location=str(tmp_path)))


def flip(tier: ArrowBackend, key: str, byte: int) -> None:
    """Flip one bit of a blob's body on disk."""
    file = Path(tier.where(key))
    content = bytearray(file.read_bytes())
    offset = content.index(sample("float32", (1001, 256)).tobytes()[:64])
    content[offset + byte] ^= 4
    file.write_bytes(content)


def put(tier: ArrowBackend) -> Checksums:
    """A blob of 1001 rows of 1 KiB: four groups, the last one short."""
    checksums = Checksums(tier, "fast")
    array = sample("float32", (1001, 256))
    checksums.remember("h1/3", array)
    tier.put("h1/3", array)
    return checksums


def read(tier: ArrowBackend, checksums: Checksums, start: int, stop: int) -> None:
    out = np.empty((stop - start, 256), dtype=np.float32)
    tier.get_rows("h1/3", start, out)
    checksums.check("h1/3", start, out)


@pytest.mark.parametrize(("start", "stop"), [(0, 1001), (0, 1), (255, 257), (256, 512), (700, 1001), (5, 5)])
def test_rows_as_they_were_put_pass(tier: ArrowBackend, start: int, stop: int) -> None:
    read(tier, put(tier), start, stop)


@pytest.mark.parametrize("row", [0, 255, 256, 999, 1000])
def test_a_flipped_bit_is_told_with_tensor_tier_file_and_rows(tier: ArrowBackend, row: int) -> None:
    checksums = put(tier)
    flip(tier, "h1/3", 1024 * row + 13)
    with pytest.raises(DamagedBlobError) as damage:
        read(tier, checksums, max(row - 3, 0), row + 1)
    first = row - row % 256
    for part in ("'h1/3'", "fast", tier.where("h1/3"), f"rows {first} to {min(first + 256, 1001)}"):
        assert part in str(damage.value)
    beyond = (first + 256) % 1001 if first + 256 < 1001 else 0
    read(tier, checksums, beyond, beyond + 3)


def test_an_old_blob_in_place_of_a_new_one_is_damage(tier: ArrowBackend) -> None:
    checksums = put(tier)
    checksums.remember("h1/3", np.zeros((1001, 256), dtype=np.float32))
    with pytest.raises(DamagedBlobError):
        read(tier, checksums, 0, 1001)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from([(), (0,), (1,), (7, 0), (100_003,), (3, 100_000), (70_000, 2), (5, 3, 2)]),
    dtype=st.sampled_from(["float32", "int64", "uint8", "bool"]),
    cuts=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_any_rows_of_any_tensor_pass(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], dtype: str, cuts: tuple[float, float]
) -> None:
    tier = ArrowBackend(TierOptions(location=str(tmp_path_factory.mktemp("tier"))))
    checksums, array = Checksums(tier, "fast"), sample(dtype, shape)
    checksums.remember("a", array)
    tier.put("a", array)
    start, stop = sorted(int(cut * (shape[0] if shape else 1)) for cut in cuts) if shape else (0, 1)
    out = np.empty((stop - start, *shape[1:]) if shape else (), dtype=array.dtype)
    tier.get_rows("a", start, out)
    checksums.check("a", start, out)
