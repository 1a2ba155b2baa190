from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flexgnn import GraphStore
from flexgnn.core.plan.blocks import Blocks
from flexgnn.core.plan.topology import Direction, HaloCounts, HaloLister, count_halos
from tests.graphs import small_graph, store_of


@pytest.fixture
def store(tmp_path: Path) -> GraphStore:
    return store_of(small_graph(num_nodes=53, num_edges=300), tmp_path / "graph", chunk_rows=5)


def blocks_of(store: GraphStore, chunks_per_block: int) -> Blocks:
    return Blocks(num_nodes=store.info.num_nodes, chunk_rows=5, chunks_per_block=chunks_per_block)


def edges_of(store: GraphStore, direction: Direction, row: int) -> list[int]:
    first, last = store.read(f"{direction}/indptr", row, row + 2)
    return store.read(f"{direction}/indices", first, last).tolist()


@pytest.mark.parametrize("direction", ["in", "out"])
@pytest.mark.parametrize("chunks_per_block", [1, 3, 11])
def test_counts_are_those_of_sets(store: GraphStore, direction: Direction, chunks_per_block: int) -> None:
    blocks = blocks_of(store, chunks_per_block)
    counts = count_halos(store, blocks, direction)
    for p in range(blocks.count):
        neighbors = [j for row in range(blocks.start(p), blocks.stop(p)) for j in edges_of(store, direction, row)]
        assert counts.edges[p] == len(neighbors)
        for q in range(blocks.count):
            owned = {j for j in neighbors if blocks.start(q) <= j < blocks.stop(q)}
            assert counts.needed[p, q] == (0 if p == q else len(owned))


@pytest.mark.parametrize("direction", ["in", "out"])
def test_localized_indices_lead_to_the_same_nodes(store: GraphStore, direction: Direction) -> None:
    blocks = blocks_of(store, 3)
    counts = count_halos(store, blocks, direction)
    lister = HaloLister(store, blocks, direction)
    for block in range(blocks.count):
        start, stop = blocks.start(block), blocks.stop(block)
        indices = np.empty(counts.edges[block], dtype=np.int32)
        halo = lister.localized(block, counts.halo_rows(block), indices)
        assert halo.tolist() == sorted(set(halo.tolist()))
        nodes = np.concatenate([np.arange(start, stop), halo])
        assert nodes[indices].tolist() == [j for row in range(start, stop) for j in edges_of(store, direction, row)]


def test_passes_and_groups_are_small_and_complete() -> None:
    needed = np.array([[0, 3, 5, 7, 2], [0, 0, 1, 1, 1]] + [[4, 4, 0, 1, 0]] * 3)
    counts = HaloCounts(edges=(1,) * 5, needed=needed)
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
