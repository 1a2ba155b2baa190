"""The ``arrow`` SSD backend: one Arrow IPC tensor file a blob.

A file is an encapsulated Arrow tensor message (continuation mark, size of the metadata, metadata, body; see
"Encapsulated message format" in the Arrow columnar specification) and, behind it, one line of JSON with what
Arrow's tensors can't hold: the key and the numpy dtype. Any Arrow library reads the tensor.

Bodies are read with ``preadv`` straight into the caller's buffer. A memory map costs a page fault every few
pages (half the speed or less from a cold disk), counts as memory of the process while it is read, and turns a
disk error into a signal that kills the process, where a read turns it into an :class:`OSError`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pyarrow as pa

from flexgnn.core.errors import TierError
from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.tier import Array, TierBackend, TierOptions

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")
_MAX_KEY_CHARACTERS = 200
_MAX_NAME_CHARACTERS = 200
_NAMED, _HASHED, _UNFINISHED, _SUFFIX = "key-", "hash-", "unfinished-", ".arrow"
_FULL = "free some space, or choose a larger disk with --ssd-path"
_FORBIDDEN = "choose a directory that can be written with --ssd-path"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _FORBIDDEN,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
}
_serial = itertools.count()


@dataclass(frozen=True)
class _Blob:
    """What a file holds, and where in it the body starts."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def size_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


class ArrowBackend(TierBackend):
    """Arrow IPC tensor files in one directory."""

    name = "arrow"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._blobs: dict[str, _Blob] = {}
        self._unflushed: set[str] = set()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, options: TierOptions) -> ArrowBackend:
        with _failures("open", options.path):
            for name in os.listdir(options.path):
                if name.startswith(_UNFINISHED):
                    (options.path / name).unlink()
        return cls(options.path)

    def put(self, key: str, array: Array) -> None:
        if not 1 <= len(key) <= _MAX_KEY_CHARACTERS:
            raise ValueError(f"A key has 1 to {_MAX_KEY_CHARACTERS} characters, not {len(key)}.")
        array = np.asarray(array, order="C")
        tensor = _as_tensor(array)
        trailer = json.dumps({"key": key, "dtype": array.dtype.str}).encode()
        unfinished = self._path / f"{_UNFINISHED}{os.getpid()}-{next(_serial)}"
        file_name = _file_name(key)
        with _failures("write", self._path / file_name):
            try:
                # Arrow would create a file that others may read.
                os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                with pa.OSFile(os.fspath(unfinished), "wb") as file:
                    offset = pa.ipc.write_tensor(tensor, file) - array.nbytes
                    file.write(trailer)
                os.replace(unfinished, self._path / file_name)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
        self._blobs[key] = _Blob(array.dtype, array.shape, offset)
        with self._lock:
            self._unflushed.add(file_name)

    def get_rows(self, key: str, start: int, out: Array) -> None:
        blob = self._blob(key)
        _check_rows(key, blob, start, out)
        row_bytes = out.nbytes // max(1, len(out)) if out.ndim else 0
        path = self._path / _file_name(key)
        with _failures("read", path), _found(key):
            file = os.open(path, os.O_RDONLY)
            try:
                filled = _fill(file, blob.offset + start * row_bytes, out.reshape(-1).view(np.uint8))
            finally:
                os.close(file)
        if filled != out.nbytes:
            raise _damaged(path)

    def delete(self, key: str) -> None:
        file_name = _file_name(key)
        with _failures("delete", self._path / file_name), _found(key):
            (self._path / file_name).unlink()
        self._blobs.pop(key, None)
        with self._lock:
            self._unflushed.discard(file_name)

    def keys(self) -> Iterator[str]:
        with _failures("list", self._path):
            names = os.listdir(self._path)
        for name in names:
            if name.startswith(_NAMED):
                encoded = name.removeprefix(_NAMED).removesuffix(_SUFFIX)
                yield unquote_to_bytes(encoded).decode("utf-8", "surrogatepass")
            elif name.startswith(_HASHED):
                with _failures("read", self._path / name), contextlib.suppress(FileNotFoundError):
                    yield _inspect(self._path / name)[0]

    def size_bytes(self, key: str) -> int:
        return self._blob(key).size_bytes

    def flush(self) -> None:
        with self._lock:
            names, self._unflushed = self._unflushed, set()
        try:
            for path in (*(self._path / name for name in names), self._path):
                with _failures("flush", path), contextlib.suppress(FileNotFoundError):
                    file = os.open(path, os.O_RDONLY)
                    try:
                        os.fsync(file)
                    finally:
                        os.close(file)
        except TierError:
            with self._lock:
                self._unflushed |= names
            raise

    def close(self) -> None:
        self._blobs.clear()

    def _blob(self, key: str) -> _Blob:
        """What is stored under ``key``; read from its file only once, since blobs are immutable."""
        blob = self._blobs.get(key)
        if blob is None:
            path = self._path / _file_name(key)
            with _failures("read", path), _found(key):
                stored_key, blob = _inspect(path)
            if stored_key != key:
                raise _damaged(path)
            self._blobs[key] = blob
        return blob


def _file_name(key: str) -> str:
    """A name for ``key`` that is its own on case-insensitive file systems too, and stays inside the directory."""
    encoded = key.encode("utf-8", "surrogatepass")
    name = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in encoded)
    if len(name) <= _MAX_NAME_CHARACTERS:
        return f"{_NAMED}{name}{_SUFFIX}"
    return f"{_HASHED}{hashlib.blake2b(encoded, digest_size=20).hexdigest()}{_SUFFIX}"


def _as_tensor(array: Array) -> pa.Tensor:
    """``array`` for Arrow, without a copy; types that Arrow lacks become bytes along one more axis."""
    if array.dtype.kind not in "biufc" or not array.dtype.isnative:
        raise ValueError(f"The arrow tier holds little-endian numbers and bools, not {array.dtype}.")
    if array.dtype.kind in "iuf" and array.dtype.itemsize <= 8:
        return pa.Tensor.from_numpy(array)
    return pa.Tensor.from_numpy(array.reshape(*array.shape, 1).view(np.uint8))


def _inspect(path: Path) -> tuple[str, _Blob]:
    """The key and the blob that the file at ``path`` says it holds."""
    try:
        with pa.memory_map(os.fspath(path)) as file:
            tensor = pa.ipc.read_tensor(file)
            shape, stored_bytes = tuple(tensor.shape), tensor.size * tensor.type.bit_width // 8
            file.seek(4)
            offset = 8 + int.from_bytes(file.read(4), "little")
            file.seek(offset + stored_bytes)
            trailer = json.loads(file.read())
        dtype = np.dtype(trailer["dtype"])
        blob = _Blob(dtype, shape if dtype == tensor.type.to_pandas_dtype() else shape[:-1], offset)
        if blob.size_bytes != stored_bytes:
            raise _damaged(path)
        return trailer["key"], blob
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error


def _check_rows(key: str, blob: _Blob, start: int, out: Array) -> None:
    if out.dtype != blob.dtype or out.shape[1:] != blob.shape[1:] or out.ndim != len(blob.shape):
        raise ValueError(f"{key!r} holds {blob.dtype} {blob.shape}, the buffer is {out.dtype} {out.shape}.")
    rows, stored_rows = (out.shape or (1,))[0], (blob.shape or (1,))[0]
    if not 0 <= start <= start + rows <= stored_rows:
        raise ValueError(f"{key!r} has {stored_rows} rows, not {start} to {start + rows}.")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError(f"The buffer for {key!r} is not C-contiguous and writeable.")


def _fill(file: int, offset: int, out: Array) -> int:
    """Read into ``out``, flat uint8, until it is full or the file ends. Returns the bytes read."""
    filled = 0
    while filled < out.nbytes:
        count = os.preadv(file, [out.data[filled:]], offset + filled)
        if count == 0:
            break
        filled += count
    return filled


@contextlib.contextmanager
def _found(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise KeyError(key) from error


@contextlib.contextmanager
def _failures(verb: str, path: Path) -> Iterator[None]:
    """Turn what the operating system reports about ``path`` into a :class:`TierError`."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # Arrow's own report of a body that is too short
            raise _damaged(path) from error
        advice = _ADVICE.get(error.errno, "check the disk, or choose another directory with --ssd-path")
        raise TierError(f"The arrow tier can't {verb} {path} ({os.strerror(error.errno)}): {advice}.") from error


def _damaged(path: Path) -> TierError:
    return TierError(f"The arrow tier's file {path} is damaged or cut short: delete it and run again.")


@hookimpl
def flexgnn_list_tier_backends() -> list[type[TierBackend]]:
    """The backend of this module."""
    return [ArrowBackend]
