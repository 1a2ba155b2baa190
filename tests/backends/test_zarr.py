"""The zarr backend: the contract, its arrays, compression, and what it says when a disk fails."""

import json
import subprocess
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from flexgnn.backends.zarr import ZarrBackend
from flexgnn.core.errors import ConfigError, DamagedBlobError, TierError
from flexgnn.core.tier import TierOptions
from flexgnn.testing import TierBackendTests, assert_same_bits, read_back, sample

ROWS = sample("float32", (101, 103))
LARGE = sample("float32", (5003, 128))
SETTINGS: list[Mapping[str, Any]] = [{}, {"compression": "zstd"}, {"compression": "blosc", "level": 5}]
DTYPES = [
    "bool",
    "int8",
    "uint16",
    "int64",
    "float16",
    "float64",
    "complex64",
    "complex128",
    "longdouble",
    "clongdouble",
]

each_compression = pytest.mark.parametrize("settings", SETTINGS, ids=["none", "zstd", "blosc"])


def open_tier(path: Path, settings: Mapping[str, Any] | None = None) -> ZarrBackend:
    return ZarrBackend(TierOptions(location=str(path), settings=settings or {}))


def only_folder(path: Path) -> Path:
    (folder,) = path.iterdir()
    return folder


def stored_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


class TestZarrBackend(TierBackendTests):
    backend = ZarrBackend


@pytest.mark.slow
class TestZarrWithZstd(TierBackendTests):
    backend = ZarrBackend
    settings = SETTINGS[1]


@pytest.mark.slow
class TestZarrWithBlosc(TierBackendTests):
    backend = ZarrBackend
    settings = SETTINGS[2]


def test_blobs_are_zarr_arrays_for_the_owner_alone(tmp_path: Path) -> None:
    open_tier(tmp_path).put("a", ROWS)
    folder = only_folder(tmp_path)
    assert folder.name == "key-a.zarr"
    assert folder.stat().st_mode & 0o777 == 0o700
    array = zarr.open_array(folder, mode="r")
    assert array.attrs.asdict() == {"key": "a", "tensor": {"dtype": "<f4", "shape": [101, 103]}}
    assert_same_bits(np.asarray(array[...]), ROWS)
    assert (folder / "c.0.0").read_bytes() == ROWS.tobytes()


@pytest.mark.parametrize("settings", SETTINGS[1:], ids=["zstd", "blosc"])
def test_compressed_blobs_are_flat_zarr_arrays(tmp_path: Path, settings: Mapping[str, Any]) -> None:
    open_tier(tmp_path, settings).put("a", LARGE)
    array = zarr.open_array(only_folder(tmp_path), mode="r")
    assert array.attrs["tensor"] == {"dtype": "<f4", "shape": [5003, 128]}
    assert_same_bits(np.asarray(array[...]).reshape(LARGE.shape), LARGE)


@each_compression
@pytest.mark.parametrize("dtype", DTYPES)
def test_types_of_numbers(tmp_path: Path, dtype: str, settings: Mapping[str, Any]) -> None:
    array = np.arange(21).reshape(7, 3).astype(dtype)
    open_tier(tmp_path, settings).put("a", array)
    tier = open_tier(tmp_path, settings)
    assert (read_back(tier, "a", array) == array).all()
    out = np.empty((2, 3), dtype=dtype)
    tier.get_rows("a", 4, out)
    assert (out == array[4:6]).all()


@pytest.mark.parametrize(("compression", "most"), [("zstd", 0.60), ("blosc", 0.95)])
def test_compression_saves_space(tmp_path: Path, compression: str, most: float) -> None:
    activations = np.maximum(np.random.default_rng(5).standard_normal((4096, 128), dtype=np.float32), 0)
    open_tier(tmp_path, {"compression": compression}).put("a", activations)
    assert stored_bytes(tmp_path) < most * activations.nbytes


def test_a_higher_level_saves_more(tmp_path: Path) -> None:
    activations = np.maximum(np.random.default_rng(5).standard_normal((4096, 128), dtype=np.float32), 0)
    sizes = []
    for level in (1, 5):
        (tmp_path / str(level)).mkdir()
        open_tier(tmp_path / str(level), {"compression": "zstd", "level": level}).put("a", activations)
        sizes.append(stored_bytes(tmp_path / str(level)))
    assert sizes[1] < sizes[0]


def test_settings_given_as_text(tmp_path: Path) -> None:
    tier = open_tier(tmp_path, {"compression": "zstd", "level": "3"})
    assert tier.settings.level == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"compression": "gzip"},
            r"compression=gzip of the backend 'zarr' is not accepted: .*'none', 'zstd' or 'blosc'",
        ),
        ({"level": 0}, r"level=0 .*greater than or equal to 1"),
        ({"level": "10"}, r"level=10 .*less than or equal to 9"),
        ({"level": "high"}, r"level=high .*integer"),
        ({"levels": 1}, r"no setting 'levels'.*Did you mean 'level'"),
    ],
)
def test_settings_that_are_not_accepted(tmp_path: Path, settings: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_tier(tmp_path, settings)


def test_blobs_of_a_tier_that_compressed_otherwise(tmp_path: Path) -> None:
    for number, settings in enumerate(SETTINGS):
        open_tier(tmp_path, settings).put(f"{number}", LARGE)
    for settings in SETTINGS:
        tier = open_tier(tmp_path, settings)
        for number in range(3):
            assert_same_bits(read_back(tier, f"{number}", LARGE), LARGE)


def test_a_wide_row_is_decoded_in_small_parts(tmp_path: Path) -> None:
    wide = sample("float32", (1, 8 << 20))
    tier = open_tier(tmp_path, {"compression": "blosc"})
    tier.put("a", wide)
    out = np.empty_like(wide)
    tracemalloc.start()
    try:
        tier.get("a", out)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert_same_bits(out, wide)
    # Parts are of 2 MiB; the one before may not be freed yet.
    assert peak_bytes < wide.nbytes // 6


@each_compression
@pytest.mark.parametrize("kept_bytes", [None, 0, 1, 15, 16, 1000, -1000, -1])
def test_a_chunk_that_is_missing_or_cut_short(
    tmp_path: Path, kept_bytes: int | None, settings: Mapping[str, Any]
) -> None:
    opened = open_tier(tmp_path, settings)
    opened.put("a", LARGE)
    chunk = sorted(only_folder(tmp_path).glob("c.*"))[-1]
    content = chunk.read_bytes()
    if kept_bytes is None:
        chunk.unlink()
    else:
        chunk.write_bytes(content[:kept_bytes])
    for tier in (opened, open_tier(tmp_path, settings)):
        with pytest.raises(DamagedBlobError, match=r"key-a\.zarr is damaged"):
            read_back(tier, "a", LARGE)


@pytest.mark.parametrize("settings", SETTINGS[1:], ids=["zstd", "blosc"])
def test_a_bit_that_flips_in_a_compressed_chunk(tmp_path: Path, settings: Mapping[str, Any]) -> None:
    tier = open_tier(tmp_path, settings)
    tier.put("a", LARGE)
    chunk = only_folder(tmp_path) / "c.0"
    content = chunk.read_bytes()
    for position in (0, 4, 12, 16, len(content) // 2, len(content) - 1):
        chunk.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(DamagedBlobError, match=r"key-a\.zarr is damaged"):
            read_back(tier, "a", LARGE)


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "{}", '{"zarr_format": 3, "node_type": "group"}', '{"zarr_format": 2}']
)
def test_metadata_of_other_content(tmp_path: Path, text: str | None) -> None:
    open_tier(tmp_path).put("a", ROWS)
    metadata = only_folder(tmp_path) / "zarr.json"
    if text is None:
        metadata.unlink()
    else:
        metadata.write_text(text)
    with pytest.raises(DamagedBlobError, match=r"key-a\.zarr is damaged"):
        read_back(open_tier(tmp_path), "a", ROWS)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [103, 101]},
        {"data_type": "int32", "fill_value": 0},
        {"attributes": {}},
        {"attributes": {"key": "a"}},
        {"attributes": {"key": "b", "tensor": {"dtype": "<f4", "shape": [101, 103]}}},
        {"attributes": {"key": "a", "tensor": {"dtype": "<f4", "shape": [103, 101]}}},
        {"attributes": {"key": "a", "tensor": {"dtype": "<i4", "shape": [101, 103]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [50, 103]}}},
    ],
)
def test_metadata_that_does_not_fit(tmp_path: Path, changes: Mapping[str, Any]) -> None:
    open_tier(tmp_path).put("a", ROWS)
    metadata = only_folder(tmp_path) / "zarr.json"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), **changes}))
    with pytest.raises(DamagedBlobError, match=r"key-a\.zarr is damaged"):
        read_back(open_tier(tmp_path), "a", ROWS)


def test_leftovers_of_an_interrupted_put_go_when_the_tier_is_opened(tmp_path: Path) -> None:
    open_tier(tmp_path).put("a", ROWS)
    only_folder(tmp_path).rename(tmp_path / "unfinished-1-0")
    open_tier(tmp_path).put("b", ROWS)
    open_tier(tmp_path)
    assert only_folder(tmp_path).name == "key-b.zarr"


@each_compression
def test_an_interrupt_leaves_the_old_blob_and_writes_nothing_more(
    tmp_path: Path, settings: Mapping[str, Any], interrupt_puts: Callable[[ZarrBackend], Iterator[None]]
) -> None:
    for _ in interrupt_puts(open_tier(tmp_path, settings)):
        time.sleep(0.05)
        assert not list(tmp_path.glob("unfinished-*"))


def test_a_read_only_disk(small_disk: Path) -> None:
    tier = open_tier(small_disk)
    tier.put("a", ROWS)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(TierError, match=r"Read-only file system.*--ssd-path"):
        tier.put("a", ROWS)
    with pytest.raises(TierError, match="Read-only file system"):
        tier.delete("a")
    assert_same_bits(read_back(open_tier(small_disk), "a", ROWS), ROWS)


def test_a_directory_that_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "scratch"
    path.mkdir()
    tier = open_tier(path)
    path.rmdir()
    with pytest.raises(TierError, match="No such file or directory"):
        tier.put("a", ROWS)
    assert not path.exists()
    with pytest.raises(TierError, match="can't open"):
        open_tier(path)
