"""The ``zarr`` SSD backend: one Zarr v3 array a blob.

An uncompressed blob is an array of the tensor's shape in a single chunk, and so its file is the tensor's bytes: zarr
writes it without a copy, and rows are read from it with ``preadv``, where zarr would read whole chunks into memory of
its own first. A compressed blob is flat, in chunks of 1 MiB that zarr encodes and decodes one at a time, so that
little memory is needed however wide the rows are.

The array's attributes hold the key, and the tensor's type and shape.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import zarr
from pydantic import Field
from zarr.abc.codec import BytesBytesCodec
from zarr.buffer.cpu import NDBuffer
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore, StorePath

from flexgnn.core.blob import Array, Blob, flat_bytes
from flexgnn.core.directory_backend import DirectoryBackend, read_at
from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.tier import TierBackend

_CHUNK_BYTES = 1 << 20
"""Of compressed blobs. Zarr holds a chunk twice, encoded and decoded."""


@dataclass(frozen=True, kw_only=True)
class ZarrSettings:
    """How blobs are stored."""

    compression: Literal["none", "zstd", "blosc"] = "none"
    """``zstd``, or ``blosc`` (LZ4 over shuffled bits): faster, and larger where values repeat."""
    level: Annotated[int, Field(ge=1, le=9)] = 1
    """Of the compression: 1 is fast, 9 makes the least bytes."""


@dataclass(frozen=True)
class _ZarrBlob(Blob):
    """A blob, and the metadata of the array that holds it."""

    metadata: Any

    @classmethod
    def of(cls, blob: Blob, array: zarr.Array[Any]) -> _ZarrBlob:
        return cls(blob.dtype, blob.shape, array.metadata)

    @property
    def compressed(self) -> bool:
        return len(self.metadata.codecs) > 1


class ZarrBackend(DirectoryBackend):
    """Zarr arrays, each in a folder of one directory."""

    name = "zarr"
    contract_version = 1
    settings_type = ZarrSettings
    suffix = ".zarr"

    def write_file(self, path: Path, key: str, array: Array) -> Blob:
        path.mkdir(mode=0o700)
        return _to_its_end(partial(self._write_array, path, key, array))

    def read_file(self, path: Path, blob: Blob, start: int, out: Array) -> None:
        assert isinstance(blob, _ZarrBlob)
        if out.nbytes == 0:
            return  # an array without elements has no chunks
        try:
            if blob.compressed:
                self._read_chunks(path, blob, start, out)
            else:
                self._read_rows(path, blob, start, out)
        except FileNotFoundError:
            if path.is_dir():
                raise self.damaged(path) from None
            raise

    def inspect_file(self, path: Path) -> tuple[str, Blob]:
        try:
            array = zarr.open_array(LocalStore(path, read_only=True), mode="r", zarr_format=3)
            key: Any = array.attrs["key"]
            tensor: Any = array.attrs["tensor"]
            blob = _ZarrBlob.of(Blob.from_json(tensor), array)
        except FileNotFoundError:
            if path.is_dir():
                raise self.damaged(path) from None
            raise
        except OSError:
            raise
        except Exception as error:  # zarr raises whatever damaged metadata leads it to
            raise self.damaged(path) from error
        if (array.dtype, array.shape, array.chunks) != _layout(blob, compressed=blob.compressed):
            raise self.damaged(path)
        return key, blob

    def _write_array(self, path: Path, key: str, array: Array) -> Blob:
        blob = Blob(array.dtype, array.shape)
        compressors = self._compressors()
        dtype, shape, chunks = _layout(blob, compressed=bool(compressors))
        stored = zarr.create_array(
            LocalStore(path),
            shape=shape,
            chunks=chunks,
            dtype=dtype,
            filters=None,
            compressors=compressors,
            zarr_format=3,
            # All files in one folder.
            chunk_key_encoding={"name": "default", "separator": "."},
            attributes={"key": key, "tensor": blob.to_json()},
            # Without the scan for fill values, writing is 2.4 x faster, and a missing file always means damage.
            config={"write_empty_chunks": True},
        )
        content = array.reshape(-1).view(dtype).reshape(shape)
        if compressors:
            for start in range(0, len(content), chunks[0]):
                stored[start : start + chunks[0]] = content[start : start + chunks[0]]
        else:
            stored[...] = content
        return _ZarrBlob.of(blob, stored)

    def _compressors(self) -> list[BytesBytesCodec]:
        """With a checksum behind, since decoders may read past the end of what is damaged."""
        match self.settings.compression:
            case "zstd":
                return [ZstdCodec(level=self.settings.level), Crc32cCodec()]
            case "blosc":
                return [BloscCodec(cname="lz4", clevel=self.settings.level, shuffle="bitshuffle"), Crc32cCodec()]
            case _:
                return []

    def _read_rows(self, path: Path, blob: _ZarrBlob, start: int, out: Array) -> None:
        chunk = path / blob.metadata.encode_chunk_key((0,) * len(blob.metadata.shape))
        filled = read_at(chunk, start * blob.row_bytes, flat_bytes(out))
        if filled != out.nbytes or chunk.stat().st_size != blob.size_bytes:
            raise self.damaged(path)

    def _read_chunks(self, path: Path, blob: _ZarrBlob, start: int, out: Array) -> None:
        dtype, _, (chunk_elements,) = _layout(blob, compressed=True)
        array = zarr.Array(zarr.AsyncArray(blob.metadata, StorePath(LocalStore(path, read_only=True))))
        target = out.reshape(-1).view(dtype)
        filled, offset = 0, start * blob.row_bytes // dtype.itemsize
        while filled < len(target):
            chunk, skipped = divmod(offset + filled, chunk_elements)
            part: Any = target[filled : filled + chunk_elements - skipped]
            # Zarr gives zeros for a missing chunk.
            if not (path / blob.metadata.encode_chunk_key((chunk,))).is_file():
                raise self.damaged(path)
            first = offset + filled
            try:
                array.get_basic_selection(slice(first, first + len(part)), out=NDBuffer(part))
            except OSError:
                raise
            except Exception as error:  # codecs raise whatever damaged bytes lead them to
                raise self.damaged(path) from error
            filled += len(part)


def _layout(blob: Blob, *, compressed: bool) -> tuple[np.dtype[Any], tuple[int, ...], tuple[int, ...]]:
    """Type, shape and chunks of the array for ``blob``. Types that Zarr lacks become bytes along one more axis."""
    dtype, shape = blob.dtype, blob.shape
    if dtype.char in "gG":
        dtype, shape = np.dtype(np.uint8), (*shape, dtype.itemsize)
    if not compressed:
        return dtype, shape, tuple(max(1, size) for size in shape)
    elements = math.prod(shape)
    return dtype, (elements,), (max(1, min(elements, _CHUNK_BYTES // dtype.itemsize)),)


def _to_its_end(call: Callable[[], Blob]) -> Blob:
    """The result of ``call``; if an interrupt comes, it is passed on once the call has ended.

    Zarr goes on writing behind a call that Ctrl-C interrupts, and would make a folder again that was removed.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()  # only the main thread is interrupted
    result: Future[Blob] = Future()

    def run() -> None:
        if result.set_running_or_notify_cancel():
            try:
                result.set_result(call())
            except BaseException as error:
                result.set_exception(error)

    try:
        threading.Thread(target=run).start()
        return result.result()
    except BaseException:
        if not result.cancel():  # it has begun
            wait([result])
        raise


@hookimpl
def flexgnn_list_tier_backends() -> list[type[TierBackend]]:
    """The backend of this module."""
    return [ZarrBackend]
