"""The arrow backend: the contract, its files, and what it says when a disk fails."""

import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flexgnn.backends.arrow import ArrowBackend
from flexgnn.core.errors import TierError
from flexgnn.core.tier import TierOptions
from flexgnn.testing import TierBackendTests, assert_same_bits, read_back, sample

ROWS = sample("float32", (101, 103))


def open_tier(path: Path) -> ArrowBackend:
    return ArrowBackend(TierOptions(location=str(path)))


def only_file(path: Path) -> Path:
    (file,) = path.iterdir()
    return file


class TestArrowBackend(TierBackendTests):
    backend = ArrowBackend


def test_files_are_arrow_tensors_for_the_owner_alone(tmp_path: Path) -> None:
    open_tier(tmp_path).put("a", ROWS)
    file = only_file(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    with pa.memory_map(str(file)) as source:
        assert_same_bits(pa.ipc.read_tensor(source).to_numpy(), ROWS)


def test_names_differ_where_case_does_not_count(tmp_path: Path) -> None:
    tier = open_tier(tmp_path)
    for key in ("ab", "Ab", "aB", "AB", "a" * 200, "A" * 200):
        tier.put(key, ROWS)
    names = [file.name for file in tmp_path.iterdir()]
    assert len({name.lower() for name in names}) == 6
    assert max(map(len, names)) <= 255
    assert all(name.isascii() for name in names)


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "longdouble"])
def test_types_that_arrow_lacks(tmp_path: Path, dtype: str) -> None:
    array = np.arange(15).reshape(5, 3).astype(dtype)
    open_tier(tmp_path).put("a", array)
    assert (read_back(open_tier(tmp_path), "a", array) == array).all()


@pytest.mark.parametrize("array", [np.array(["text"]), np.zeros(3, dtype=">f4"), np.array([None])])
def test_types_that_are_no_numbers_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="not"):
        open_tier(tmp_path).put("a", array)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_an_interrupted_put_go_when_the_tier_is_opened(tmp_path: Path) -> None:
    open_tier(tmp_path).put("a", ROWS)
    (tmp_path / "unfinished-1-0").write_bytes(only_file(tmp_path).read_bytes()[:1000])
    tier = open_tier(tmp_path)
    assert list(tier.keys()) == ["a"]
    assert only_file(tmp_path).name == "key-a.arrow"


def test_get_takes_nothing_from_arrows_memory(tmp_path: Path) -> None:
    array = sample("float32", (1 << 20, 8))
    open_tier(tmp_path).put("a", array)
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    try:
        read_back(open_tier(tmp_path), "a", array)
    finally:
        pa.set_memory_pool(before)
    assert pool.max_memory() < array.nbytes // 100


@pytest.mark.parametrize("kept_bytes", [0, 3, 8, 50, 300, 30_000, -60, -1])
def test_a_file_cut_short(tmp_path: Path, kept_bytes: int) -> None:
    opened = open_tier(tmp_path)
    opened.put("a", ROWS)
    file = only_file(tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[:kept_bytes])
    with pytest.raises(TierError, match=r"key-a\.arrow is damaged"):
        read_back(open_tier(tmp_path), "a", ROWS)
    if 0 <= kept_bytes < ROWS.nbytes:
        with pytest.raises(TierError, match=r"key-a\.arrow is damaged"):
            read_back(opened, "a", ROWS)


@pytest.mark.parametrize("damage", [bytes(50_000), b"\xff" * 50_000, b"PK\x03\x04" * 10_000])
def test_a_file_of_other_content(tmp_path: Path, damage: bytes) -> None:
    open_tier(tmp_path).put("a", ROWS)
    only_file(tmp_path).write_bytes(damage)
    with pytest.raises(TierError, match=r"key-a\.arrow is damaged"):
        read_back(open_tier(tmp_path), "a", ROWS)


def test_a_damaged_header_never_passes_for_other_data(tmp_path: Path) -> None:
    open_tier(tmp_path).put("a", ROWS)
    file = only_file(tmp_path)
    content = file.read_bytes()
    for position in range(len(content) - ROWS.nbytes - len('{"key": "a", "dtype": "<f4"}\n')):
        file.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        try:
            assert_same_bits(read_back(open_tier(tmp_path), "a", ROWS), ROWS)
        except (TierError, ValueError):
            continue


def test_a_read_only_disk(small_disk: Path) -> None:
    tier = open_tier(small_disk)
    tier.put("a", ROWS)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(TierError, match=r"Read-only file system.*--ssd-path"):
        tier.put("a", ROWS)
    with pytest.raises(TierError, match="Read-only file system"):
        tier.delete("a")
    assert_same_bits(read_back(open_tier(small_disk), "a", ROWS), ROWS)


def test_a_directory_that_is_missing_or_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(TierError, match="can't open"):
            open_tier(path)


def test_a_directory_that_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "scratch"
    path.mkdir()
    tier = open_tier(path)
    path.rmdir()
    with pytest.raises(TierError, match="No such file or directory"):
        tier.put("a", ROWS)
    with pytest.raises(TierError, match="can't list"):
        list(tier.keys())
