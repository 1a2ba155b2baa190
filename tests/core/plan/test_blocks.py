from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexgnn.core.plan.blocks import Blocks, block_choices


@given(num_nodes=st.integers(1, 500), tile_rows=st.integers(1, 40), tiles_per_block=st.integers(1, 9))
def test_blocks_and_tiles_cover_every_row_once(num_nodes: int, tile_rows: int, tiles_per_block: int) -> None:
    blocks = Blocks(num_nodes=num_nodes, tile_rows=tile_rows, tiles_per_block=tiles_per_block)
    covered = [
        blocks.start(block) + row
        for block in range(blocks.count)
        for begin, end in blocks.tiles(block)
        for row in range(begin, end)
    ]
    assert covered == list(range(num_nodes))


@given(num_nodes=st.integers(1, 500), tile_rows=st.integers(1, 40))
def test_tiles_are_the_same_whatever_the_blocks(num_nodes: int, tile_rows: int) -> None:
    for blocks in block_choices(num_nodes, tile_rows):
        starts = [blocks.start(b) + tile[0] for b in range(blocks.count) for tile in blocks.tiles(b)]
        assert starts == list(range(0, num_nodes, tile_rows))


@pytest.mark.parametrize(("num_nodes", "tile_rows", "counts"), [(7, 7, [1]), (77, 7, [1, 2, 4, 6, 11])])
def test_choices_go_from_one_block_to_single_tiles(num_nodes: int, tile_rows: int, counts: list[int]) -> None:
    assert [blocks.count for blocks in block_choices(num_nodes, tile_rows)] == counts
