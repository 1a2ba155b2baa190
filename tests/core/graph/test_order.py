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


@pytest.mark.parametrize("order", ["metis", "clusters", "auto"])
def test_communities_are_found(order: str) -> None:
    source, destination, num_nodes = shuffled_communities()
    if order == "metis":
        pytest.importorskip("pymetis")
    node_ids = node_order(source, destination, num_nodes, chunk_rows=43, order=order).node_ids
    given = crossing(source, destination, np.arange(num_nodes), 43)
    assert crossing(source, destination, node_ids, 43) < 0.35 * given


@pytest.mark.parametrize("order", ["metis", "clusters", "rcm", "given", "auto"])
@pytest.mark.parametrize("chunk_rows", [1, 7, 340, 4096])
def test_every_order_is_a_permutation_and_repeatable(order: str, chunk_rows: int) -> None:
    source, destination, num_nodes = shuffled_communities()
    node_ids = node_order(source, destination, num_nodes, chunk_rows=chunk_rows, order=order).node_ids
    again = node_order(source, destination, num_nodes, chunk_rows=chunk_rows, order=order).node_ids
    np.testing.assert_array_equal(np.sort(node_ids), np.arange(num_nodes))
    np.testing.assert_array_equal(node_ids, again)


def test_many_duplicates_and_self_loops_are_one_edge_each() -> None:
    source = np.array([0] * 256 + [1] * 255 + [2], dtype=np.int32)
    destination = np.array([1] * 256 + [0] * 255 + [2], dtype=np.int32)
    pattern = order_module.neighbour_pattern(source, destination, 3)
    np.testing.assert_array_equal(pattern.toarray(), [[0, 1, 0], [1, 0, 0], [0, 0, 0]])


def test_graphs_too_small_to_order_stay_as_given() -> None:
    empty = np.empty(0, dtype=np.int32)
    for num_nodes in (1, 2, 5):
        chosen = node_order(empty, empty, num_nodes, chunk_rows=2, order="metis")
        assert chosen.name == "given"
        np.testing.assert_array_equal(chosen.node_ids, np.arange(num_nodes))


def test_the_cheapest_of_the_orders_that_were_made_is_chosen() -> None:
    source, destination, num_nodes = shuffled_communities()
    chosen = node_order(source, destination, num_nodes, chunk_rows=43, order="auto")
    assert {"given", "clusters", "rcm"} <= set(chosen.costs)
    assert chosen.costs[chosen.name].seconds == min(cost.seconds for cost in chosen.costs.values())


def test_an_order_that_was_asked_for_is_taken_even_if_it_is_worse() -> None:
    path = np.arange(99, dtype=np.int32)
    chosen = node_order(path[:-1], path[1:], 99, chunk_rows=10, order="clusters")
    assert chosen.name == "clusters"
    assert set(chosen.costs) == {"given", "clusters"}


def test_nodes_that_came_well_ordered_stay_and_metis_is_not_tried() -> None:
    source, destination, num_nodes = shuffled_communities()
    best = node_order(source, destination, num_nodes, chunk_rows=43, order="auto").node_ids
    positions = np.argsort(best).astype(np.int32)
    chosen = node_order(positions[source], positions[destination], num_nodes, chunk_rows=43, order="auto")
    assert "metis" not in chosen.costs
    before, after = chosen.costs["given"], chosen.costs[chosen.name]
    assert after.seconds <= before.seconds


def test_a_graph_of_one_chunk_has_nothing_to_save() -> None:
    source, destination, num_nodes = shuffled_communities()
    chosen = node_order(source, destination, num_nodes, chunk_rows=num_nodes, order="auto")
    assert (chosen.name, set(chosen.costs)) == ("given", {"given"})


def test_without_metis_the_best_of_the_others_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "find_spec", lambda _: None)
    mixed = np.random.default_rng(0).permutation(1000).astype(np.int32)
    chosen = node_order(mixed[:-1], mixed[1:], 1000, chunk_rows=10, order="auto")
    assert set(chosen.costs) == {"given", "clusters", "rcm"}
    # A path has 99 edges between chunks at best, and the reverse Cuthill-McKee order finds that.
    assert chosen.name == "rcm"
    assert crossing(mixed[:-1], mixed[1:], chosen.node_ids, 10) == 99
    with pytest.raises(ConfigError, match=r"flexgnn\[metis\]"):
        node_order(mixed[:-1], mixed[1:], 1000, chunk_rows=10, order="metis")
