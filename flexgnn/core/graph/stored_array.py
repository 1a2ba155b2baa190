"""One array on disk, in chunks of rows with checksums: how it is made, and read with every check."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.buffer.cpu import NDBuffer
from zarr.codecs import BytesCodec, Crc32cCodec

from flexgnn.core.errors import StoreError
from flexgnn.core.graph.layout import ArrayLayout
from flexgnn.core.tier import Array

Damaged = Callable[[str], StoreError]
"""From what is wrong with an array to the error that says so, and what to do."""

_CHECKSUM_BYTES = 4


def array_settings(layout: ArrayLayout) -> dict[str, Any]:
    """What zarr is told when it makes an array."""
    return {
        "shape": layout.shape,
        "chunks": layout.chunks,
        "dtype": layout.dtype,
        "fill_value": 0,
        "filters": None,
        "compressors": [Crc32cCodec()],
        # One flat directory an array, so that listing it counts the chunks.
        "chunk_key_encoding": {"name": "default", "separator": "."},
        # Without the scan for fill values, writing is 2.4 x faster, and a missing file always means damage.
        "config": {"write_empty_chunks": True},
    }


class StoredArray:
    """An array that was checked for completeness when it was opened; reading is safe from several threads."""

    def __init__(
        self, name: str, directory: Path, layout: ArrayLayout, array: zarr.Array[Any], damaged: Damaged
    ) -> None:
        self.layout = layout
        self._name, self._directory, self._array, self._damaged = name, directory, array, damaged

    @classmethod
    def open(cls, name: str, directory: Path, layout: ArrayLayout, damaged: Damaged) -> StoredArray:
        """The array in ``directory``, after a check of its metadata and of the number and sizes of its chunk files.

        Args:
            name: what messages call it.

        Raises:
            StoreError: if it is missing, damaged or not as ``layout`` says.
        """
        try:
            array = zarr.open_array(directory, mode="r", zarr_format=3)
        except Exception as error:  # zarr raises whatever a damaged JSON text leads it to
            raise damaged(f"array {name} is missing") from error
        if (array.shape, array.dtype, array.chunks) != (layout.shape, layout.dtype, layout.chunks):
            raise damaged(f"array {name} is not {layout.dtype} of shape {layout.shape}")
        # A codec is code that runs on what is read: none but those that the writer uses, whoever made the store.
        if array.filters or not isinstance(array.serializer, BytesCodec) or array.compressors != (Crc32cCodec(),):
            raise damaged(f"array {name} is stored with other codecs than FlexGNN uses")
        opened = cls(name, directory, layout, array, damaged)
        for chunk in range(layout.num_chunks):
            opened._check_chunk(chunk)
        return opened

    def read(self, start: int, stop: int, out: Array | None) -> Array:
        """Rows ``start:stop``, in ``out`` if given, else in a new array.

        Raises:
            ValueError: if the rows or ``out`` do not fit.
            StoreError: if a chunk is missing or damaged.
        """
        layout = self.layout
        if not 0 <= start <= stop <= layout.shape[0]:
            raise ValueError(f"rows {start}:{stop} of {self._name}, which has {layout.shape[0]}")
        shape = (stop - start, *layout.shape[1:])
        if out is None:
            out = np.empty(shape, dtype=layout.dtype)
        elif out.shape != shape or out.dtype != layout.dtype or not out.flags.c_contiguous:
            raise ValueError(
                f"{self._name} needs a C-contiguous buffer of {layout.dtype} {shape}, not {out.dtype} {out.shape}"
            )
        # Chunk by chunk: zarr would hold several decoded chunks at once, which counts against small budgets.
        for first in range(start - start % layout.chunk_rows, stop, layout.chunk_rows):
            begin, end = max(first, start), min(first + layout.chunk_rows, stop)
            self._read_within_chunk(begin, end, out[begin - start : end - start])
        return out

    def _read_within_chunk(self, start: int, stop: int, out: Array) -> None:
        chunk = start // self.layout.chunk_rows
        # Zarr gives zeros for a missing chunk.
        self._check_chunk(chunk)
        first = chunk * self.layout.chunk_rows
        if (start, stop) == (first, min(first + self.layout.chunk_rows, self.layout.shape[0])):
            self._read_chunk(chunk, out)
            return
        view: Any = out  # zarr's protocol of arrays is narrower than numpy's annotations
        try:
            self._array.get_basic_selection(slice(start, stop), out=NDBuffer(view))
        except (ValueError, OSError) as error:
            raise self._damaged(f"array {self._name} can't be read ({error})") from error

    def _read_chunk(self, chunk: int, out: Array) -> None:
        """All rows of ``chunk``, straight into ``out``; zarr would decode them elsewhere first, and take far longer.

        The file is the rows as they are, rows of padding in the last chunk, and the CRC32C of both.
        """
        found = out.reshape(-1).view(np.uint8)
        try:
            with self._file(chunk).open("rb", buffering=0) as file:
                num_bytes = file.readinto(found.data)
                rest = file.read()
        except OSError as error:
            raise self._damaged(f"array {self._name} can't be read ({error})") from error
        computed = google_crc32c.extend(google_crc32c.value(found), rest[:-_CHECKSUM_BYTES])
        if num_bytes != found.nbytes or computed != int.from_bytes(rest[-_CHECKSUM_BYTES:], "little"):
            raise self._damaged(f"array {self._name} can't be read (chunk {chunk} does not match its checksum)")

    def _file(self, chunk: int) -> Path:
        return self._directory / ".".join(["c", str(chunk), *["0"] * (len(self.layout.shape) - 1)])

    def _check_chunk(self, chunk: int) -> None:
        """Chunks are stored uncompressed and padded, so that every file of an array has the same size."""
        layout = self.layout
        expected_bytes = math.prod(layout.chunks) * layout.dtype.itemsize + _CHECKSUM_BYTES
        try:
            found_bytes = self._file(chunk).stat().st_size
        except OSError as error:
            raise self._damaged(f"chunk {chunk} of array {self._name} is missing") from error
        if found_bytes != expected_bytes:
            raise self._damaged(
                f"chunk {chunk} of array {self._name} has {found_bytes} bytes instead of {expected_bytes}"
            )
