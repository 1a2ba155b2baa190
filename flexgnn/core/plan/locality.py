"""Edges of each tile, and how far apart in time the touches of the same row are: what aggregation costs depends on it.

The ranges of :class:`~flexgnn.core.plan.rates.Reach` follow from the distances between touches (Denning, *The working
set model for program behavior*, 1968): the rows that a window of n edges touches on average are the sum, over all
lengths below n, of the share of edges whose row was not touched for longer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plan.rates import Reach
from flexgnn.core.plan.topology import Direction
from flexgnn.core.program.adjacency_kernels import count_distances
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
    """int64, one a tile."""
    reach: Reach


def distance_classes() -> int:
    """K of :func:`reach_of`."""
    return _CLASSES + 1


def measure_locality(store: GraphStore, direction: Direction, tile_rows: int) -> Locality:
    """Look at the adjacency of ``store``: all of it, or windows of a large one."""
    info = store.info
    bounds = np.append(np.arange(0, info.num_nodes, tile_rows), info.num_nodes)
    positions = _edge_positions(store, direction, bounds)
    counts = np.zeros((len(bounds) - 1, distance_classes()), dtype=np.int64)
    last = np.zeros(info.num_nodes, dtype=np.int32)
    for first_tile, stop_tile in _windows(positions):
        last.fill(0)
        for tile in range(first_tile, stop_tile):
            first, stop = int(positions[tile]), int(positions[tile + 1])
            indices = store.read(f"{direction}/indices", first, stop)
            count_distances(indices, first - int(positions[first_tile]) + 1, last, counts[tile])
    return Locality(tile_edges=np.diff(positions), reach=reach_of(counts, info.num_nodes, int(positions[-1])))


def reach_of(counts: Array, num_nodes: int, num_edges: int) -> Reach:
    """The ranges that follow from ``counts`` (T x K): edges of each tile, by the power of two of the distance.

    The last class is of rows that were not touched before: in this pass, that is. They are as far as all rows together.
    Tiles that were not looked at are taken to be like all others together.
    """
    total = counts.sum(axis=0)
    known = total / max(total.sum(), 1)
    longer = 1 - np.cumsum(known[:-1])
    means = (np.concatenate([[1.0], longer[:-1]]) + longer) / 2
    powers = 2.0 ** np.arange(len(longer))
    lengths = np.diff(powers, prepend=0.0)
    rows = np.minimum(np.concatenate([[0.0], np.cumsum(lengths * means), [np.inf]]), num_nodes)
    edges = np.minimum(np.concatenate([[0.0], powers, [np.inf]]), num_edges)
    seen = counts.sum(axis=1, keepdims=True)
    shares = np.where(seen > 0, counts / np.maximum(seen, 1), known)
    # Ranges that are cut off at the end of the graph still have a length.
    gaps = np.arange(len(rows)) * 1e-3
    return Reach(rows=rows + gaps, edges=edges, degree=max(num_edges / num_nodes, 1e-3), shares=shares)


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
    """Ranges of tiles to look at."""
    num_tiles, num_edges = len(positions) - 1, int(positions[-1])
    if num_edges <= _SAMPLED_EDGES:
        return [(0, num_tiles)]
    length = max(1, num_tiles * _SAMPLED_EDGES // num_edges // _WINDOWS)
    starts = np.linspace(0, num_tiles - length, _WINDOWS).astype(int)
    return [(int(start), int(start) + length) for start in starts]
