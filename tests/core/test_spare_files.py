"""Files that are written over when others replace them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from flexgnn.backends.arrow import ArrowBackend
from flexgnn.core.spare_files import SpareFiles
from flexgnn.core.tier import TierOptions


def test_a_retired_file_is_used_again_once_no_one_reads_it(tmp_path: Path) -> None:
    spares = SpareFiles(tmp_path, "spare-")
    (tmp_path / "a").write_bytes(b"old")
    inode = (tmp_path / "a").stat().st_ino
    with spares.reading():
        spares.retire(tmp_path / "a")
        spares.reuse(tmp_path / "new", 3)
        assert not (tmp_path / "new").exists(), "a reader may still have it open"
    with spares.reading():
        spares.reuse(tmp_path / "new", 3)
        assert (tmp_path / "new").stat().st_ino == inode, "this reader came later"
    spares.reuse(tmp_path / "other", 3)
    assert not (tmp_path / "other").exists(), "there is no other"


def test_the_file_of_the_nearest_size_is_used_unless_it_is_far(tmp_path: Path) -> None:
    spares = SpareFiles(tmp_path, "spare-")
    for size in (90, 120, 50, 200):
        (tmp_path / "a").write_bytes(bytes(size))
        spares.retire(tmp_path / "a")
        (tmp_path / "a").unlink()
    for number, (wanted, found) in enumerate([(100, 90), (100, 120), (100, None), (160, 200), (40, 50)]):
        new = tmp_path / f"new-{number}"
        spares.reuse(new, wanted)
        assert (new.stat().st_size if new.exists() else None) == found


def test_there_are_no_more_than_sixteen_and_none_at_last(tmp_path: Path) -> None:
    spares = SpareFiles(tmp_path, "spare-")
    for name in "abcdefghijklmnopqrst":
        (tmp_path / name).write_bytes(b"x")
        spares.retire(tmp_path / name)
    spares.retire(tmp_path / "missing")
    assert len(list(tmp_path.glob("spare-*"))) == 16
    spares.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == list("abcdefghijklmnopqrst")


def test_arrow_writes_over_what_was_replaced(tmp_path: Path) -> None:
    tier = ArrowBackend(TierOptions(location=str(tmp_path)))
    inodes = set()
    for number, rows in enumerate((100, 300, 10, 250, 200, 200, 220, 190, 1)):
        array = np.random.default_rng(number).random((rows, 3), dtype=np.float32)
        tier.put("a", array)
        out = np.empty_like(array)
        tier.get("a", out)
        assert np.array_equal(out, array)
        status = os.stat(tier.where("a"))
        assert array.nbytes < status.st_size < 2 * array.nbytes + 1024
        inodes.add(status.st_ino)
    assert len(inodes) < 7, "those of about the same size"
    tier.close()
    assert len(list(tmp_path.iterdir())) == 1
    again = ArrowBackend(TierOptions(location=str(tmp_path)))
    assert again.get_rows("a", 0, np.empty((1, 3), dtype=np.float32)) is None
    again.close()
