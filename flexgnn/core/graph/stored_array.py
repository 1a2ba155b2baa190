"""One array on disk, in chunks of rows with checksums: how it is made, and read with every check."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
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

    def __init__(self, name: str, directory: Path, layout: ArrayLayout, damaged: Damaged) -> None:
        self.layout = layout
        self._name, self._directory, self._damaged = name, directory, damaged
        self._verified = bytearray(layout.num_chunks)
        """Whose checksums were compared: once for reading parts of a chunk, always for reading all of it."""

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
        opened = cls(name, directory, layout, damaged)
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
        for first in range(start - start % layout.chunk_rows, stop, layout.chunk_rows):
            begin, end = max(first, start), min(first + layout.chunk_rows, stop)
            self._read_within_chunk(begin, end, out[begin - start : end - start])
        return out

    def _read_within_chunk(self, start: int, stop: int, out: Array) -> None:
        """Rows of one chunk, straight into ``out``: zarr would decode the whole chunk elsewhere first, every time.

        The file is the rows as they are, rows of padding in the last chunk, and the CRC32C of both.
        """
        layout = self.layout
        chunk, first_row = divmod(start, layout.chunk_rows)
        self._check_chunk(chunk)
        found = out.reshape(-1).view(np.uint8)
        try:
            with self._file(chunk).open("rb", buffering=0) as file:
                if stop - start == min(layout.chunk_rows, layout.shape[0] - start) and first_row == 0:
                    num_bytes = file.readinto(found.data)
                    self._verify(chunk, google_crc32c.value(found), file.read())
                else:
                    if not self._verified[chunk]:
                        self._verify(chunk, 0, file.read())
                    file.seek(first_row * math.prod(layout.shape[1:]) * layout.dtype.itemsize)
                    num_bytes = file.readinto(found.data)
        except OSError as error:
            raise self._damaged(f"array {self._name} can't be read ({error})") from error
        if num_bytes != found.nbytes:
            raise self._damaged(f"chunk {chunk} of array {self._name} ends too early")

    def _verify(self, chunk: int, checksum: int, rest: bytes) -> None:
        """Compare the checksum of a chunk with what follows from that of its beginning and the ``rest`` of its file."""
        computed = google_crc32c.extend(checksum, rest[:-_CHECKSUM_BYTES])
        if computed != int.from_bytes(rest[-_CHECKSUM_BYTES:], "little"):
            raise self._damaged(f"array {self._name} can't be read (chunk {chunk} does not match its checksum)")
        self._verified[chunk] = True

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
