"""Node orders are permutations, repeatable, and bring neighbours together."""

import numpy as np
import pytest

from flexgnn.core.errors import ConfigError
from flexgnn.core.graph import order as order_module
from flexgnn.core.graph.order import node_order


def shuffled_communities() -> tuple[np.ndarray, np.ndarray, int]:
    """Eight communities of 40 nodes whose ids are mixed, with a few edges between them and some isolated nodes."""
    rng = np.random.default_rng(3)
    community = np.repeat(np.arange(8), 500)
    source = community * 40 + rng.integers(40, size=4000)
    destination = community * 40 + rng.integers(40, size=4000)
    destination[:100] = rng.integers(320, size=100)
    ids = rng.permutation(340).astype(np.int32)
    return ids[source], ids[destination], 340


def crossing(source: np.ndarray, destination: np.ndarray, node_ids: np.ndarray, chunk_rows: int) -> int:
    chunk = np.argsort(node_ids) // chunk_rows
    return int((chunk[source] != chunk[destination]).sum())


def test_metis_finds_the_communities() -> None:
    source, destination, num_nodes = shuffled_communities()
    pytest.importorskip("pymetis")
    node_ids, used = node_order(source, destination, num_nodes, chunk_rows=43, order="auto")
    assert used == "metis"
    given = crossing(source, destination, np.arange(num_nodes), 43)
    assert crossing(source, destination, node_ids, 43) < 0.35 * given


@pytest.mark.parametrize("order", ["metis", "rcm", "given", "auto"])
@pytest.mark.parametrize("chunk_rows", [1, 7, 340, 4096])
def test_every_order_is_a_permutation_and_repeatable(order: str, chunk_rows: int) -> None:
    source, destination, num_nodes = shuffled_communities()
    node_ids, _ = node_order(source, destination, num_nodes, chunk_rows=chunk_rows, order=order)
    again, _ = node_order(source, destination, num_nodes, chunk_rows=chunk_rows, order=order)
    np.testing.assert_array_equal(np.sort(node_ids), np.arange(num_nodes))
    np.testing.assert_array_equal(node_ids, again)


def test_many_duplicates_and_self_loops_are_one_edge_each() -> None:
    source = np.array([0] * 256 + [1] * 255 + [2], dtype=np.int32)
    destination = np.array([1] * 256 + [0] * 255 + [2], dtype=np.int32)
    pattern = order_module._neighbours(source, destination, 3)
    np.testing.assert_array_equal(pattern.toarray(), [[0, 1, 0], [1, 0, 0], [0, 0, 0]])


def test_graphs_too_small_to_order_stay_as_given() -> None:
    empty = np.empty(0, dtype=np.int32)
    for num_nodes in (1, 2, 5):
        node_ids, used = node_order(empty, empty, num_nodes, chunk_rows=2, order="metis")
        assert used == "given"
        np.testing.assert_array_equal(node_ids, np.arange(num_nodes))


def test_without_metis_the_better_of_the_cheap_orders_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "find_spec", lambda _: None)
    path = np.arange(99, dtype=np.int32)
    node_ids, used = node_order(path, path + 1, 100, chunk_rows=10, order="auto")
    assert used in {"given", "rcm"}
    assert crossing(path, path + 1, node_ids, 10) == 9
    mixed = np.random.default_rng(0).permutation(100).astype(np.int32)
    node_ids, used = node_order(mixed[path], mixed[path + 1], 100, chunk_rows=10, order="auto")
    assert used == "rcm"
    assert crossing(mixed[path], mixed[path + 1], node_ids, 10) == 9
    with pytest.raises(ConfigError, match=r"flexgnn\[metis\]"):
        node_order(path, path + 1, 100, chunk_rows=10, order="metis")
