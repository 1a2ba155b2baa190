"""Normalised adjacencies as vectors over nodes, so that no array of normalised edge weights is needed.

``A' = diag(row) (W + diag(loops)) diag(neighbor)``: an aggregation scales rows before they are pulled
(``neighbor``), sums, adds the loop, and scales the result (``row``). Its transpose swaps the two scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flexgnn.core.program.adjacency_kernels import degree_vectors
from flexgnn.core.program.kernels import NO_VECTOR
from flexgnn.core.program.program import Adjacency
from flexgnn.core.tier import Array


@dataclass(frozen=True, kw_only=True)
class AdjacencyVectors:
    """Names of the node vectors of an adjacency, for pulling one way; None: all ones, or no loops of its own."""

    row: str | None
    neighbor: str | None
    loops: str | None

    @property
    def transposed(self) -> AdjacencyVectors:
        return AdjacencyVectors(row=self.neighbor, neighbor=self.row, loops=self.loops)


def adjacency_label(adjacency: Adjacency) -> str:
    """``gcn-weighted-loop2``: adjacencies of one graph are equal where their labels are."""
    loop = adjacency.self_loop_weight
    weighted = "-weighted" if adjacency.weighted else ""
    return f"{adjacency.normalization}{weighted}{'' if loop is None else f'-loop{loop:g}'}"


def vector_names(adjacency: Adjacency) -> AdjacencyVectors:
    """The vectors that ``adjacency`` is made of. Equal adjacencies share them."""
    label, loop = adjacency_label(adjacency), adjacency.self_loop_weight
    scale = None if adjacency.normalization == "none" else f"{label}/scale"
    return AdjacencyVectors(
        row=scale,
        neighbor=scale if adjacency.normalization == "gcn" else None,
        loops=None if loop is None else f"{label}/loops",
    )


def node_vectors(
    adjacency: Adjacency, indptr: Array, indices: Array, weights: Array, first_row: int
) -> dict[str, Array]:
    """The vectors of ``adjacency`` at one block of B rows, float32, by name.

    Args:
        indptr: int64, B + 1, of the block's in-edges.
        indices: int32, their sources as positions in the graph.
        weights: float32, one an edge; empty for a graph without.
        first_row: position of the block's row 0.
    """
    names = vector_names(adjacency)
    rows = len(indptr) - 1
    loops = NO_VECTOR if names.loops is None else np.empty(rows, dtype=np.float32)
    sums = np.empty(rows, dtype=np.float32)
    used_weights = weights if adjacency.weighted else NO_VECTOR
    degree_vectors(indptr, indices, used_weights, first_row, adjacency.self_loop_weight or 0.0, loops, sums)
    vectors = {} if names.loops is None else {names.loops: loops}
    if names.row is not None:
        vectors[names.row] = _inverse_sqrt(sums) if adjacency.normalization == "gcn" else _inverse_count(sums)
    return vectors


def _inverse_count(sums: Array) -> Array:
    """``1 / max(sums, 1)``: the mean over no neighbours is 0."""
    inverse: Array = np.float32(1) / np.maximum(sums, np.float32(1))
    return inverse


def _inverse_sqrt(sums: Array) -> Array:
    """``sums ** -0.5``, and 0 where the sum is 0, as ``gcn_norm`` of PyG has it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse: Array = sums ** np.float32(-0.5)
    inverse[np.isinf(inverse)] = 0
    return inverse
