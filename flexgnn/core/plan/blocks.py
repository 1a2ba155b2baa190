"""How a graph is cut into tiles, and tiles are grouped into blocks.

A tile is what is computed at once: a chunk of the store, or several where a device needs more rows at once. Tiles are
the same under every plan, or results would depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flexgnn.core.tier import Array


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Consecutive tiles, ``tiles_per_block`` to a block; the last tile and the last block may be shorter."""

    num_nodes: int
    tile_rows: int
    tiles_per_block: int

    @cached_property
    def rows_per_block(self) -> int:
        return self.tile_rows * self.tiles_per_block

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
        """The block's tiles, as row ranges within the block."""
        rows = self.rows(block)
        return [(row, min(row + self.tile_rows, rows)) for row in range(0, rows, self.tile_rows)]


def block_choices(num_nodes: int, tile_rows: int) -> list[Blocks]:
    """Groupings worth considering: one block, and each further one about twice as many, down to single tiles."""
    num_tiles = -(-num_nodes // tile_rows)
    choices = []
    tiles_per_block = num_tiles
    while True:
        choices.append(Blocks(num_nodes=num_nodes, tile_rows=tile_rows, tiles_per_block=tiles_per_block))
        if tiles_per_block == 1:
            return choices
        tiles_per_block = -(-tiles_per_block // 2)
