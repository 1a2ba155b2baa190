"""Sorts more edges than memory should hold, through files of neighbouring rows.

Shapes: N nodes, E edges. An edge (row, column) is the key ``row * N + column``, int64.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flexgnn.core.tier import Array


class EdgeSorter:
    """Takes edges in any order; gives them back row by row, each once."""

    def __init__(self, directory: Path, row_bounds: Array) -> None:
        """Rows ``row_bounds[i]:row_bounds[i + 1]`` share a file in ``directory`` and are sorted in memory together."""
        self._bounds = row_bounds
        self._num_nodes = int(row_bounds[-1])
        self._files = [directory / f"{i}.edges" for i in range(len(row_bounds) - 1)]

    def add(self, rows: Array, columns: Array) -> None:
        """Add edges: both int64, of equal length."""
        keys = rows * self._num_nodes + columns
        keys.sort()
        cuts = np.searchsorted(keys, self._bounds * self._num_nodes)
        for file, begin, end in zip(self._files, cuts[:-1], cuts[1:], strict=True):
            with file.open("ab") as stream:
                keys[begin:end].tofile(stream)

    def sort(self) -> Array:
        """Sort what was added and drop repetitions; row pointers, int64 [N + 1]."""
        indptr = np.zeros(self._num_nodes + 1, dtype=np.int64)
        for file in self._files:
            keys = np.unique(np.fromfile(file, dtype=np.int64))
            keys.tofile(file)
            rows, counts = np.unique(keys // self._num_nodes, return_counts=True)
            indptr[rows + 1] = counts
        return np.cumsum(indptr)

    def columns(self) -> Iterator[Array]:
        """The columns of all edges, after :meth:`sort`: int64, in pieces."""
        for file in self._files:
            yield np.fromfile(file, dtype=np.int64) % self._num_nodes
