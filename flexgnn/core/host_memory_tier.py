"""What tiers in the memory of the host share: blobs that can be read and filled where they are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import ClassVar

import numpy as np

from flexgnn.core.blob import Array, Blob, check_key
from flexgnn.core.tier import TierBackend, TierOptions


class HostMemoryTier(TierBackend):
    """Tensors by key in memory of this process, of which nothing is left when it ends.

    Memory that a blob gave back is kept for the next of the same size: in training, those of the next epoch.
    """

    durable: ClassVar[bool] = False

    def __init__(self, options: TierOptions) -> None:
        super().__init__(options)
        self._arrays: dict[str, Array] = {}
        self._spare: dict[int, list[Array]] = {}
        self.spare_bytes = 0
        """Of memory that no blob is in."""
        self._lock = Lock()

    @abstractmethod
    def new_memory(self, size_bytes: int) -> Array:
        """``size_bytes`` uint8 (one at least), which go when nothing refers to them.

        Raises:
            TierError: if the system does not grant them.
        """

    @classmethod
    @abstractmethod
    def free_bytes(cls) -> int:
        """Bytes of this memory that the process could use now."""

    def room_bytes(self) -> int:
        return self.free_bytes()

    def lend_rows(self, key: str, start: int, num_rows: int) -> Array:
        """Rows of a blob where they are; they change when the blob does."""
        rows: Array = self._arrays[key][start : start + num_rows]
        return rows

    @contextmanager
    def filling(self, key: str, blob: Blob) -> Iterator[Array]:
        """Memory for a blob, which is stored under ``key`` on the way out.

        Raises:
            TierFullError: if it would exceed the capacity.
        """
        check_key(key)
        with self._accounted(key, blob.size_bytes):
            self._blobs.pop(key, None)
            with self._replaced(key, blob) as array:
                yield array
            self._blobs[key] = blob

    def write_blob(self, key: str, array: Array) -> Blob:
        blob = Blob(array.dtype, array.shape)
        with self._replaced(key, blob) as place:
            place[...] = array
        return blob

    def read_blob(self, key: str, blob: Blob, start: int, out: Array) -> None:
        out[...] = self._arrays[key][start : start + len(out)] if out.ndim else self._arrays[key]

    def find_blob(self, key: str) -> Blob:
        array = self._arrays[key]
        return Blob(array.dtype, array.shape)

    def remove_blob(self, key: str) -> None:
        self._keep_spare(self._arrays.pop(key))

    def keys(self) -> Iterator[str]:
        return iter(list(self._arrays))

    def flush(self) -> None:
        """Nothing survives a crash of the machine."""

    def close(self) -> None:
        self._arrays.clear()
        self._spare.clear()
        self.spare_bytes = 0

    def where(self, key: str) -> str:
        return f"{key!r} in memory"

    @contextmanager
    def _replaced(self, key: str, blob: Blob) -> Iterator[Array]:
        """Memory for what takes the place of the old blob, whose memory may be the same; that is gone at once."""
        if key in self._arrays:
            self._keep_spare(self._arrays.pop(key))
        array = self._take(blob.size_bytes)[: blob.size_bytes].view(blob.dtype).reshape(blob.shape)
        yield array
        self._arrays[key] = array

    def _take(self, size_bytes: int) -> Array:
        with self._lock:
            if size_bytes in self._spare:
                return self._pop_spare(size_bytes)
            self._make_room()
        return self.new_memory(max(size_bytes, 1))

    def _make_room(self) -> None:
        """Give spare memory back, as much as would be beyond the capacity with all that is in use; the lock is held."""
        capacity = self.options.capacity_bytes
        while self._spare and capacity is not None and self._used_bytes + self.spare_bytes > capacity:
            self._pop_spare(max(self._spare))

    def _pop_spare(self, size_bytes: int) -> Array:
        array = self._spare[size_bytes].pop()
        if not self._spare[size_bytes]:
            del self._spare[size_bytes]
        self.spare_bytes -= size_bytes
        return array

    def _keep_spare(self, array: Array) -> None:
        with self._lock:
            self._spare.setdefault(array.nbytes, []).append(array.reshape(-1).view(np.uint8))
            self.spare_bytes += array.nbytes
