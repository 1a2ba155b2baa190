"""Compressed sparse rows from lists of edges, by counting.

Shapes: N nodes, E edges. ``weights`` is float32 [E], or :data:`NO_WEIGHTS` for a graph without.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flexgnn.core.compiling import compiled
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
    unsorted_by_source = _grouped(source, destination, weights, num_nodes)
    by_destination = _transposed(unsorted_by_source)
    return by_destination, _transposed(by_destination)


def _transposed(csr: Csr) -> Csr:
    return _grouped(csr.indices, csr.rows(), csr.weights, len(csr.indptr) - 1)


def _grouped(keys: Array, values: Array, weights: Array, num_keys: int) -> Csr:
    """``values`` and ``weights`` by key, each key's in the order given."""
    csr = Csr(np.zeros(num_keys + 1, dtype=np.int64), np.empty_like(values), np.empty_like(weights))
    _group(keys, values, weights, np.empty(num_keys, dtype=np.int64), *csr)
    return csr


@compiled()
def _group(
    keys: Array, values: Array, weights: Array, fill: Array, indptr: Array, grouped: Array, grouped_weights: Array
) -> None:
    """Fill the arrays of a CSR, of which ``indptr`` comes as zeros; ``fill`` (int64 [N]) is scratch."""
    for key in keys:
        indptr[key + 1] += 1
    for key in range(len(fill)):
        fill[key] = indptr[key]
        indptr[key + 1] += indptr[key]
    for i in range(len(keys)):
        slot = fill[keys[i]]
        fill[keys[i]] += 1
        grouped[slot] = values[i]
        if len(weights) > 0:
            grouped_weights[slot] = weights[i]
