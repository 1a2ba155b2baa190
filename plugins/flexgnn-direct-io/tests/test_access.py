"""File systems that have no direct access, or want other alignments: the backend finds out, and says so."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from flexgnn.core.tier import TierOptions
from flexgnn.testing import TierBackendTests, assert_same_bits, read_back, sample
from flexgnn_direct_io import DirectIOBackend
from flexgnn_direct_io.access import BUFFERED, find_access

ROWS = sample("float32", (10_007, 103))

MakeDisk = Callable[..., Path]


def open_tier(path: Path) -> DirectIOBackend:
    return DirectIOBackend(TierOptions(location=str(path)))


def run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a file system can't be made and mounted here: {done.stderr.strip()}")
    return done.stdout.strip()


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[MakeDisk]:
    """Mounts a file system of the given type that has no disk below it."""
    with ExitStack() as stack:

        def make(kind: str) -> Path:
            disk = tmp_path / kind
            disk.mkdir()
            run("mount", "-t", kind, kind, disk)
            stack.callback(run, "umount", "--lazy", disk)
            return disk

        yield make


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[MakeDisk]:
    """Mounts a file system over a disk of the given sector size."""
    with ExitStack() as stack:

        def make(sector_bytes: int, options: str) -> Path:
            image, disk = tmp_path / "image", tmp_path / "ext4"
            image.write_bytes(bytes(64 << 20))
            disk.mkdir()
            device = run("losetup", "--find", "--show", "--sector-size", sector_bytes, image)
            stack.callback(run, "losetup", "--detach", device)
            run("mkfs.ext4", "-q", device)
            run("mount", "-o", options, device, disk)
            stack.callback(run, "umount", disk)
            return disk

        yield make


class TestWithoutDirectAccess(TierBackendTests):
    """The whole contract, where calls go through the page cache."""

    backend = DirectIOBackend

    @pytest.fixture
    def location(self, in_memory: MakeDisk) -> str:
        place = in_memory("tmpfs") / "tier"
        place.mkdir()
        assert find_access(place) == BUFFERED
        return str(place)


@pytest.mark.parametrize("kind", ["ramfs", "tmpfs"])
def test_a_file_system_in_memory_is_named_in_the_notice(in_memory: MakeDisk, kind: str) -> None:
    disk = in_memory(kind)
    tier = open_tier(disk)
    assert tier.notice is not None
    assert tier.notice.startswith(f"{disk} is on a file system without direct I/O")
    tier.put("a", ROWS)
    assert_same_bits(read_back(tier, "a", ROWS), ROWS)


def test_a_file_system_that_takes_direct_calls_and_buffers_them(ext4: MakeDisk) -> None:
    assert open_tier(ext4(512, "data=journal")).notice is not None


def test_a_file_system_that_refuses_at_the_first_read(in_memory: MakeDisk) -> None:
    disk = in_memory("ramfs")
    open_tier(disk).put("a", ROWS)
    run("mount", "-o", "remount,ro", disk)
    tier = open_tier(disk)
    assert tier.notice is None
    out = np.zeros_like(ROWS)
    tier.get_rows("a", 0, out[:5000])
    tier.get_rows("a", 5000, out[5000:])
    assert_same_bits(out, ROWS)
    assert tier.notice is not None


@pytest.mark.parametrize("sector_bytes", [512, 4096])
def test_disks_of_either_sector_size(ext4: MakeDisk, sector_bytes: int) -> None:
    disk = ext4(sector_bytes, "defaults")
    (disk / "tier").mkdir()
    tier = open_tier(disk / "tier")
    tier.put("a", ROWS)
    out = np.zeros_like(ROWS)
    for start in range(0, len(ROWS), 1000):
        tier.get_rows("a", start, out[start : start + 1000])
    assert_same_bits(out, ROWS)
    assert tier.notice is None
