"""The ``direct-io`` backend: raw files, read and written past the page cache."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np

from flexgnn.core.blob import flat_bytes
from flexgnn.core.directory_backend import DirectoryBackend
from flexgnn.core.tier import Array, Blob, TierOptions
from flexgnn_direct_io.access import BLOCK_BYTES, find_access
from flexgnn_direct_io.blob_file import BlobFile
from flexgnn_direct_io.buffers import BufferPool
from flexgnn_direct_io.layout import BODY_OFFSET, pack_header, padded, unpack_header
from flexgnn_direct_io.transfer import read_body, write_body

# Calls of 4 MiB keep a disk nearly as busy as longer ones. A tier has one thread that reads and one that writes.
_BUFFER_BYTES, _BUFFERS = 4 << 20, 4


class DirectIOBackend(DirectoryBackend):
    """Raw files past the page cache (O_DIRECT, Linux).

    A file that is written again in the same size, and was not flushed meanwhile, is reused: new blocks cost more than
    old ones, several times more on disks that are provisioned thinly.
    """

    name = "direct-io"
    contract_version = 1
    suffix = ".raw"
    alignment_bytes = 512

    def __init__(self, options: TierOptions) -> None:
        super().__init__(options)
        self._access = find_access(self.directory)
        self._buffers = BufferPool(_BUFFER_BYTES, _BUFFERS)
        self._reusable: set[str] = set()

    @property
    def notice(self) -> str | None:
        if self._access.direct:
            return None
        return (
            f"{self.directory} is on a file system without direct I/O, so tensors pass through the page cache: "
            "choose a directory on a local disk with --ssd-path."
        )

    def write_blob(self, key: str, array: Array) -> Blob:
        blob = super().write_blob(key, array)
        with self._lock:
            self._reusable.add(key)
        return blob

    def remove_blob(self, key: str) -> None:
        super().remove_blob(key)
        with self._lock:
            self._reusable.discard(key)

    def flush(self) -> None:
        with self._lock:
            self._reusable.clear()  # what survives a crash must not be overwritten in place
        super().flush()

    def close(self) -> None:
        self._buffers.release()

    def write_file(self, path: Path, key: str, array: Array) -> Blob:
        blob = Blob(array.dtype, array.shape)
        body = np.frombuffer(flat_bytes(array), dtype=np.uint8)
        self._reuse(key, path, BODY_OFFSET + padded(len(body)))
        with self._buffers.taken() as spare, self._open(path, os.O_CREAT | os.O_WRONLY) as file:
            write_body(file, pack_header(key, blob), body, spare)
            self._note(file)
        return blob

    def read_file(self, path: Path, blob: Blob, start: int, out: Array) -> None:
        body = np.frombuffer(flat_bytes(out), dtype=np.uint8)
        with self._buffers.taken() as spare, self._open(path, os.O_RDONLY) as file:
            complete = read_body(file, BODY_OFFSET + start * blob.row_bytes, body, spare)
            self._note(file)
        if not complete:
            raise self.damaged(path)

    def inspect_file(self, path: Path) -> tuple[str, Blob]:
        with self._buffers.taken() as spare, self._open(path, os.O_RDONLY) as file:
            count = file.read([spare[:BLOCK_BYTES]], 0)
            self._note(file)
            key, blob = unpack_header(spare[:count].tobytes())
            if file.size_bytes != BODY_OFFSET + padded(blob.size_bytes):
                raise self.damaged(path)
        return key, blob

    def _reuse(self, key: str, path: Path, file_bytes: int) -> None:
        """Move the file that ``key`` has now to ``path``, to be overwritten there, if that takes no new blocks."""
        with self._lock:
            reusable = key in self._reusable
            self._reusable.discard(key)
        if not reusable:
            return
        old = self.where(key)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(old).st_size == file_bytes:
                os.replace(old, path)

    def _open(self, path: Path, flags: int) -> BlobFile:
        return BlobFile(path, flags, self._access)

    def _note(self, file: BlobFile) -> None:
        """Open no more files for direct access after one whose file system refused it."""
        if not file.access.direct:
            self._access = file.access
