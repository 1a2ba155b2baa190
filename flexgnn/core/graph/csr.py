"""Compressed sparse rows from lists of edges, by counting.

Shapes: N nodes, E edges. ``weights`` is float32 [E], or :data:`NO_WEIGHTS` for a graph without.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from flexgnn.core.tier import Array

NO_WEIGHTS = np.empty(0, dtype=np.float32)


class Csr(NamedTuple):
    """Neighbours of every node."""

    indptr: Array
    """int64 [N + 1]."""
    indices: Array
    """int32 [E]."""
    weights: Array
    """float32 [E] or empty."""

    def same_as(self, other: Csr) -> bool:
        """Whether pattern and weights are equal."""
        return all(np.array_equal(mine, theirs) for mine, theirs in zip(self, other, strict=True))

    def rows(self) -> Array:
        """The row of every entry: int32 [E]."""
        return np.repeat(np.arange(len(self.indptr) - 1, dtype=np.int32), np.diff(self.indptr))


def csr_both_ways(source: Array, destination: Array, weights: Array, num_nodes: int) -> tuple[Csr, Csr]:
    """The CSR by destination and the CSR by source of a graph.

    Within a row, neighbours ascend, and duplicate edges keep the order in which they were given: each grouping goes
    through the rows of the one before it in order, so it sorts what it writes, stably.

    Args:
        source: int32 [E].
        destination: int32 [E].
        weights: float32 [E] or empty.
        num_nodes: N.
    """
    unsorted_by_source = Csr(*_group(source, destination, weights, num_nodes))
    by_destination = _transposed(unsorted_by_source)
    return by_destination, _transposed(by_destination)


def _transposed(csr: Csr) -> Csr:
    return Csr(*_group(csr.indices, csr.rows(), csr.weights, len(csr.indptr) - 1))


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _group(keys: Array, values: Array, weights: Array, num_keys: int) -> tuple[Array, Array, Array]:
    """``values`` and ``weights`` by key, each key's in the order given; and where each key's begin."""
    indptr = np.zeros(num_keys + 1, dtype=np.int64)
    for key in keys:
        indptr[key + 1] += 1
    indptr = np.cumsum(indptr)
    fill = indptr[:-1].copy()
    grouped = np.empty_like(values)
    grouped_weights = np.empty_like(weights)
    for i in range(len(keys)):
        slot = fill[keys[i]]
        fill[keys[i]] += 1
        grouped[slot] = values[i]
        if len(weights) > 0:
            grouped_weights[slot] = weights[i]
    return indptr, grouped, grouped_weights
