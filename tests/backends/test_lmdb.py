"""The lmdb backend: the contract, its file, and what it says when a disk fails."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from flexgnn.backends.lmdb import LmdbBackend
from flexgnn.core.errors import DamagedBlobError, TierError, TierFullError
from flexgnn.core.tier import TierOptions
from flexgnn.testing import TierBackendTests, assert_same_bits, read_back, sample

ROWS = sample("float32", (101, 103))
LARGE = sample("float32", (20011, 128))
"""Of three pieces."""


@contextmanager
def opened(path: Path) -> Iterator[LmdbBackend]:
    tier = LmdbBackend(TierOptions(location=str(path)))
    yield tier
    tier.close()


@contextmanager
def by_hand(path: Path) -> Iterator[Any]:
    """A transaction on the file of a tier that is closed."""
    with lmdb.open(str(path), map_size=1 << 30) as environment, environment.begin(write=True) as transaction:
        yield transaction


def stored(path: Path) -> dict[bytes, bytes]:
    with by_hand(path) as transaction:
        return dict(transaction.cursor())


class TestLmdbBackend(TierBackendTests):
    backend = LmdbBackend


def test_a_blob_is_a_record_and_pieces_for_the_owner_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as tier:
        tier.put("a", LARGE)
    assert {file.name for file in tmp_path.iterdir()} == {"data.mdb", "lock.mdb"}
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in tmp_path.iterdir())
    *pieces, record = stored(tmp_path).values()
    assert record[:8] == bytes(8)
    assert json.loads(record[8:]) == {"key": "a", "dtype": "<f4", "shape": [20011, 128]}
    assert len(pieces) == 3
    assert b"".join(pieces) == LARGE.tobytes()


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "longdouble", "clongdouble"])
def test_wide_types(tmp_path: Path, dtype: str) -> None:
    array = np.arange(15).reshape(5, 3).astype(dtype)
    with opened(tmp_path) as tier:
        tier.put("a", array)
    with opened(tmp_path) as tier:
        assert (read_back(tier, "a", array) == array).all()


def test_rows_across_pieces(tmp_path: Path) -> None:
    with opened(tmp_path) as tier:
        tier.put("a", LARGE)
        for start, stop in [(8180, 8200), (8191, 8192), (0, 16400), (16380, 20011), (20010, 20011)]:
            out = np.empty((stop - start, 128), dtype=np.float32)
            tier.get_rows("a", start, out)
            assert_same_bits(out, LARGE[start:stop])


def test_where_names_the_file_and_the_key(tmp_path: Path) -> None:
    with opened(tmp_path) as tier:
        assert tier.where("a b") == f"{tmp_path / 'data.mdb'} (key 'a b')"


def test_pages_of_blobs_that_are_gone_are_used_again(tmp_path: Path) -> None:
    with opened(tmp_path) as tier:
        for _ in range(20):
            tier.put("a", LARGE)
            tier.put("passing", LARGE)
            tier.delete("passing")
        assert (tmp_path / "data.mdb").stat().st_size < 5 * LARGE.nbytes


def test_room_counts_the_pages_that_hold_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as tier:
        for key in "abcd":
            tier.put(key, LARGE)
        inside = tier.room_bytes() - shutil.disk_usage(tmp_path).free
        tier.clear()
        assert tier.room_bytes() - shutil.disk_usage(tmp_path).free > inside + 3 * LARGE.nbytes


def test_pieces_of_an_interrupted_put_go_when_the_tier_is_opened(tmp_path: Path) -> None:
    with opened(tmp_path) as tier:
        tier.put("a", LARGE)
        tier.put("b", ROWS)
    before = stored(tmp_path)
    with by_hand(tmp_path) as transaction:
        for number in (2, 3, 1 << 40):
            for piece in range(3):
                transaction.put(b"p" + number.to_bytes(8) + piece.to_bytes(8), bytes(5000))
    with opened(tmp_path) as tier:
        assert sorted(tier.keys()) == ["a", "b"]
    assert stored(tmp_path) == before
    with opened(tmp_path) as tier:
        tier.put("c", ROWS)
        for key, array in {"a": LARGE, "b": ROWS, "c": ROWS}.items():
            assert_same_bits(read_back(tier, key, array), array)


def test_an_interrupt_leaves_the_old_blob_and_nothing_else(
    tmp_path: Path, interrupt_puts: Callable[[LmdbBackend], Iterator[None]]
) -> None:
    with opened(tmp_path) as tier:
        for _ in interrupt_puts(tier):
            tier.flush()
        num_blobs = len(list(tier.keys()))
    assert len(stored(tmp_path)) == num_blobs * 4  # a record and three pieces


def _first_piece(transaction: Any) -> bytes:
    cursor = transaction.cursor()
    cursor.set_range(b"p")
    return bytes(cursor.key())


def _first_record(transaction: Any) -> bytes:
    cursor = transaction.cursor()
    cursor.set_range(b"r")
    return bytes(cursor.key())


_DAMAGE: dict[str, Callable[[Any], object]] = {
    "a missing piece": lambda t: t.delete(_first_piece(t)),
    "a short piece": lambda t: t.put(_first_piece(t), t.get(_first_piece(t))[:-1]),
    "an empty piece": lambda t: t.put(_first_piece(t), b""),
    "an empty record": lambda t: t.put(_first_record(t), b""),
    "no JSON": lambda t: t.put(_first_record(t), bytes(8) + b"\xff{"),
    "no tensor": lambda t: t.put(_first_record(t), bytes(8) + b"[]"),
    "no key": lambda t: t.put(_first_record(t), bytes(8) + b'{"dtype": "<f4", "shape": [20011, 128]}'),
    "another key": lambda t: t.put(_first_record(t), bytes(8) + b'{"key": "b", "dtype": "<f4", "shape": [20011, 128]}'),
    "another type": lambda t: t.put(_first_record(t), bytes(8) + b'{"key": "a", "dtype": "|O", "shape": [20011, 128]}'),
    "another number": lambda t: t.put(
        _first_record(t), bytes(7) + b'\1{"key": "a", "dtype": "<f4", "shape": [20011, 128]}'
    ),
}


@pytest.mark.parametrize("what", _DAMAGE)
def test_a_damaged_blob(tmp_path: Path, what: str) -> None:
    with opened(tmp_path) as tier:
        tier.put("a", LARGE)
    with by_hand(tmp_path) as transaction:
        _DAMAGE[what](transaction)
    with opened(tmp_path) as tier:
        with pytest.raises(DamagedBlobError, match=r"data\.mdb \(key 'a'\) is damaged"):
            read_back(tier, "a", LARGE)
        tier.delete("a")
        assert list(tier.keys()) == []
        tier.put("a", ROWS)
        assert_same_bits(read_back(tier, "a", ROWS), ROWS)


@pytest.mark.parametrize("kept_bytes", [10_000, 1 << 20, -4096, -1])
def test_a_file_cut_short(tmp_path: Path, kept_bytes: int) -> None:
    with opened(tmp_path) as tier:
        tier.put("a", LARGE)
    file = tmp_path / "data.mdb"
    file.write_bytes(file.read_bytes()[:kept_bytes])
    with pytest.raises(DamagedBlobError, match=r"data\.mdb is cut short"), opened(tmp_path):
        pass


def test_a_file_of_other_content(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"PK\x03\x04" * 10_000)
    with pytest.raises(DamagedBlobError, match=r"data\.mdb is damaged"), opened(tmp_path):
        pass


@pytest.mark.parametrize("filled_by_others_bytes", [0, 500_000])
def test_a_full_disk(small_disk: Path, filled_by_others_bytes: int) -> None:
    (small_disk / "others").write_bytes(bytes(filled_by_others_bytes))
    with opened(small_disk) as tier:
        tier.put("a", ROWS)
        for key in ("a", "b"):
            for array in (sample("float64", (1 << 18,)), sample("float64", (1 << 19,))):
                with pytest.raises(TierFullError, match=r"No space left on device.*--ssd-path"):
                    tier.put(key, array)
        assert list(tier.keys()) == ["a"]
        assert_same_bits(read_back(tier, "a", ROWS), ROWS)
        tier.put("b", ROWS)
        tier.delete("a")
        assert_same_bits(read_back(tier, "b", ROWS), ROWS)
    assert len(stored(small_disk)) == 2


_OPEN = """
import sys
from flexgnn.backends.lmdb import LmdbBackend
from flexgnn.core.errors import TierFullError
from flexgnn.core.tier import TierOptions
try:
    LmdbBackend(TierOptions(location=sys.argv[1]))
except TierFullError as error:
    print(error)
"""


def test_a_disk_that_is_full_from_the_start_kills_no_process(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "others").write_bytes(bytes(2 << 20))
    process = subprocess.run([sys.executable, "-c", _OPEN, small_disk], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "No space left on device" in process.stdout
    assert "--ssd-path" in process.stdout


def test_a_read_only_disk(small_disk: Path) -> None:
    with opened(small_disk) as tier:
        tier.put("a", ROWS)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(TierError, match=r"Read-only file system.*--ssd-path"), opened(small_disk):
        pass


@pytest.mark.parametrize(("name", "reason"), [("missing", "No such file"), ("file", "Not a directory")])
def test_a_directory_that_is_missing_or_no_directory(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TierError, match=f"can't open .*{reason}.*--ssd-path"), opened(tmp_path / name):
        pass


def test_a_location_that_is_open_already(tmp_path: Path) -> None:
    with opened(tmp_path) as tier:
        tier.put("a", ROWS)
        with pytest.raises(TierError, match="already open"), opened(tmp_path):
            pass
        assert_same_bits(read_back(tier, "a", ROWS), ROWS)


def test_use_after_close(tmp_path: Path) -> None:
    with opened(tmp_path) as tier:
        tier.put("a", ROWS)
    out = np.empty_like(ROWS)
    for use in (
        lambda: tier.put("b", ROWS),
        lambda: tier.get("a", out),
        lambda: tier.delete("a"),
        lambda: list(tier.keys()),
        tier.flush,
        tier.room_bytes,
    ):
        with pytest.raises(TierError, match=f"{tmp_path} is closed"):
            use()


def test_close_waits_for_those_who_read(tmp_path: Path) -> None:
    ends: list[str] = []

    def read() -> None:
        out = np.empty_like(LARGE)
        try:
            while True:
                tier.get("a", out)
                reading.set()
        except TierError as error:
            ends.append(str(error))

    reading = threading.Event()
    with opened(tmp_path) as tier:
        tier.put("a", LARGE)
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert reading.wait(60)
    for thread in threads:
        thread.join()
    assert len(ends) == 4
    assert all("is closed" in end for end in ends)
