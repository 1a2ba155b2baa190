"""Fills one array on disk, in any order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zarr

from flexgnn.core.graph.layout import ArrayLayout
from flexgnn.core.graph.stored_array import array_settings
from flexgnn.core.tier import Array


class ArrayWriter:
    """Writes parts of a new Zarr array, R x D float32, in ``directory``."""

    def __init__(self, directory: Path, layout: ArrayLayout, pool: ThreadPoolExecutor) -> None:
        # As StoreWriter does: zarr goes on writing behind a call that Ctrl-C interrupts; leaving the pool waits.
        self._pool = pool
        self._array = pool.submit(
            zarr.create_array, directory, zarr_format=3, overwrite=True, **array_settings(layout)
        ).result()

    def write(self, row: int, column: int, values: Array) -> None:
        """Put ``values`` (R x D' float32) where their first element is at ``row`` and ``column``."""
        rows, columns = values.shape
        place = (slice(row, row + rows), slice(column, column + columns))
        self._pool.submit(self._array.__setitem__, place, values).result()
