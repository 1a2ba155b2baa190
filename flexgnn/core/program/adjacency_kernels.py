"""Readings of the adjacency, compiled: degrees, who pulls from whom, halos, and indices into what a block has at hand.

Shape legend: B rows of a block, E edges of it, N nodes, P blocks. ``indptr`` (B + 1) holds absolute positions: the
block's edges start at ``indptr[0]``.
"""

from __future__ import annotations

import numpy as np

from flexgnn.core.compiling import compiled
from flexgnn.core.tier import Array

_compile = compiled(boundscheck=False)


@_compile
def degree_vectors(
    indptr: Array, indices: Array, weights: Array, first_row: int, loop_weight: float, loops: Array, sums: Array
) -> None:
    """Row sums (B) of a block's adjacency, and the weight of each node's single loop (B).

    ``indices`` are positions in the whole graph, ``first_row`` that of the block's row 0. With an empty ``loops``, the
    sums are over the edges as they are. Else each row has one loop: the graph's own (its last, where there are several)
    or, where the graph has none or no weights, one of ``loop_weight``, as PyG's ``add_remaining_self_loops`` does.
    """
    base = indptr[0]
    has_loops = loops.shape[0] > 0
    has_weights = weights.shape[0] > 0
    for r in range(sums.shape[0]):
        total = np.float32(0)
        loop = np.float32(loop_weight)
        for e in range(indptr[r] - base, indptr[r + 1] - base):
            weight = weights[e] if has_weights else np.float32(1)
            if has_loops and indices[e] == first_row + r:
                if has_weights:
                    loop = weight
            else:
                total += weight
        if has_loops:
            loops[r] = loop
            total += loop
        sums[r] = total


@_compile
def _pullers(indices: Array, first: int, stop: int, owner: int, rows_per_block: int, found: Array) -> int:
    """Fill ``found`` with the blocks of ``indices[first:stop]``, which ascend, ``owner`` excepted; how many."""
    count, end = 0, 0
    for e in range(first, stop):
        if indices[e] >= end:
            block = indices[e] // rows_per_block
            end = (block + 1) * rows_per_block
            if block != owner:
                found[count] = block
                count += 1
    return count


@_compile
def count_pullers(
    indptr: Array, indices: Array, first_row: int, rows_per_block: int, found: Array, pulled: Array, nodes: Array
) -> None:
    """Count the nodes from ``first_row`` on, by owner and by class, and by each block that pulls from them.

    ``indices`` are the nodes that pull from each, ascending; class c is that of nodes with 2^c or more pulling blocks,
    and fewer than 2^(c + 1). ``pulled`` (P x P x classes, int32) counts by owner and by puller, ``nodes`` (P x classes,
    int64) by owner. ``found`` (P) is scratch.
    """
    base = indptr[0]
    for r in range(indptr.shape[0] - 1):
        owner = (first_row + r) // rows_per_block
        count = _pullers(indices, indptr[r] - base, indptr[r + 1] - base, owner, rows_per_block, found)
        if count > 0:
            number = 0
            while count >> (number + 1):
                number += 1
            nodes[owner, number] += 1
            for b in range(count):
                pulled[owner, found[b], number] += 1


@_compile
def list_pulled(
    indptr: Array, indices: Array, first_row: int, rows_per_block: int, least: int, found: Array, chosen: Array
) -> int:
    """Fill ``chosen`` with the nodes that ``least`` other blocks or more pull from; how many they are.

    Other arguments as in :func:`count_pullers`.
    """
    base = indptr[0]
    listed = 0
    for r in range(indptr.shape[0] - 1):
        owner = (first_row + r) // rows_per_block
        if _pullers(indices, indptr[r] - base, indptr[r + 1] - base, owner, rows_per_block, found) >= least:
            chosen[listed] = first_row + r
            listed += 1
    return listed


@_compile
def list_halo(indices: Array, first_row: int, stop_row: int, mark: int, seen: Array, halo: Array) -> None:
    """Fill ``halo`` with the distinct nodes outside ``first_row : stop_row`` among ``indices``, as they appear.

    Nodes that ``seen`` (N) marks with ``mark`` are left out; those that are listed are marked.
    """
    found = 0
    for e in range(indices.shape[0]):
        j = indices[e]
        if (j < first_row or j >= stop_row) and seen[j] != mark:
            seen[j] = mark
            halo[found] = j
            found += 1


@_compile
def localize(indices: Array, first_row: int, stop_row: int, hubs: Array, halo: Array, position: Array) -> None:
    """Rewrite ``indices`` in place: positions in the graph to rows of the block, then of ``hubs``, then of ``halo``.

    ``hubs`` and ``halo`` are sorted and have no node in common. ``position`` (N) is scratch.
    """
    rows = stop_row - first_row
    for h in range(hubs.shape[0]):
        position[hubs[h]] = rows + h
    rows += hubs.shape[0]
    for h in range(halo.shape[0]):
        position[halo[h]] = rows + h
    for e in range(indices.shape[0]):
        j = indices[e]
        indices[e] = j - first_row if first_row <= j < stop_row else position[j]


@_compile
def shift_blocks(indices: Array, rows_per_block: int, shifts: Array) -> None:
    """Add to each index, in place, the shift of the block that it lies in."""
    for e in range(indices.shape[0]):
        indices[e] += shifts[indices[e] // rows_per_block]


@_compile
def count_distances(indices: Array, clock: int, last: Array, counts: Array) -> None:
    """Add to ``counts[b]`` the edges whose node was last met from ``2 ** (b - 1)`` to ``2 ** b - 1`` edges before.

    ``counts[0]`` is of the edge right before, ``counts[-1]`` of nodes that were not met. ``clock`` numbers the first
    edge; ``last`` (N) holds the number of the edge that met each node last, 0 for none.
    """
    for e in range(indices.shape[0]):
        j = indices[e]
        now = clock + e
        if last[j] == 0:
            counts[counts.shape[0] - 1] += 1
        else:
            distance = now - last[j] - 1
            power = 0
            while distance > 0:
                distance >>= 1
                power += 1
            counts[min(power, counts.shape[0] - 2)] += 1
        last[j] = now
