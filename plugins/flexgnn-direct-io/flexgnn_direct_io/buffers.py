"""Aligned buffers for what can't go straight between a caller's memory and the disk."""

from __future__ import annotations

import contextlib
import mmap
import queue
from collections.abc import Iterator

import numpy as np

from flexgnn.core.tier import Array


class BufferPool:
    """At most ``count`` buffers of ``size_bytes`` uint8 that begin at a page; threads wait for a free one."""

    def __init__(self, size_bytes: int, count: int) -> None:
        self._size_bytes = size_bytes
        self._free: queue.LifoQueue[Array | None] = queue.LifoQueue()
        for _ in range(count):
            self._free.put(None)  # made when it is first needed

    @contextlib.contextmanager
    def taken(self) -> Iterator[Array]:
        """A buffer that no other thread uses meanwhile. Its content is whatever was left in it."""
        buffer = self._free.get()
        try:
            if buffer is None:
                buffer = np.frombuffer(mmap.mmap(-1, self._size_bytes), dtype=np.uint8)
            yield buffer
        finally:
            self._free.put(buffer)

    def release(self) -> None:
        """Give the memory of free buffers back; they are made again when needed."""
        released = 0
        with contextlib.suppress(queue.Empty):
            while True:
                self._free.get_nowait()
                released += 1
        for _ in range(released):
            self._free.put(None)
