"""Counts who pulls from whom: one reading of the graph serves many groupings of blocks and every choice of hubs.

The nodes that pull from a node are its row of the transposed adjacency, in order: whole blocks at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plan.blocks import Blocks
from flexgnn.core.plan.topology import Direction, HaloCounts
from flexgnn.core.program.adjacency_kernels import count_pullers, list_pulled
from flexgnn.core.tier import Array

_SPAN_EDGES = 2**20
"""Edges to read at a time, on average."""
_SPAN_ROWS = 2**18
"""Pointers to read at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PullCounts:
    """How many nodes each block pulls from each other, by class.

    Nodes of class c are those that at least 2^c other blocks pull from, and fewer than 2^(c + 1).
    """

    edges: tuple[int, ...]
    """Edges by pulling block."""
    pulled: Array
    """int32, P x P x classes: of the nodes of the first block, how many the second pulls from."""
    nodes: Array
    """int64, P x classes: nodes of each block that others pull from."""

    def halos(self, hub_blocks: int) -> HaloCounts:
        """Sizes of halos without the nodes that at least ``hub_blocks`` other blocks pull from.

        ``hub_blocks`` is a power of two, or 0 for halos of all nodes.
        """
        classes = hub_blocks.bit_length() - 1 if hub_blocks else self.nodes.shape[1]
        return HaloCounts(
            edges=self.edges,
            needed=self.pulled[:, :, :classes].sum(axis=2, dtype=np.int64).T,
            hub_rows=tuple(int(rows) for rows in self.nodes[:, classes:].sum(axis=1)),
        )

    def whole_blocks(self, blocks: Blocks) -> HaloCounts:
        """Sizes of halos of all rows of each block that any row is needed of."""
        rows = np.array([blocks.rows(block) for block in range(blocks.count)])
        return HaloCounts(edges=self.edges, needed=self.pulled.any(axis=2).T * rows, hub_rows=(0,) * blocks.count)


def count_pulls(store: GraphStore, groupings: Sequence[Blocks], direction: Direction) -> list[PullCounts]:
    """Counts for each of ``groupings`` of the same tiles, from one reading of the graph."""
    classes = [blocks.count.bit_length() for blocks in groupings]
    pulled = [np.zeros((b.count, b.count, c), dtype=np.int32) for b, c in zip(groupings, classes, strict=True)]
    nodes = [np.zeros((b.count, c), dtype=np.int64) for b, c in zip(groupings, classes, strict=True)]
    found = np.empty(max(blocks.count for blocks in groupings), dtype=np.int32)
    step = max(store.info.num_nodes * _SPAN_EDGES // max(store.info.num_edges, 1), 1)
    for first_row, indptr, indices in _spans(store, _transposed(direction), step):
        for blocks, rows, total in zip(groupings, pulled, nodes, strict=True):
            if blocks.count > 1:
                count_pullers(indptr, indices, first_row, blocks.rows_per_block, found, rows, total)
    edges = _edges_of_tiles(store, groupings[0].tile_rows, direction)
    return [
        PullCounts(edges=_grouped(edges, blocks.tiles_per_block), pulled=rows, nodes=total)
        for blocks, rows, total in zip(groupings, pulled, nodes, strict=True)
    ]


def count_pairs(store: GraphStore, groupings: Sequence[Blocks]) -> list[PullCounts]:
    """The same of pairs, whose rows are whole where they are pulled from: no block needs a halo."""
    pairs = _edges_of_tiles(store, groupings[0].tile_rows, "pairs")
    return [
        PullCounts(
            edges=_grouped(pairs, blocks.tiles_per_block),
            pulled=np.zeros((blocks.count, blocks.count, 1), dtype=np.int32),
            nodes=np.zeros((blocks.count, 1), dtype=np.int64),
        )
        for blocks in groupings
    ]


def list_hubs(store: GraphStore, blocks: Blocks, direction: Direction, hub_blocks: int, hubs: Array) -> None:
    """Fill ``hubs`` (int32, as many as there are) with nodes that at least ``hub_blocks`` other blocks pull from.

    Reads the edges of one block at a time.
    """
    found = np.empty(blocks.count, dtype=np.int32)
    listed = 0
    for first_row, indptr, indices in _spans(store, _transposed(direction), blocks.rows_per_block):
        rest = hubs[listed:]
        listed += list_pulled(indptr, indices, first_row, blocks.rows_per_block, hub_blocks, found, rest)


def _transposed(direction: Direction) -> Direction:
    return "out" if direction == "in" else "in"


def _spans(store: GraphStore, direction: Direction, step: int) -> Iterator[tuple[int, Array, Array]]:
    """First row, ``indptr`` and ``indices`` of each ``step`` rows."""
    num_nodes = store.info.num_nodes
    for start in range(0, num_nodes, step):
        indptr = store.read(f"{direction}/indptr", start, min(start + step, num_nodes) + 1)
        yield start, indptr, store.read(f"{direction}/indices", int(indptr[0]), int(indptr[-1]))


def _edges_of_tiles(store: GraphStore, tile_rows: int, direction: Direction) -> Array:
    num_nodes = store.info.num_nodes
    step = tile_rows * max(_SPAN_ROWS // tile_rows, 1)
    name = f"{direction}/indptr"
    starts = range(0, num_nodes, step)
    bounds = [store.read(name, start, min(start + step, num_nodes))[::tile_rows] for start in starts]
    edges: Array = np.diff(np.concatenate([*bounds, store.read(name, num_nodes, num_nodes + 1)]))
    return edges


def _grouped(edges: Array, tiles_per_block: int) -> tuple[int, ...]:
    return tuple(np.add.reduceat(edges, np.arange(0, len(edges), tiles_per_block)).tolist())
