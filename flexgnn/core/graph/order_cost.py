"""What a node order costs in training: rows of halos that are moved, and rows that caches don't hold.

The graph is not yet stored, nor is it known what machine and budget it will meet, so the seconds are those of stated
figures. They serve to compare orders of one graph, and to tell whether a better one is worth the time that it takes.

Shapes: N nodes, M entries of the symmetric pattern, G groupings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from flexgnn.core.compiling import compiled
from flexgnn.core.tier import Array

GROUPINGS = (1, 4, 16)
"""Chunks of a block at which halos are counted: with about 64 chunks these are 64, 16 and 4 blocks, as plans have for
a sixteenth to half of the memory that all takes (docs/benchmarks/budgets.md)."""
_EPOCHS, _SUMS_PER_EPOCH = 100, 6
"""What a graph is imported for: 3 layers, forward and backward."""
_ROW_BYTES = 512
"""128 columns of float32."""
_CACHE_ROWS = 2**15
"""16 MiB. On two cores with 32 MiB of last-level cache, sums over more rows than these began to wait for memory."""
_MISS_SECONDS = 3.5e-8
"""Of a row that comes from memory, not from a cache, with two threads at work: half of what an edge of one of them
took longer to rows in 128 MiB than to rows in 256 KiB (66 and 13 ns), counting those that a cache did hold."""
_HALO_SECONDS = _ROW_BYTES / 1e9
"""Of a halo row: written to an SSD at 1 GB/s, while another one is read."""
_MOST_HALO = 3
"""In multiples of N. Denser halos are not moved: a field is then read as a whole, slice by slice, and its sums are
written and read once."""


@dataclass(frozen=True, kw_only=True)
class OrderCost:
    """One order of a graph."""

    num_nodes: int
    between_chunks: float
    """Share of the edges."""
    halo_rows: tuple[int, ...]
    """Nodes outside a block that share an edge with it, over all blocks, by grouping of :data:`GROUPINGS`."""
    missed_rows: int
    """Rows that a cache of 16 MiB would have to fetch in a sum over neighbours."""

    @property
    def seconds(self) -> float:
        """Of 100 epochs of a 3-layer network of width 128, as far as they depend on the order: mean over groupings."""
        moved = [min(rows, _MOST_HALO * self.num_nodes) for rows in self.halo_rows]
        of_halos = sum(moved) / len(moved) * _HALO_SECONDS
        return _EPOCHS * _SUMS_PER_EPOCH * (of_halos + self.missed_rows * _MISS_SECONDS)

    @property
    def least_seconds(self) -> float:
        """What no order is below: every row is fetched once."""
        return _EPOCHS * _SUMS_PER_EPOCH * min(self.num_nodes, self.missed_rows) * _MISS_SECONDS


def order_cost(pattern: csr_array, node_ids: Array, chunk_rows: int) -> OrderCost:
    """Count what an order leaves to be moved; one pass over the graph.

    Args:
        pattern: N x N, symmetric. Halos of directed graphs are therefore of both directions together.
        node_ids: the node at each position, int64 [N].
        chunk_rows: nodes of a chunk.
    """
    positions = np.empty(len(node_ids), dtype=np.int32)
    positions[node_ids] = np.arange(len(node_ids), dtype=np.int32)
    rows_per_block = np.array(GROUPINGS, dtype=np.int64) * chunk_rows
    between, halo_rows, missed_rows = _count(
        pattern.indptr, pattern.indices, node_ids, positions, rows_per_block, _CACHE_ROWS
    )
    return OrderCost(
        num_nodes=len(node_ids),
        between_chunks=between / max(pattern.nnz, 1),
        halo_rows=tuple(halo_rows.tolist()),
        missed_rows=missed_rows,
    )


@compiled()
def _count(
    indptr: Array, indices: Array, node_ids: Array, positions: Array, rows_per_block: Array, cache_rows: int
) -> tuple[int, Array, int]:
    """Entries between blocks of the first grouping, halo rows (int64 [G]), and rows that a cache fetches.

    The cache puts a row in the place of the one that it fetched first.
    """
    groupings = len(rows_per_block)
    seen = np.full((len(node_ids), groupings), -1, dtype=np.int32)
    fetched_at = np.full(len(node_ids), -cache_rows - 1, dtype=np.int64)
    halo_rows = np.zeros(groupings, dtype=np.int64)
    between, fetched = 0, 0
    for position in range(len(node_ids)):
        node = node_ids[position]
        for e in range(indptr[node], indptr[node + 1]):
            neighbour = indices[e]
            if fetched - fetched_at[neighbour] > cache_rows:
                fetched_at[neighbour] = fetched
                fetched += 1
            for g in range(groupings):
                block = position // rows_per_block[g]
                if positions[neighbour] // rows_per_block[g] == block:
                    break  # and so it is in larger blocks
                between += g == 0
                if seen[neighbour, g] != block:
                    seen[neighbour, g] = block
                    halo_rows[g] += 1
    return between, halo_rows, fetched
