"""Clusters are nested: blocks of every size hold nodes that belong together."""

import numpy as np
from scipy.sparse import block_diag, csr_array, random_array

from flexgnn.core.graph.clusters import cluster_order

CLIQUE = np.ones((5, 5), dtype=bool) & ~np.eye(5, dtype=bool)


def shuffled(pattern: csr_array) -> tuple[csr_array, np.ndarray]:
    """The pattern with its nodes mixed, and which node each was."""
    was = np.random.default_rng(1).permutation(pattern.shape[0])
    return csr_array(pattern[was][:, was]), was


def test_cliques_stay_together() -> None:
    mixed, was = shuffled(csr_array(block_diag([CLIQUE] * 12)))
    assert np.count_nonzero(np.diff(was[cluster_order(mixed)] // 5)) == 11


def test_clusters_of_clusters_stay_together() -> None:
    """Cliques of five nodes, four of which share an edge with one another; three such families are a path."""
    pattern = block_diag([CLIQUE] * 12).toarray()
    for family in range(3):
        for one in range(4):
            for other in range(one + 1, 4):
                first, second = family * 20 + one * 5 + other, family * 20 + other * 5 + one
                pattern[first, second] = pattern[second, first] = True
    for first in (0, 20):
        pattern[first, first + 20] = pattern[first + 20, first] = True
    mixed, was = shuffled(csr_array(pattern))
    found = was[cluster_order(mixed)]
    assert np.count_nonzero(np.diff(found // 5)) == 11
    assert np.count_nonzero(np.diff(found // 20)) == 2


def test_nodes_without_edges_have_a_place() -> None:
    pattern = csr_array((9, 9), dtype=bool)
    assert sorted(cluster_order(pattern)) == list(range(9))


def test_a_random_graph_is_ordered_the_same_each_time() -> None:
    half = random_array((500, 500), density=0.01, rng=np.random.default_rng(2), dtype=np.float64).tocsr() != 0
    pattern = csr_array(half + half.T)
    order = cluster_order(pattern)
    np.testing.assert_array_equal(np.sort(order), np.arange(500))
    np.testing.assert_array_equal(order, cluster_order(pattern))
