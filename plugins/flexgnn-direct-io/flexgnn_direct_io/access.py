"""Whether the files of a directory can be read and written past the page cache, and how aligned calls must be."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BLOCK_BYTES = 4096
"""Offsets and lengths that every disk in use accepts, and that file systems handle without reading blocks first."""

_MEMORY_BYTES = (512, BLOCK_BYTES)
"""What addresses must be multiples of: on most disks, and on kernels before 6.0 with disks of 4 KiB sectors."""


@dataclass(frozen=True)
class Access:
    """How files are read and written."""

    direct: bool
    """Whether the page cache is bypassed."""
    block_bytes: int
    """File offsets and lengths of calls are multiples of it."""
    memory_bytes: int
    """Addresses of buffers are multiples of it."""


BUFFERED = Access(direct=False, block_bytes=1, memory_bytes=1)
_CAUTIOUS = Access(direct=True, block_bytes=BLOCK_BYTES, memory_bytes=BLOCK_BYTES)


def find_access(directory: Path) -> Access:
    """How files in ``directory`` are best read and written, found by writing one.

    Where none can be written (a read-only or full disk) direct access is assumed: a file system that has none
    refuses it at the first read.
    """
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            return _try(file.fileno())
    except OSError:
        return _CAUTIOUS


def _try(file: int) -> Access:
    buffer = np.frombuffer(mmap.mmap(-1, 4 * BLOCK_BYTES), dtype=np.uint8)
    for memory_bytes in _MEMORY_BYTES:
        try:
            bypass_page_cache(file, True)
            os.pwrite(file, buffer[memory_bytes : memory_bytes + 2 * BLOCK_BYTES].data, 0)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        else:
            return BUFFERED if _cached(file) else Access(True, BLOCK_BYTES, memory_bytes)
    return BUFFERED


def bypass_page_cache(file: int, direct: bool) -> None:
    """Have calls on ``file`` bypass the page cache, or not; :class:`OSError` EINVAL where that is impossible."""
    flags = fcntl.fcntl(file, fcntl.F_GETFL) & ~os.O_DIRECT
    fcntl.fcntl(file, fcntl.F_SETFL, flags | (os.O_DIRECT if direct else 0))


def _cached(file: int) -> bool:
    """Whether the first page of ``file`` is in the page cache: some file systems take direct calls and buffer them."""
    view = np.frombuffer(mmap.mmap(file, 0), dtype=np.uint8)
    resident = ctypes.c_ubyte()
    failed = ctypes.CDLL(None).mincore(ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(1), ctypes.byref(resident))
    return not failed and bool(resident.value & 1)
