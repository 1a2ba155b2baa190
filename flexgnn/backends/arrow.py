"""The ``arrow`` SSD backend: one Arrow IPC tensor file a blob.

A file is an encapsulated Arrow tensor message (continuation mark, size of the metadata, metadata, body; see
"Encapsulated message format" in the Arrow columnar specification) and, behind it, one line of JSON with what
Arrow's tensors can't hold: the key and the numpy dtype. What follows that line has no meaning. Any Arrow library reads
the tensor.

Bodies are read with ``preadv`` straight into the caller's buffer. A memory map costs a page fault every few
pages (half the speed or less from a cold disk), counts as memory of the process while it is read, and turns a
disk error into a signal that kills the process, where a read turns it into an :class:`OSError`.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from flexgnn.core.blob import Array, Blob, flat_bytes
from flexgnn.core.directory_backend import DirectoryBackend, read_at
from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.tier import TierBackend


@dataclass(frozen=True)
class _ArrowBlob(Blob):
    """A blob, and where in its file the body starts."""

    offset: int


class ArrowBackend(DirectoryBackend):
    """Arrow IPC tensor files in one directory."""

    name = "arrow"
    contract_version = 1
    suffix = ".arrow"
    writes_over = True

    def write_file(self, path: Path, key: str, array: Array) -> Blob:
        head = _message_head(_as_tensor(array))
        trailer = json.dumps({"key": key, "dtype": array.dtype.str}).encode() + b"\n"
        # Arrow's own files begin by cutting what is there to nothing, or copy everything on its way through Python.
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        with open(descriptor, "wb") as file:
            for part in (head, flat_bytes(array), trailer):
                file.write(part)
        return _ArrowBlob(array.dtype, array.shape, len(head))

    def read_file(self, path: Path, blob: Blob, start: int, out: Array) -> None:
        assert isinstance(blob, _ArrowBlob)
        filled = read_at(path, blob.offset + start * blob.row_bytes, flat_bytes(out))
        if filled != out.nbytes:
            raise self.damaged(path)

    def inspect_file(self, path: Path) -> tuple[str, Blob]:
        with pa.memory_map(os.fspath(path)) as file:
            tensor = pa.ipc.read_tensor(file)
            shape, stored_bytes = tuple(tensor.shape), tensor.size * tensor.type.bit_width // 8
            file.seek(4)
            offset = 8 + int.from_bytes(file.read(4), "little")
        with open(path, "rb") as raw:
            raw.seek(offset + stored_bytes)
            line = raw.readline()
        if not line.endswith(b"\n"):
            raise self.damaged(path)
        trailer = json.loads(line)
        dtype = np.dtype(trailer["dtype"])
        blob = _ArrowBlob(dtype, shape if dtype == tensor.type.to_pandas_dtype() else shape[:-1], offset)
        if blob.size_bytes != stored_bytes:
            raise self.damaged(path)
        return trailer["key"], blob


def _as_tensor(array: Array) -> pa.Tensor:
    """``array`` for Arrow, without a copy; types that Arrow lacks become bytes along one more axis."""
    if array.dtype.kind in "iuf" and array.dtype.itemsize <= 8:
        return pa.Tensor.from_numpy(array)
    return pa.Tensor.from_numpy(array.reshape(*array.shape, 1).view(np.uint8))


def _message_head(tensor: pa.Tensor) -> bytes:
    """The message of ``tensor`` up to its body."""
    body_bytes = tensor.size * tensor.type.bit_width // 8
    head = bytearray(pa.ipc.get_tensor_size(tensor) - body_bytes)
    # Arrow has no call for a tensor's metadata alone: it writes them, and finds no room for the body.
    with pa.FixedSizeBufferWriter(pa.py_buffer(head)) as file, contextlib.suppress(OSError):
        pa.ipc.write_tensor(tensor, file)
    return bytes(head)


@hookimpl
def flexgnn_list_tier_backends() -> list[type[TierBackend]]:
    """The backend of this module."""
    return [ArrowBackend]
