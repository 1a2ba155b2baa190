"""What an order costs is counted as a plain reading of its definition counts it."""

from collections import deque

import numpy as np
import pytest
from scipy.sparse import csr_array

from flexgnn.core.graph.order_cost import GROUPINGS, OrderCost, _count, order_cost


def random_pattern(num_nodes: int, num_pairs: int) -> csr_array:
    rng = np.random.default_rng(7)
    dense = np.zeros((num_nodes, num_nodes), dtype=bool)
    dense[rng.integers(num_nodes, size=num_pairs), rng.integers(num_nodes, size=num_pairs)] = True
    np.fill_diagonal(dense, val=False)
    return csr_array(dense | dense.T)


def neighbours(pattern: csr_array, node: int) -> list[int]:
    return pattern.indices[pattern.indptr[node] : pattern.indptr[node + 1]].tolist()


@pytest.mark.parametrize("chunk_rows", [1, 3, 11, 97, 200])
def test_edges_and_halos_are_counted_block_by_block(chunk_rows: int) -> None:
    pattern, node_ids = random_pattern(97, 300), np.random.default_rng(5).permutation(97)
    cost = order_cost(pattern, node_ids, chunk_rows)
    place = {node: position for position, node in enumerate(node_ids.tolist())}
    expected = []
    for chunks in GROUPINGS:
        rows = chunks * chunk_rows
        halo = {
            (place[r] // rows, j) for r in place for j in neighbours(pattern, r) if place[j] // rows != place[r] // rows
        }
        expected.append(len(halo))
    crossing = sum(place[j] // chunk_rows != place[r] // chunk_rows for r in place for j in neighbours(pattern, r))
    assert cost.halo_rows == tuple(expected)
    assert cost.between_chunks == crossing / pattern.nnz


@pytest.mark.parametrize("cache_rows", [1, 2, 13, 97])
def test_a_cache_fetches_what_it_does_not_hold(cache_rows: int) -> None:
    pattern, node_ids = random_pattern(97, 300), np.random.default_rng(5).permutation(97)
    cache: deque[int] = deque(maxlen=cache_rows)
    fetched = 0
    for node in node_ids.tolist():
        for neighbour in neighbours(pattern, node):
            if neighbour not in cache:
                cache.append(neighbour)
                fetched += 1
    one_block = np.full(len(GROUPINGS), 97)
    _, _, counted = _count(pattern.indptr, pattern.indices, node_ids, np.argsort(node_ids), one_block, cache_rows)
    assert counted == fetched


def cost_of(halo_rows: tuple[int, int, int], missed_rows: int) -> OrderCost:
    return OrderCost(num_nodes=1009, between_chunks=0.5, halo_rows=halo_rows, missed_rows=missed_rows)


def test_halos_and_misses_both_cost() -> None:
    cost = cost_of((31, 13, 7), 1013)
    assert cost.seconds == pytest.approx(600 * (17 * 512e-9 + 1013 * 35e-9))
    assert cost.least_seconds == pytest.approx(600 * 1009 * 35e-9)


def test_halos_beyond_three_graphs_cost_no_more() -> None:
    assert cost_of((9001, 4001, 3541), 1013).seconds == cost_of((3027, 3027, 3027), 1013).seconds
    assert cost_of((9001, 4001, 7), 1013).seconds < cost_of((9001, 4001, 13), 1013).seconds
