from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flexgnn import GraphStore
from flexgnn.core.plan.blocks import Blocks
from flexgnn.core.plan.counting import count_pulls, list_hubs
from flexgnn.core.plan.topology import Direction, HaloCounts, HaloLister
from tests.graphs import small_graph, store_of


@pytest.fixture
def store(tmp_path: Path) -> GraphStore:
    return store_of(small_graph(num_nodes=53, num_edges=300), tmp_path / "graph", chunk_rows=5)


def blocks_of(store: GraphStore, tiles_per_block: int) -> Blocks:
    return Blocks(num_nodes=store.info.num_nodes, tile_rows=5, tiles_per_block=tiles_per_block)


def edges_of(store: GraphStore, direction: Direction, row: int) -> list[int]:
    first, last = store.read(f"{direction}/indptr", row, row + 2)
    return store.read(f"{direction}/indices", first, last).tolist()


def pulled_by(store: GraphStore, direction: Direction, blocks: Blocks) -> list[set[int]]:
    """What each block pulls from others."""
    ranges = [range(blocks.start(block), blocks.stop(block)) for block in range(blocks.count)]
    return [{j for row in rows for j in edges_of(store, direction, row)} - set(rows) for rows in ranges]


def hubs_of(pulled: list[set[int]], hub_blocks: int) -> list[int]:
    nodes = sorted(set().union(*pulled))
    return [j for j in nodes if hub_blocks and sum(j in nodes for nodes in pulled) >= hub_blocks]


@pytest.mark.parametrize("hub_blocks", [0, 2, 4])
@pytest.mark.parametrize("direction", ["in", "out"])
def test_counts_are_those_of_sets(store: GraphStore, direction: Direction, hub_blocks: int) -> None:
    groupings = [blocks_of(store, tiles_per_block) for tiles_per_block in (11, 3, 1)]
    for blocks, pulls in zip(groupings, count_pulls(store, groupings, direction), strict=True):
        counts, whole = pulls.halos(hub_blocks), pulls.whole_blocks(blocks)
        pulled = pulled_by(store, direction, blocks)
        hubs = hubs_of(pulled, hub_blocks)
        for p in range(blocks.count):
            rows = range(blocks.start(p), blocks.stop(p))
            assert counts.edges[p] == sum(len(edges_of(store, direction, row)) for row in rows)
            assert counts.hub_rows[p] == sum(hub in rows for hub in hubs)
            for q in range(blocks.count):
                owned = [j for j in pulled[p] - set(hubs) if blocks.start(q) <= j < blocks.stop(q)]
                assert counts.needed[p, q] == len(owned)
                reached = any(blocks.start(q) <= j < blocks.stop(q) for j in pulled[p])
                assert whole.needed[p, q] == reached * blocks.rows(q)
        if blocks.count == 11:
            assert bool(hubs) == bool(hub_blocks)


@pytest.mark.parametrize("hub_blocks", [0, 2, 4])
@pytest.mark.parametrize("direction", ["in", "out"])
def test_localized_indices_lead_to_the_same_nodes(store: GraphStore, direction: Direction, hub_blocks: int) -> None:
    blocks = blocks_of(store, 2)
    counts = count_pulls(store, [blocks], direction)[0].halos(hub_blocks)
    hubs = np.empty(counts.num_hubs, dtype=np.int32)
    list_hubs(store, blocks, direction, hub_blocks or 99, hubs)
    assert hubs.tolist() == hubs_of(pulled_by(store, direction, blocks), hub_blocks)
    lister = HaloLister(store, blocks, direction, hubs)
    for block in range(blocks.count):
        start, stop = blocks.start(block), blocks.stop(block)
        indices = np.empty(counts.edges[block], dtype=np.int32)
        halo = lister.localized(block, counts.halo_rows(block), indices)
        assert halo.tolist() == sorted(set(halo.tolist()) - set(hubs.tolist()))
        nodes = np.concatenate([np.arange(start, stop), hubs, halo])
        assert nodes[indices].tolist() == [j for row in range(start, stop) for j in edges_of(store, direction, row)]
        assert not np.any((indices >= stop - start) & (nodes[indices] >= start) & (nodes[indices] < stop))


def test_passes_and_groups_are_small_and_complete() -> None:
    needed = np.array([[0, 3, 5, 7, 2], [0, 0, 1, 1, 1]] + [[4, 4, 0, 1, 0]] * 3)
    counts = HaloCounts(edges=(1,) * 5, needed=needed, hub_rows=(0,) * 5)
    parts = counts.halo_passes(0, 7)
    assert [(list(p.owners), p.start, p.stop) for p in parts] == [
        ([0, 1], 0, 3),
        ([2], 3, 8),
        ([3], 8, 15),
        ([4], 15, 17),
    ]
    assert [list(p.owners) for p in counts.halo_passes(1, 7)] == [[0, 1, 2, 3, 4]], "two windows hold it all"
    groups = counts.pack_groups(0, 5)
    assert [i for group in groups for i in group] == [0, 1, 2, 3, 4]
    assert [counts.pack_rows(0, group) for group in groups] == [4, 4, 4]
