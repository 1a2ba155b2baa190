"""Files of predictions: checked before anything is computed, and complete or not there.

Rows are computed in the store's order of nodes and wanted in the original one. All formats therefore begin as a file of
rows that can be written anywhere (``.npy``); the others are then written from it in order, a batch at a time: Parquet
can only be appended to, and rows here and there in the chunks of Zarr would each have a whole chunk written again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flexgnn.core.errors import ConfigError
from flexgnn.core.graph.array_writer import ArrayWriter
from flexgnn.core.graph.layout import ArrayLayout
from flexgnn.core.graph.staging import move_into_place, sibling
from flexgnn.core.runtime.row_file import RowFile
from flexgnn.core.sizes import format_size

_BATCH_BYTES = 2**23
"""Of rows that are converted at once: a chunk of Zarr, a row group of Parquet."""

Converter = Callable[[RowFile, Path, Callable[[int], None]], None]
"""From a finished file of rows to another format at a path; calls with the number of rows that are done."""


@dataclass(frozen=True)
class PredictionFile:
    """Where predictions are to be, and in which format, by the end of its name."""

    path: Path

    @classmethod
    def checked(cls, path: Path, *, overwrite: bool) -> PredictionFile:
        """A file that can be made at ``path``.

        Raises:
            ConfigError: if its format is unknown, or something is there that may not be replaced.
        """
        if path.suffix not in CONVERTERS:
            raise ConfigError(f"Predictions can't be saved as {path}: its name must end in {', '.join(CONVERTERS)}.")
        if not path.parent.is_dir():
            raise ConfigError(f"Predictions can't be saved as {path}: there is no directory {path.parent}.")
        if path.exists() and not overwrite:
            raise ConfigError(f"{path} already exists: choose another path, or pass --overwrite (overwrite=True).")
        if path.exists() and not _is_of_format(path):
            raise ConfigError(f"{path} is not a file of predictions, so it is not replaced: choose another path.")
        return cls(path)

    @contextmanager
    def written(self, shape: tuple[int, int], converted: Callable[[int], None]) -> Iterator[RowFile]:
        """A file for N x D rows: converted and moved into place when the block ends well, otherwise gone.

        Raises:
            ConfigError: if the file system refuses.
        """
        converter = CONVERTERS[self.path.suffix]
        self._check_room(shape[0] * shape[1] * 4 * (1 if converter is None else 2))
        staging = sibling(self.path)
        with self.telling_why():
            staging.mkdir()
        try:
            with self.telling_why():
                rows = RowFile(staging / "rows", shape)
            with rows:
                yield rows
                result = rows.path
                if converter is not None:
                    result = staging / "result"
                    with self.telling_why():
                        converter(rows, result, converted)
            with self.telling_why():
                move_into_place(result, self.path) if result.is_dir() else os.replace(result, self.path)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    @contextmanager
    def telling_why(self) -> Iterator[None]:
        """Turn what the file system says into a sentence."""
        try:
            yield
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise ConfigError(f"Predictions can't be saved as {self.path} ({why}).") from error

    def _check_room(self, size_bytes: int) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if free < size_bytes:
            needed, there = format_size(size_bytes), format_size(free)
            raise ConfigError(f"Predictions can't be saved as {self.path}: that takes {needed}, and {there} are free.")


def _is_of_format(path: Path) -> bool:
    """Whether what is at ``path`` may be what its name says: above all, not a directory of something else."""
    if path.suffix != ".zarr":
        return path.is_file()
    try:
        return bool(json.loads((path / "zarr.json").read_text(encoding="utf-8"))["node_type"] == "array")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _batches(rows: RowFile) -> Iterator[tuple[int, int]]:
    step = _batch_rows(rows)
    return ((start, min(start + step, rows.shape[0])) for start in range(0, rows.shape[0], step))


def _batch_rows(rows: RowFile) -> int:
    return min(max(1, _BATCH_BYTES // rows.row_bytes), rows.shape[0])


def _to_zarr(rows: RowFile, path: Path, converted: Callable[[int], None]) -> None:
    """One array, N x D float32, with checksums."""
    layout = ArrayLayout(shape=rows.shape, dtype=np.dtype("<f4"), chunk_rows=_batch_rows(rows))
    with ThreadPoolExecutor(max_workers=1) as pool:
        writer = ArrayWriter(path, layout, pool)
        for start, stop in _batches(rows):
            writer.write(start, 0, rows.read(start, stop))
            converted(stop)


def _to_parquet(rows: RowFile, path: Path, converted: Callable[[int], None]) -> None:
    """Columns ``node`` (int64) and ``values`` (D float32): readers that work in parallel keep no order of rows."""
    # Arrow takes 30 MiB, which runs without it should not.
    import pyarrow as pa
    from pyarrow import parquet

    width = rows.shape[1]
    schema = pa.schema({"node": pa.int64(), "values": pa.list_(pa.float32(), width)})
    # Numbers that hardly repeat make large dictionaries.
    with parquet.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for start, stop in _batches(rows):
            nodes = pa.array(np.arange(start, stop, dtype=np.int64))
            values = pa.FixedSizeListArray.from_arrays(pa.array(rows.read(start, stop).reshape(-1)), width)
            writer.write_table(pa.Table.from_arrays([nodes, values], schema=schema))
            converted(stop)


CONVERTERS: dict[str, Converter | None] = {".npy": None, ".zarr": _to_zarr, ".parquet": _to_parquet}
"""By the end of a file's name; None: the file of rows as it is."""
