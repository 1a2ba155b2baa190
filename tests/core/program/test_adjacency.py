from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from flexgnn.core.program.adjacency import node_vectors, vector_names
from flexgnn.core.program.kernels import NO_VECTOR
from flexgnn.core.program.program import Adjacency
from tests.graphs import small_graph


def in_edges(weighted: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, torch.Tensor, torch.Tensor | None]:
    data = small_graph(weighted=weighted)
    source, target = data.edge_index.numpy()
    order = np.lexsort((source, target))
    indptr = np.searchsorted(target[order], np.arange(41)).astype(np.int64)
    weight = data.edge_weight if weighted else None
    weights = NO_VECTOR if weight is None else weight.numpy()[order]
    return indptr, source[order].astype(np.int32), weights, data.edge_index, weight


@pytest.mark.parametrize("loop", [None, 1.0, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_scales_and_loops_are_those_of_gcn_norm(weighted: bool, loop: float | None) -> None:
    indptr, indices, weights, edge_index, weight = in_edges(weighted)
    if loop == 2.0 and not weighted:
        pytest.skip("PyG fills with 1 where there are no weights")
    adjacency = Adjacency(weighted=weighted, normalization="gcn", self_loop_weight=loop)
    vectors = node_vectors(adjacency, indptr, indices, weights, 0)
    names = vector_names(adjacency)
    assert names.row == names.neighbor
    scale = vectors[names.row]
    expected_index, expected = gcn_norm(edge_index, weight, 40, loop == 2.0, loop is not None, dtype=torch.float32)
    dense = torch.zeros(40, 40).index_put((expected_index[1], expected_index[0]), expected, accumulate=True).numpy()
    ours = np.zeros((40, 40), dtype=np.float32)
    for row in range(40):
        for edge in range(indptr[row], indptr[row + 1]):
            if loop is None or indices[edge] != row:
                ours[row, indices[edge]] += weights[edge] if weighted else 1
        if loop is not None:
            ours[row, row] += vectors[names.loops][row]
    np.testing.assert_allclose(scale[:, None] * ours * scale[None, :], dense, rtol=1e-5, atol=1e-6)


def test_means_divide_by_the_number_of_edges_or_by_one() -> None:
    indptr, indices, weights, _, _ = in_edges(False)
    adjacency = Adjacency(weighted=False, normalization="mean", self_loop_weight=None)
    (scale,) = node_vectors(adjacency, indptr, indices, weights, 0).values()
    assert scale.dtype == np.float32
    np.testing.assert_allclose(scale, 1 / np.maximum(np.diff(indptr), 1), rtol=1e-6)


def test_the_transpose_swaps_scales() -> None:
    names = vector_names(Adjacency(weighted=False, normalization="mean", self_loop_weight=None))
    assert (names.row, names.neighbor) == (names.transposed.neighbor, names.transposed.row)
    assert names.row is not None
