"""Files that are written over when others replace them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from flexgnn.backends import arrow
from flexgnn.backends.arrow import ArrowBackend
from flexgnn.core.spare_files import SpareFiles
from flexgnn.core.tier import TierOptions


def test_a_retired_file_is_used_again_once_no_one_reads_it(tmp_path: Path) -> None:
    spares = SpareFiles(tmp_path, "spare-")
    (tmp_path / "a").write_bytes(b"old")
    inode = (tmp_path / "a").stat().st_ino
    with spares.reading():
        spares.retire(tmp_path / "a")
        spares.reuse(tmp_path / "new")
        assert not (tmp_path / "new").exists(), "a reader may still have it open"
    with spares.reading():
        spares.reuse(tmp_path / "new")
        assert (tmp_path / "new").stat().st_ino == inode, "this reader came later"
    spares.reuse(tmp_path / "other")
    assert not (tmp_path / "other").exists(), "there is no other"


def test_there_are_no_more_than_two_and_none_at_last(tmp_path: Path) -> None:
    spares = SpareFiles(tmp_path, "spare-")
    for name in "abcd":
        (tmp_path / name).write_bytes(b"x")
        spares.retire(tmp_path / name)
    spares.retire(tmp_path / "missing")
    assert len(list(tmp_path.glob("spare-*"))) == 2
    spares.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("copied_bytes", [2**24, 0], ids=["over", "anew"])
def test_arrow_writes_over_what_was_replaced(
    copied_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow, "_COPIED_BYTES", copied_bytes)
    tier = ArrowBackend(TierOptions(location=str(tmp_path)))
    inodes = set()
    for number, rows in enumerate((100, 300, 10, 200, 200, 1)):
        array = np.random.default_rng(number).random((rows, 3), dtype=np.float32)
        tier.put("a", array)
        out = np.empty_like(array)
        tier.get("a", out)
        assert np.array_equal(out, array)
        inodes.add(os.stat(tier.where("a")).st_ino)
    assert len(inodes) <= 3, "two take turns"
    tier.close()
    assert len(list(tmp_path.iterdir())) == 1
    again = ArrowBackend(TierOptions(location=str(tmp_path)))
    assert again.get_rows("a", 0, np.empty((1, 3), dtype=np.float32)) is None
    again.close()
