"""Aggregation on the CPU, compiled: one thread pulls an output row from its neighbours, in the order of the graph.

Shape legend: B rows of a block, T rows of a tile, L rows at hand locally, K hubs, D width, E edges of the block.

Every kernel reads rows from three arrays: index ``j < L`` is row ``j`` of ``local`` (L x D), ``j < L + K`` is row
``j - L`` of ``hubs`` (K x D, may be empty), any other is halo row ``j - L - K``. A field that is resident as a whole
has neither hubs nor halo. Sums also read rows that are stored as bfloat16 (``bfloat16.py``), and are made in float32.
The block's adjacency is ``indptr`` (B + 1, absolute positions; the block's edges start at
``indptr[0]``) and ``indices`` (E); tile row t is block row ``first + t``.

A halo may be too large to be at hand at once. Then it comes in passes, in ascending order: ``halo`` holds the rows
``halo_start : halo_stop`` of it. Each row goes on where ``cursor`` (B, edges done) says, stops at its first edge to a
later halo row, and leaves that in ``next_cursor``. As edges are sorted, the order of summation is that of a single
pass, and so are the bits. Rows are asked for some edges before they are needed (``prefetch.py``). Kernels run without
the GIL, so that threads can work on different tiles.
"""

from __future__ import annotations

import numpy as np

from flexgnn.core.compiling import compiled
from flexgnn.core.program.bfloat16 import load
from flexgnn.core.program.prefetch import line_columns, prefetch
from flexgnn.core.tier import Array

NO_VECTOR = np.empty(0, dtype=np.float32)
"""Stands for edge weights, loop weights or row scales that an aggregation has not."""

NO_CURSOR = np.empty(0, dtype=np.int64)
"""Stands for the cursors of a single pass."""

_AHEAD_EDGES, _AHEAD_LINES = 8, 64
"""How far ahead rows are asked for: so many edges, or as many as make so many cache lines if these are more."""

_compile = compiled(fastmath={"contract"}, boundscheck=False)


@_compile
def _ahead(rows: Array, width: int) -> int:
    """Edges from the one at which one of ``rows`` of ``width`` columns is asked for to the one that needs it."""
    edges: int = _AHEAD_LINES * line_columns(rows) // max(width, 1)
    return max(_AHEAD_EDGES, edges)


@_compile
def _ask_for(rows: Array, row: int) -> None:
    """Ask for a row.

    Which of the three arrays it is in is told in each kernel: as a function that cost more than asking saved.
    """
    for c in range(0, rows.shape[1], line_columns(rows)):
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
    ahead = _ahead(local, width)
    last = indices.shape[0] - ahead - 4
    has_weights = weights.shape[0] > 0
    has_loops = loops.shape[0] > 0
    for t in range(rows):
        r = first + t
        passed_over = own + r if has_loops else -1
        e = indptr[r] - base
        if halo_start == 0:
            loop_weight = loops[r] if has_loops else np.float32(0)
            for c in range(width):
                out[t, c] = loop_weight * load(local, own + r, c) if has_loops else np.float32(0)
        else:
            e = cursor[r]
        end = indptr[r + 1] - base
        while e < end:
            together = False  # four rows at once spare most of reading and writing ``out``
            if e < last and e + 4 <= end:
                i, j, k, m = indices[e], indices[e + 1], indices[e + 2], indices[e + 3]
                together = i < num_local and j < num_local and k < num_local and m < num_local
                together = together and i != passed_over and j != passed_over and k != passed_over and m != passed_over
            if e < last:
                for ask in range(e + ahead, e + ahead + (4 if together else 1)):
                    p = indices[ask]
                    if p < num_local:
                        _ask_for(local, p)
                    elif p < num_resident:
                        _ask_for(hubs, p - num_local)
                    elif p < num_resident + halo_stop:
                        _ask_for(halo, p - num_resident - halo_start)
            if together:
                if has_weights:
                    u, v, w, x = weights[e], weights[e + 1], weights[e + 2], weights[e + 3]
                    for c in range(width):
                        value = ((out[t, c] + u * load(local, i, c)) + v * load(local, j, c)) + w * load(local, k, c)
                        out[t, c] = value + x * load(local, m, c)
                else:
                    for c in range(width):
                        value = ((out[t, c] + load(local, i, c)) + load(local, j, c)) + load(local, k, c)
                        out[t, c] = value + load(local, m, c)
                e += 4
                continue
            j = indices[e]
            weight = weights[e] if has_weights else np.float32(1)
            if j < num_local:
                if j != passed_over:
                    for c in range(width):
                        out[t, c] += weight * load(local, j, c)
            elif j < num_resident:
                j -= num_local
                for c in range(width):
                    out[t, c] += weight * load(hubs, j, c)
            else:
                j -= num_resident
                if j >= halo_stop:
                    break
                j -= halo_start
                for c in range(width):
                    out[t, c] += weight * load(halo, j, c)
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
    ahead = _ahead(local, width)
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
                # All is read first and every element written: with branches, few processors get a vector loop.
                value, greatest, reached = row[c], out[t, c], ties[t, c]
                reached = np.float32(0) if value > greatest else reached
                out[t, c] = value if value > greatest else greatest
                ties[t, c] = reached + (np.float32(1) if value >= greatest else np.float32(0))
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
    ahead = _ahead(local, width)
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
                # Read first, as in pull_max. A sum that began with 0 is never -0, so that adding 0 leaves its bits.
                gradient, greatest, own = row[c], row[width + c], value[t, c]
                out[t, c] += gradient if greatest == own else np.float32(0)
            e += 1
        if not last_pass:
            next_cursor[first + t] = e


@_compile
def add_rows(out: Array, rows: Array, values: Array) -> None:
    """``out[rows[i]] += values[i]``, of float32; ``rows`` are int64."""
    for i in range(rows.shape[0]):
        r = rows[i]
        for c in range(values.shape[1]):
            out[r, c] += values[i, c]
