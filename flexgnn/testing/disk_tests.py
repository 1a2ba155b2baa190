"""Tests on a disk that is full, for backends on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flexgnn.core.errors import TierFullError
from flexgnn.testing.kit import Kit
from flexgnn.testing.samples import assert_same_bits, read_back, sample

_DISK_BYTES = 8 << 20


@contextmanager
def mounted_disk(path: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of that size, in memory, at the new directory ``path``; skips the test where none can be made."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(path)]
    try:
        mount = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(f"a file system can't be mounted here: {error}")
    if mount.returncode != 0:
        pytest.skip(f"a file system can't be mounted here: {mount.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


class DiskTests(Kit):
    """What a full disk does."""

    def test_a_full_disk_is_told_of_and_leaves_the_old_blob(self, tmp_path: Path) -> None:
        self.need_durable()
        if not self.backend.local:
            pytest.skip("the tier is not on a disk of this machine")
        small, large = sample("float32", (101, 103)), sample("float64", (_DISK_BYTES // 8,))
        with mounted_disk(tmp_path / "disk", _DISK_BYTES) as disk:
            tier = self.open(str(disk))
            tier.put("a", small)
            for key in ("a", "b"):
                with pytest.raises(TierFullError, match="--ssd-path"):
                    tier.put(key, large)
            assert list(tier.keys()) in (["a"], [])
            assert tier.used_bytes == sum(tier.size_bytes(key) for key in tier.keys())  # noqa: SIM118
            for key in list(tier.keys()):
                assert_same_bits(read_back(tier, key, small), small)
            tier.put("b", small)
            assert_same_bits(read_back(tier, "b", small), small)
            tier.close()
