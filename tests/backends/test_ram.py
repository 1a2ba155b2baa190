"""The ram backend: memory that counts once it is touched, and the limits it is taken from."""

import gc
from pathlib import Path

import psutil
import pytest
import torch

from flexgnn.backends.ram import RamBackend
from flexgnn.core.errors import BudgetError
from flexgnn.core.free_memory import cgroup_free_bytes

MIB = 2**20


def resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def test_pages_count_once_touched_and_go_back_when_forgotten() -> None:
    before = resident_bytes()
    buffer = RamBackend().allocate(256 * MIB)
    assert resident_bytes() - before < 8 * MIB
    buffer[: 128 * MIB] = 1
    assert 120 * MIB < resident_bytes() - before < 136 * MIB
    del buffer
    gc.collect()
    assert resident_bytes() - before < 8 * MIB


@pytest.mark.parametrize("size_bytes", [0, 1, 63, 4096, 3 * MIB + 7])
def test_buffers_are_aligned_writeable_bytes(size_bytes: int) -> None:
    buffer = RamBackend().allocate(size_bytes)
    assert (buffer.dtype, buffer.shape) == (torch.uint8, (size_bytes,))
    assert buffer.data_ptr() % 64 == 0
    buffer[:] = 7
    assert (buffer == 7).all()


@pytest.mark.parametrize("size_bytes", [2**50, 2**70])
def test_more_than_the_system_grants(size_bytes: int) -> None:
    with pytest.raises(BudgetError, match=r"does not grant .*--device-memory"):
        RamBackend().allocate(size_bytes)


def test_free_bytes_is_no_more_than_the_machine_has() -> None:
    assert 0 < RamBackend().free_bytes() <= psutil.virtual_memory().total


def write_group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_limits_of_cgroup_version_2(tmp_path: Path) -> None:
    job = tmp_path / "jobs" / "one"
    write_group(job, memory__max=1000, memory__current=700, memory__stat="anon 400\ninactive_file 50")
    write_group(job.parent, memory__max=1100, memory__current=900, memory__stat="inactive_file 30")
    assert list(cgroup_free_bytes("0::/jobs/one\n", tmp_path)) == [350, 230]
    write_group(job, memory__max="max")
    assert list(cgroup_free_bytes("0::/jobs/one\n", tmp_path)) == [230]


def test_limits_of_cgroup_version_1(tmp_path: Path) -> None:
    membership = "9:name=systemd:/\n4:cpu,memory:/docker/abc:x\n0::/\n"
    write_group(
        tmp_path / "memory",
        memory__limit_in_bytes=500,
        memory__usage_in_bytes=600,
        memory__stat="total_inactive_file 20",
    )
    assert list(cgroup_free_bytes(membership, tmp_path)) == [0], "the path is the host's: only the root is to be seen"
    write_group(
        tmp_path / "memory" / "docker" / "abc:x",
        memory__limit_in_bytes=400,
        memory__usage_in_bytes=100,
        memory__stat="total_inactive_file 20",
    )
    assert list(cgroup_free_bytes(membership, tmp_path)) == [320, 0]


def test_without_cgroups_there_is_no_limit(tmp_path: Path) -> None:
    assert list(cgroup_free_bytes("4:memory:/\n0::/\n", tmp_path)) == []
