"""Edges of each tile, and how far apart in time the touches of the same row are: what aggregation costs depends on it.

The ranges of :class:`~flexgnn.core.plan.rates.Reach` follow from the distances between touches (Denning, *The working
set model for program behavior*, 1968): the rows that a window of n edges touches on average are the sum, over all
lengths below n, of the share of edges whose row was not touched for longer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plan.rates import Reach, no_reach
from flexgnn.core.plan.topology import Direction
from flexgnn.core.program.kernels import count_distances
from flexgnn.core.tier import Array

_SAMPLED_EDGES = 2**25
"""Larger graphs are looked at in windows."""
_WINDOWS = 4
_CLASSES = 40
"""Of distances between touches, by power of two; one more is for rows that were not touched before."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Locality:
    """One stored adjacency, as aggregation meets it."""

    tile_edges: Array
    """int64, one a chunk."""
    reach: Reach


def measure_locality(store: GraphStore, direction: Direction) -> Locality:
    """Look at the adjacency of ``store``: all of it, or windows of a large one."""
    info = store.info
    bounds = np.append(np.arange(0, info.num_nodes, info.chunk_rows), info.num_nodes)
    positions = _edge_positions(store, direction, bounds)
    counts = np.zeros(_CLASSES + 1, dtype=np.int64)
    last = np.zeros(info.num_nodes, dtype=np.int64)
    clock = 1
    for first, stop in _windows(positions):
        for begin in range(first, stop, 2**20):
            indices = store.read(f"{direction}/indices", begin, min(begin + 2**20, stop))
            count_distances(indices, clock, last, counts)
            clock += len(indices)
        last.fill(0)
    return Locality(tile_edges=np.diff(positions), reach=reach_of(counts, info.num_nodes))


def reach_of(counts: Array, num_nodes: int) -> Reach:
    """The ranges that follow from ``counts``: edges whose row was touched before, by the power of two of the distance.

    Those in the last place were not touched before: in this pass, that is. The rows are as far as all rows together.
    """
    total = counts.sum()
    if total == 0:
        return no_reach()
    longer = 1 - np.cumsum(counts[:-1]) / total
    means = (np.concatenate([[1.0], longer[:-1]]) + longer) / 2
    lengths = np.concatenate([[1.0], 2.0 ** np.arange(len(counts) - 2)])
    rows = np.minimum(np.concatenate([[0.0], np.cumsum(lengths * means)]), num_nodes)
    return Reach(rows=np.append(rows, num_nodes + 1.0) + np.arange(len(rows) + 1) * 1e-6, shares=counts / total)


def _edge_positions(store: GraphStore, direction: Direction, rows: Array) -> Array:
    """Where the edges of each of ``rows`` begin, int64."""
    found = np.empty(len(rows), dtype=np.int64)
    piece = 2**20
    for first in range(0, int(rows[-1]) + 1, piece):
        inside = (rows >= first) & (rows < first + piece)
        if inside.any():
            pointers = store.read(f"{direction}/indptr", first, min(first + piece, int(rows[-1]) + 1))
            found[inside] = pointers[rows[inside] - first]
    return found


def _windows(positions: Array) -> list[tuple[int, int]]:
    """Ranges of edges to look at."""
    num_edges = int(positions[-1])
    if num_edges <= _SAMPLED_EDGES:
        return [(0, num_edges)]
    length = _SAMPLED_EDGES // _WINDOWS
    starts = np.linspace(0, num_edges - length, _WINDOWS).astype(np.int64)
    return [(int(start), int(start) + length) for start in starts]
