"""A node order by nested clusters: nodes with many edges between them come together, and so do clusters of them.

The clusters are those of the Louvain method (Blondel et al., *Fast unfolding of communities in large networks*, 2008),
small ones first: the resolution of modularity (Reichardt and Bornholdt, 2006) halves from one level to the next, until
it joins what has any edge between. Nodes are sorted by their cluster on the coarsest level, then on the one before,
and so on, so that blocks of every size hold few clusters. Rabbit order (Arai et al., 2016) nests clusters likewise.

Time and memory are proportional to the number of edges. One thread goes over the nodes in the order they came in, so
that the same graph gives the same order.

Shapes: N nodes of a level, M entries of its adjacency, K clusters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from flexgnn.core.compiling import compiled
from flexgnn.core.tier import Array

_RESOLUTIONS = tuple(2.0**power for power in range(4, -7, -1))
"""Of the levels. Beginning at 16 instead of 1 made halos of chunks a tenth smaller on generated communities; ending
below 1 made those of 16 chunks half as large on a grid, whose clusters would otherwise follow each other at random."""
_SWEEPS = 4
"""Over the nodes of a level, at most. With eight, halos were within 3% of those with four."""
_LEAST_MOVED = 0.01
"""Share of the nodes that the last sweep must have moved for another one."""

_compile = compiled()


class _Level(NamedTuple):
    """A weighted symmetric graph: nodes, or clusters of them."""

    indptr: Array
    """int64 or int32 [N + 1]."""
    indices: Array
    """int64 or int32 [M]."""
    weights: Array
    """float32 [M]: edges between two clusters; on the diagonal, twice those inside."""


def cluster_order(pattern: csr_array) -> Array:
    """The node at each position, int64 [N].

    Args:
        pattern: N x N, symmetric, without duplicates.
    """
    level = _Level(pattern.indptr, pattern.indices, np.ones(pattern.nnz, dtype=np.float32))
    clusters = np.arange(pattern.shape[0], dtype=np.int32)
    levels = [clusters]
    for resolution in _RESOLUTIONS:
        joined, count = _joined(level, resolution)
        if count < len(joined):
            clusters = joined[clusters]
            levels.append(clusters)
            level = _contracted(level, joined, count)
    return np.lexsort(levels).astype(np.int64)


def _joined(level: _Level, resolution: float) -> tuple[Array, int]:
    """The cluster of each node, int32 [N] from 0 to K - 1, and K."""
    clusters = np.arange(len(level.indptr) - 1, dtype=np.int32)
    strengths = _strengths(level.indptr, level.weights)
    totals, links = strengths.copy(), np.zeros(len(clusters))
    share = resolution / max(float(strengths.sum()), 1.0)
    for _ in range(_SWEEPS):
        if _move(*level, strengths, share, clusters, totals, links) <= _LEAST_MOVED * len(clusters):
            break
    used, numbered = np.unique(clusters, return_inverse=True)
    return numbered.astype(np.int32), len(used)


def _contracted(level: _Level, clusters: Array, count: int) -> _Level:
    """The graph of the clusters."""
    members = np.argsort(clusters, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(clusters, minlength=count))])
    return _Level(*_merge(*level, clusters, members, starts))


@_compile
def _strengths(indptr: Array, weights: Array) -> Array:
    """Sums of rows: float64 [N]."""
    sums = np.zeros(len(indptr) - 1)
    for r in range(len(sums)):
        for e in range(indptr[r], indptr[r + 1]):
            sums[r] += weights[e]
    return sums


@_compile
def _move(
    indptr: Array,
    indices: Array,
    weights: Array,
    strengths: Array,
    share: float,
    clusters: Array,
    totals: Array,
    links: Array,
) -> int:
    """Let each node in turn join the cluster that gains most in modularity; how many changed theirs.

    A cluster gains the weight of the node's edges to it, less what would lead to it at random: ``share`` times the
    strengths of both. ``clusters`` and ``totals``, the strengths of clusters, are updated; ``links`` (N zeros) is
    scratch.
    """
    near = np.empty(len(clusters), dtype=clusters.dtype)
    moved = 0
    for r in range(len(clusters)):
        found = 0
        for e in range(indptr[r], indptr[r + 1]):
            if indices[e] != r:
                cluster = clusters[indices[e]]
                if links[cluster] == 0:
                    near[found] = cluster
                    found += 1
                links[cluster] += weights[e]
        own = best = clusters[r]
        expected = share * strengths[r]
        most = links[own] - expected * (totals[own] - strengths[r])
        for cluster in near[:found]:
            gain = links[cluster] - expected * totals[cluster]
            if cluster != own and gain > most:
                best, most = cluster, gain
            links[cluster] = 0
        if best != own:
            totals[own] -= strengths[r]
            totals[best] += strengths[r]
            clusters[r] = best
            moved += 1
    return moved


@_compile
def _merge(
    indptr: Array, indices: Array, weights: Array, clusters: Array, members: Array, starts: Array
) -> tuple[Array, Array, Array]:
    """Rows and columns of the nodes of a cluster added up: ``members[starts[k] : starts[k + 1]]`` are those of k."""
    count = len(starts) - 1
    merged = np.zeros(count + 1, dtype=np.int64)
    columns, sums = np.empty(len(indices), dtype=np.int32), np.empty(len(indices), dtype=np.float32)
    links = np.zeros(count)
    filled = 0
    for k in range(count):
        for member in members[starts[k] : starts[k + 1]]:
            for e in range(indptr[member], indptr[member + 1]):
                cluster = clusters[indices[e]]
                if links[cluster] == 0:
                    columns[filled] = cluster
                    filled += 1
                links[cluster] += weights[e]
        for i in range(merged[k], filled):
            sums[i] = links[columns[i]]
            links[columns[i]] = 0
        merged[k + 1] = filled
    return merged, columns[:filled].copy(), sums[:filled].copy()
