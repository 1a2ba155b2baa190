"""The direct-io backend: the contract, its files, and what it says when a disk fails."""

import ctypes
import mmap
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from flexgnn.core.errors import DamagedBlobError, TierError, TierFullError
from flexgnn.core.tier import TierOptions
from flexgnn.testing import TierBackendTests, assert_same_bits, read_back, sample
from flexgnn_direct_io import DirectIOBackend
from flexgnn_direct_io.access import BLOCK_BYTES, find_access

ROWS = sample("float32", (101, 103))
LARGE = sample("float32", (1 << 15, 128))


def open_tier(path: Path) -> DirectIOBackend:
    return DirectIOBackend(TierOptions(location=str(path)))


def only_file(path: Path) -> Path:
    (file,) = path.iterdir()
    return file


def aligned(array: np.ndarray, shift_bytes: int = 0) -> np.ndarray:
    """A copy of ``array`` that begins ``shift_bytes`` behind a page."""
    buffer = np.frombuffer(mmap.mmap(-1, array.nbytes + shift_bytes + 1), dtype=np.uint8)
    copy = buffer[shift_bytes : shift_bytes + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def cached_pages(file: Path) -> int:
    """How many pages of ``file`` are in the page cache."""
    with file.open("r+b") as opened:
        view = np.frombuffer(mmap.mmap(opened.fileno(), 0), dtype=np.uint8)
    resident = (ctypes.c_ubyte * (len(view) // mmap.PAGESIZE + 1))()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(view)), resident) == 0
    return sum(page & 1 for page in resident)


@pytest.fixture
def direct_path(tmp_path: Path) -> Path:
    """An empty directory on a file system with direct access."""
    path = tmp_path / "direct"
    path.mkdir()
    if not find_access(path).direct:
        pytest.skip(f"{path} is on a file system without direct access: choose another with --basetemp")
    return path


class TestDirectIOBackend(TierBackendTests):
    backend = DirectIOBackend


@pytest.mark.parametrize("shift_bytes", [0, 512, 4096, 8, 100])
def test_neither_writes_nor_reads_leave_pages_in_the_cache(direct_path: Path, shift_bytes: int) -> None:
    tier = open_tier(direct_path)
    assert tier.notice is None
    array, out = aligned(LARGE, shift_bytes), aligned(np.zeros_like(LARGE), shift_bytes)
    tier.put("a", array)
    assert cached_pages(only_file(direct_path)) == 0
    tier.get("a", out)
    tier.get_rows("a", 3, out[3:1003])
    assert_same_bits(out, LARGE)
    read_back(open_tier(direct_path), "a", LARGE)
    assert cached_pages(only_file(direct_path)) == 0
    only_file(direct_path).read_bytes()
    assert cached_pages(only_file(direct_path)) > 0, "the count of pages must be able to see some"


def test_the_process_reads_and_writes_the_disk_itself(direct_path: Path) -> None:
    def moved(direction: str) -> int:
        lines = Path("/proc/self/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{direction}_bytes"))

    tier = open_tier(direct_path)
    before = moved("write")
    tier.put("a", LARGE)
    assert LARGE.nbytes <= moved("write") - before <= LARGE.nbytes + (1 << 20)
    before = moved("read")
    read_back(tier, "a", LARGE)
    assert LARGE.nbytes <= moved("read") - before <= LARGE.nbytes + (1 << 20)


def test_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    open_tier(tmp_path).put("a", ROWS)
    assert only_file(tmp_path).name == "key-a.raw"
    assert only_file(tmp_path).stat().st_mode & 0o777 == 0o600


def test_files_are_a_block_of_header_and_the_tensor_in_whole_blocks(tmp_path: Path) -> None:
    open_tier(tmp_path).put("a", ROWS)
    content = only_file(tmp_path).read_bytes()
    assert len(content) % BLOCK_BYTES == 0
    assert content[:8] == b"FLEXGNND"
    assert b'{"key":"a","dtype":"<f4","shape":[101,103]}' in content[:BLOCK_BYTES]
    assert content[BLOCK_BYTES:].startswith(ROWS.tobytes())
    assert not any(content[BLOCK_BYTES + ROWS.nbytes :])


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "longdouble"])
def test_rarer_types(tmp_path: Path, dtype: str) -> None:
    array = np.arange(15).reshape(5, 3).astype(dtype)
    open_tier(tmp_path).put("a", array)
    assert (read_back(open_tier(tmp_path), "a", array) == array).all()


@pytest.mark.parametrize("key", ["🜁" * 200, "\udc80" * 200, "\0" * 200])
def test_the_longest_headers(tmp_path: Path, key: str) -> None:
    array = np.ones((1,) * 64, dtype=np.complex128)
    open_tier(tmp_path).put(key, array)
    assert list(open_tier(tmp_path).keys()) == [key]
    assert_same_bits(read_back(open_tier(tmp_path), key, array), array)


def test_threads_share_few_buffers(tmp_path: Path) -> None:
    tier = open_tier(tmp_path)

    def work(worker: int) -> None:
        array = aligned(np.full((3 << 20) + worker, worker, dtype=np.uint8), shift_bytes=worker)
        for _ in range(3):
            tier.put(str(worker), array)
            out = aligned(np.zeros_like(array), shift_bytes=2 * worker)
            tier.get(str(worker), out)
            assert_same_bits(out, array)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(12)))
    tier.close()
    assert len(read_back(tier, "7", np.zeros((3 << 20) + 7, dtype=np.uint8))) == (3 << 20) + 7


def test_a_file_is_reused_until_it_is_flushed_or_changes_its_size(tmp_path: Path) -> None:
    tier = open_tier(tmp_path)

    def put(array: np.ndarray) -> int:
        """Put, check, and tell which file holds the blob now."""
        before = {file.stat().st_ino: file for file in tmp_path.iterdir()}
        keep = [os.open(file, os.O_RDONLY) for file in before.values()]  # so that no number is given twice
        tier.put("a", array)
        assert_same_bits(read_back(open_tier(tmp_path), "a", array), array)
        for file in keep:
            os.close(file)
        return only_file(tmp_path).stat().st_ino

    first = put(ROWS)
    assert put(-ROWS) == first
    assert put(ROWS.view("int32").reshape(103, 101)) == first
    second = put(LARGE)
    assert second != first
    tier.flush()
    third = put(LARGE)
    assert third != second
    assert put(LARGE) == third
    tier = open_tier(tmp_path)
    assert put(LARGE) != third


@pytest.mark.parametrize("kept_bytes", [0, 3, 24, 50, 4095, 4096, 30_000, 40_960, -4096, -1])
def test_a_file_cut_short(tmp_path: Path, kept_bytes: int) -> None:
    opened = open_tier(tmp_path)
    opened.put("a", ROWS)
    file = only_file(tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[:kept_bytes])
    with pytest.raises(DamagedBlobError, match=r"key-a\.raw is damaged"):
        read_back(open_tier(tmp_path), "a", ROWS)
    if len(content[:kept_bytes]) < BLOCK_BYTES + ROWS.nbytes:
        for out in (aligned(ROWS), aligned(ROWS, 8)):
            with pytest.raises(DamagedBlobError, match=r"key-a\.raw is damaged"):
                opened.get("a", out)
    assert opened.notice == open_tier(tmp_path).notice


@pytest.mark.parametrize("damage", [bytes(50_000), b"\xff" * 50_000, b"PK\x03\x04" * 10_000])
def test_a_file_of_other_content(tmp_path: Path, damage: bytes) -> None:
    open_tier(tmp_path).put("a", ROWS)
    only_file(tmp_path).write_bytes(damage)
    with pytest.raises(DamagedBlobError, match=r"key-a\.raw is damaged"):
        read_back(open_tier(tmp_path), "a", ROWS)


def test_every_flipped_byte_of_a_header_is_noticed(tmp_path: Path) -> None:
    open_tier(tmp_path).put("a", ROWS)
    file = only_file(tmp_path)
    content = file.read_bytes()
    for position in range(len(content[:BLOCK_BYTES].rstrip(b"\0"))):
        file.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        with pytest.raises(DamagedBlobError, match=r"key-a\.raw is damaged"):
            read_back(open_tier(tmp_path), "a", ROWS)


def test_a_file_of_another_key(tmp_path: Path) -> None:
    open_tier(tmp_path).put("a", ROWS)
    only_file(tmp_path).rename(tmp_path / "key-b.raw")
    with pytest.raises(DamagedBlobError, match=r"key-b\.raw is damaged"):
        read_back(open_tier(tmp_path), "b", ROWS)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB with direct access."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(bytes(4 << 20))
    disk.mkdir()
    for command in (["mkfs.ext4", "-q", "-F", image], ["mount", "-o", "loop", image, disk]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"a file system can't be made and mounted here: {done.stderr.strip()}")
    (disk / "tier").mkdir()
    yield disk / "tier"
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("shift_bytes", [0, 8])
def test_a_full_disk(small_disk: Path, shift_bytes: int) -> None:
    tier = open_tier(small_disk)
    assert tier.notice is None
    tier.put("a", ROWS)
    for key in ("a", "b"):
        with pytest.raises(TierFullError, match=r"No space left on device.*--ssd-path"):
            tier.put(key, aligned(sample("float64", (1 << 20,)), shift_bytes))
    assert list(tier.keys()) == ["a"]
    assert only_file(small_disk).name == "key-a.raw"
    assert_same_bits(read_back(tier, "a", ROWS), ROWS)
    tier.put("b", ROWS)
    tier.flush()


def test_a_read_only_disk(small_disk: Path) -> None:
    tier = open_tier(small_disk)
    tier.put("a", ROWS)
    subprocess.run(["mount", "-o", "remount,ro", small_disk.parent], check=True)
    for opened in (tier, open_tier(small_disk)):
        with pytest.raises(TierError, match=r"Read-only file system.*--ssd-path"):
            opened.put("a", ROWS)
        assert_same_bits(read_back(opened, "a", ROWS), ROWS)
        assert opened.notice is None
