"""Aggregation on the CPU, compiled: one thread pulls an output row from its neighbours, in the order of the graph.

Shape legend: B rows of a block, T rows of a tile, L rows at hand locally, K hubs, D width, E edges of the block.

Every kernel reads rows from three arrays: index ``j < L`` is row ``j`` of ``local`` (L x D), ``j < L + K`` is row
``j - L`` of ``hubs`` (K x D, may be empty), any other is halo row ``j - L - K``. A field that is resident as a whole
has neither hubs nor halo. The block's adjacency is ``indptr`` (B + 1, absolute positions; the block's edges start at
``indptr[0]``) and ``indices`` (E); tile row t is block row ``first + t``.

A halo may be too large to be at hand at once. Then it comes in passes, in ascending order: ``halo`` holds the rows
``halo_start : halo_stop`` of it. Each row goes on where ``cursor`` (B, edges done) says, stops at its first edge to a
later halo row, and leaves that in ``next_cursor``. As edges are sorted, the order of summation is that of a single
pass, and so are the bits. Rows are asked for some edges before they are needed (``prefetch.py``). Kernels run without
the GIL, so that threads can work on different tiles.
"""

from __future__ import annotations

import numba
import numpy as np

from flexgnn.core.program.prefetch import LINE_FLOATS, prefetch
from flexgnn.core.tier import Array

NO_VECTOR = np.empty(0, dtype=np.float32)
"""Stands for edge weights, loop weights or row scales that an aggregation has not."""

NO_CURSOR = np.empty(0, dtype=np.int64)
"""Stands for the cursors of a single pass."""

_AHEAD_EDGES, _AHEAD_LINES = 8, 64
"""How far ahead rows are asked for: so many edges, or as many as make so many cache lines if these are more."""

_compile = numba.njit(nogil=True, cache=True, fastmath={"contract"}, boundscheck=False)


@_compile
def _ahead(width: int) -> int:
    """Edges from the one at which a row of ``width`` is asked for to the one that needs it."""
    return max(_AHEAD_EDGES, _AHEAD_LINES * LINE_FLOATS // max(width, 1))


@_compile
def _ask_for(rows: Array, row: int) -> None:
    """Ask for a row.

    Which of the three arrays it is in is told in each kernel: as a function that cost more than asking saved.
    """
    for c in range(0, rows.shape[1], LINE_FLOATS):
        prefetch(rows, row, c)


@_compile
def pull_sum(
    local: Array,
    hubs: Array,
    halo: Array,
    halo_start: int,
    halo_stop: int,
    cursor: Array,
    next_cursor: Array,
    last_pass: bool,
    indptr: Array,
    indices: Array,
    weights: Array,
    loops: Array,
    row_scale: Array,
    own: int,
    first: int,
    out: Array,
) -> None:
    """``out[t] = row_scale[r] * (loops[r] * z[r] + sum over j of weights[r, j] * z[j])`` for ``r = first + t``.

    ``out`` is T x D float32. ``weights`` (E), ``loops`` (B) and ``row_scale`` (B) may be empty: weights and scales of
    1, and the graph's own loops. With ``loops``, the graph's own loops are passed over. ``own`` is the local index of
    block row 0. The first pass is the one with ``halo_start`` 0. The cursors may be empty if it is also the last.
    """
    rows, width = out.shape
    num_local = local.shape[0]
    num_resident = num_local + hubs.shape[0]
    base = indptr[0]
    ahead = _ahead(width)
    last = indices.shape[0] - ahead
    has_weights = weights.shape[0] > 0
    has_loops = loops.shape[0] > 0
    for t in range(rows):
        r = first + t
        e = indptr[r] - base
        if halo_start == 0:
            loop_weight = loops[r] if has_loops else np.float32(0)
            for c in range(width):
                out[t, c] = loop_weight * local[own + r, c] if has_loops else np.float32(0)
        else:
            e = cursor[r]
        end = indptr[r + 1] - base
        while e < end:
            if e < last:
                p = indices[e + ahead]
                if p < num_local:
                    _ask_for(local, p)
                elif p < num_resident:
                    _ask_for(hubs, p - num_local)
                elif p < num_resident + halo_stop:
                    _ask_for(halo, p - num_resident - halo_start)
            j = indices[e]
            weight = weights[e] if has_weights else np.float32(1)
            if j < num_local:
                if not (has_loops and j == own + r):
                    for c in range(width):
                        out[t, c] += weight * local[j, c]
            elif j < num_resident:
                j -= num_local
                for c in range(width):
                    out[t, c] += weight * hubs[j, c]
            else:
                j -= num_resident
                if j >= halo_stop:
                    break
                j -= halo_start
                for c in range(width):
                    out[t, c] += weight * halo[j, c]
            e += 1
        if not last_pass:
            next_cursor[r] = e
        elif row_scale.shape[0] > 0:
            scale = row_scale[r]
            for c in range(width):
                out[t, c] *= scale


@_compile
def pull_max(
    local: Array,
    hubs: Array,
    halo: Array,
    halo_start: int,
    halo_stop: int,
    cursor: Array,
    next_cursor: Array,
    last_pass: bool,
    indptr: Array,
    indices: Array,
    first: int,
    out: Array,
    ties: Array,
) -> None:
    """``out[t] = max over j of z[j]``, elementwise, 0 without neighbours; ``ties``: how many j reach it.

    ``out`` and ``ties`` are T x D float32. Edges that occur twice count twice, as in PyG. Passes as in
    :func:`pull_sum`.
    """
    rows, width = out.shape
    num_local = local.shape[0]
    num_resident = num_local + hubs.shape[0]
    base = indptr[0]
    ahead = _ahead(width)
    last = indices.shape[0] - ahead
    for t in range(rows):
        e, end = indptr[first + t] - base, indptr[first + t + 1] - base
        if halo_start == 0:
            for c in range(width):
                out[t, c] = np.float32(0) if e == end else np.float32(-np.inf)
                ties[t, c] = np.float32(0)
        else:
            e = cursor[first + t]
        while e < end:
            if e < last:
                p = indices[e + ahead]
                if p < num_local:
                    _ask_for(local, p)
                elif p < num_resident:
                    _ask_for(hubs, p - num_local)
                elif p < num_resident + halo_stop:
                    _ask_for(halo, p - num_resident - halo_start)
            j = indices[e]
            if j >= num_resident + halo_stop:
                break
            if j < num_local:
                row = local[j]
            elif j < num_resident:
                row = hubs[j - num_local]
            else:
                row = halo[j - num_resident - halo_start]
            for c in range(width):
                if row[c] > out[t, c]:
                    out[t, c] = row[c]
                    ties[t, c] = np.float32(1)
                elif row[c] == out[t, c]:
                    ties[t, c] += np.float32(1)
            e += 1
        if not last_pass:
            next_cursor[first + t] = e


@_compile
def pull_max_gradient(
    local: Array,
    hubs: Array,
    halo: Array,
    halo_start: int,
    halo_stop: int,
    cursor: Array,
    next_cursor: Array,
    last_pass: bool,
    indptr: Array,
    indices: Array,
    first: int,
    value: Array,
    out: Array,
) -> None:
    """Gradient of :func:`pull_max` for its input rows, pulled over out-edges.

    ``local``, ``hubs`` and ``halo`` have 2 D columns: of each receiver, the output's gradient divided by its ties, then
    the output. ``value`` (T x D) are the input rows of the tile; ``out`` (T x D) their gradients. Passes as in
    :func:`pull_sum`.
    """
    rows, width = out.shape
    num_local = local.shape[0]
    num_resident = num_local + hubs.shape[0]
    base = indptr[0]
    ahead = _ahead(width)
    last = indices.shape[0] - ahead
    for t in range(rows):
        e, end = indptr[first + t] - base, indptr[first + t + 1] - base
        if halo_start == 0:
            for c in range(width):
                out[t, c] = np.float32(0)
        else:
            e = cursor[first + t]
        while e < end:
            if e < last:
                p = indices[e + ahead]
                if p < num_local:
                    _ask_for(local, p)
                elif p < num_resident:
                    _ask_for(hubs, p - num_local)
                elif p < num_resident + halo_stop:
                    _ask_for(halo, p - num_resident - halo_start)
            i = indices[e]
            if i >= num_resident + halo_stop:
                break
            if i < num_local:
                row = local[i]
            elif i < num_resident:
                row = hubs[i - num_local]
            else:
                row = halo[i - num_resident - halo_start]
            for c in range(width):
                if row[width + c] == value[t, c]:
                    out[t, c] += row[c]
            e += 1
        if not last_pass:
            next_cursor[first + t] = e


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
