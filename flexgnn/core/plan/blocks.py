"""How a graph's chunks are grouped into blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flexgnn.core.tier import Array


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Consecutive chunks, ``chunks_per_block`` to a block; the last chunk and the last block may be shorter."""

    num_nodes: int
    chunk_rows: int
    chunks_per_block: int

    @cached_property
    def rows_per_block(self) -> int:
        return self.chunk_rows * self.chunks_per_block

    @cached_property
    def count(self) -> int:
        return -(-self.num_nodes // self.rows_per_block)

    def start(self, block: int) -> int:
        """Position of the block's first node."""
        return min(block * self.rows_per_block, self.num_nodes)

    def stop(self, block: int) -> int:
        """Position after the block's last node."""
        return self.start(block + 1)

    def rows(self, block: int) -> int:
        return self.stop(block) - self.start(block)

    @cached_property
    def row_counts(self) -> Array:
        """int64, one a block: its rows."""
        return np.array([self.rows(block) for block in range(self.count)], dtype=np.int64)

    def tiles(self, block: int) -> list[tuple[int, int]]:
        """The block's chunks, as row ranges within the block. Segments run tile by tile, whatever the blocks are."""
        rows = self.rows(block)
        return [(row, min(row + self.chunk_rows, rows)) for row in range(0, rows, self.chunk_rows)]


def block_choices(num_nodes: int, chunk_rows: int) -> list[Blocks]:
    """Groupings worth considering: one block, and each further one about twice as many, down to single chunks."""
    num_chunks = -(-num_nodes // chunk_rows)
    choices = []
    chunks_per_block = num_chunks
    while True:
        choices.append(Blocks(num_nodes=num_nodes, chunk_rows=chunk_rows, chunks_per_block=chunks_per_block))
        if chunks_per_block == 1:
            return choices
        chunks_per_block = -(-chunks_per_block // 2)
