"""A matrix in a file, as NumPy saves it, whose rows are written in any order."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np

from flexgnn.core.tier import Array


class RowFile:
    """N x D float32 in a new ``.npy`` file. A context manager.

    It is written by calls rather than through a memory map: a full disk is then an error and not a signal, and pages
    that were written belong to the system's cache, not to this process.
    """

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self.path, self.shape = path, shape
        self.row_bytes = shape[1] * 4
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        self._file = path.open("w+b", buffering=0)
        try:
            np.lib.format.write_array_header_1_0(self._file, header)
            self._first = self._file.tell()
            self._file.truncate(self._first + shape[0] * self.row_bytes)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> RowFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, places: Array, rows: Array) -> None:
        """Put each of ``rows`` (R x D float32) at its place (R): neighbours in the file by one call."""
        order = np.argsort(places)
        places = places[order]
        sorted_rows = np.ascontiguousarray(rows[order], dtype="<f4")
        gaps = np.flatnonzero(np.diff(places) != 1) + 1
        for start, stop in pairwise([0, *gaps.tolist(), len(places)]):
            self._write_at(int(places[start]), sorted_rows[start:stop])

    def read(self, start: int, stop: int) -> Array:
        """Rows ``start:stop``."""
        self._file.seek(self._first + start * self.row_bytes)
        values = np.fromfile(self._file, dtype="<f4", count=(stop - start) * self.shape[1])
        return values.reshape(stop - start, self.shape[1])

    def _write_at(self, row: int, rows: Array) -> None:
        left, place = rows.reshape(-1).view(np.uint8).data, self._first + row * self.row_bytes
        while left:
            written = os.pwrite(self._file.fileno(), left, place)
            left, place = left[written:], place + written
