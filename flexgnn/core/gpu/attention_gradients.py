"""Gradients of an attention on a GPU, pulled to its sources along out-edges or to its queries along in-edges.

Shape legend: that of ``attention_kernels.py``; see ``attention.py``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from flexgnn.core.gpu.edges import begin, row_of
from flexgnn.core.gpu.scores import (
    ADDITIVE,
    ADDRESSES,
    DYNAMIC,
    NUMBERS,
    among,
    columns_of,
    factors_of,
    leaky,
    load_keys,
    load_source,
    score_of,
)

_UNROLLED = tl.constexpr(4)
"""Edges whose rows are asked for at once."""


@triton.jit
def _load_gradient(
    row,
    heads,
    has_head,
    columns,
    has_column,
    SCORE: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    KEY_WIDTH: tl.constexpr,
):
    """Of a row of gradients: that of the output, the query, the softmax (two), and the product with the output."""
    gradient = tl.load(row + columns, mask=has_column, other=0.0)
    query = load_keys(row + WIDTH, heads, has_head, columns, has_column, SCORE)
    of_heads = row + WIDTH + KEY_WIDTH + heads
    greatest = tl.load(of_heads, mask=has_head, other=0.0)
    inverse = tl.load(of_heads + HEADS, mask=has_head, other=0.0)
    product = tl.load(of_heads + 2 * HEADS, mask=has_head, other=0.0)
    return gradient, query, greatest, inverse, product


@triton.jit
def _of_keys(
    keys,
    query,
    weights,
    of_score,
    slope,
    scale,
    SCORE: tl.constexpr,
    TO_SOURCE: tl.constexpr,
):
    """The gradient of the keys of an edge, or of its query, from that of its scores (H)."""
    if SCORE == ADDITIVE:
        gradient = of_score * tl.where(keys + query > 0, 1.0, slope)
    elif SCORE == DYNAMIC:
        gradient = of_score[:, None] * (weights * tl.where(keys + query > 0, 1.0, slope))
    elif TO_SOURCE:
        gradient = query * (of_score * scale)[:, None]
    else:
        gradient = keys * (of_score * scale)[:, None]
    return gradient


@triton.jit(do_not_specialize=NUMBERS, do_not_specialize_on_alignment=ADDRESSES)
def pull_gradient(
    local,
    hubs,
    halo,
    cursor,
    next_cursor,
    indptr,
    indices,
    num_local,
    num_resident,
    halo_start,
    halo_stop,
    last_pass,
    own,
    first,
    positions,
    position,
    slope,
    scale,
    seed,
    site,
    threshold,
    kept,
    rows,
    queries,
    out,
    SCORE: tl.constexpr,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    H: tl.constexpr,
    C: tl.constexpr,
    SELF_LOOPS: tl.constexpr,
    DROPS: tl.constexpr,
    PULLED_WIDTH: tl.constexpr,
    QUERY_WIDTH: tl.constexpr,
    KEY_WIDTH: tl.constexpr,
    OWN_WIDTH: tl.constexpr,
    OUT_WIDTH: tl.constexpr,
    TO_SOURCE: tl.constexpr,
):
    """Some heads of one row of a tile.

    Sources have gradients of values, then of keys unless these are the values. Queries have gradients of themselves,
    then of the weights of dynamic scores. Two blocks are summed: what is of keys and queries, and the other.
    """
    WIDTH: tl.constexpr = HEADS * CHANNELS
    KEYS_AT: tl.constexpr = WIDTH if TO_SOURCE else 0
    OTHERS_AT: tl.constexpr = 0 if TO_SOURCE else WIDTH
    t = tl.program_id(0).to(tl.int64)
    r, here = first + t, position + t
    loop = (own + r).to(tl.int32)
    heads, columns = columns_of(CHANNELS, H, C)
    has_head, has_column = among(HEADS, heads, CHANNELS, C)
    kept_head, kept_column = among(tl.where(halo_start > 0, HEADS, 0), heads, CHANNELS, C)
    later = halo_start > 0
    own_row, out_row = rows + t * OWN_WIDTH, out + t * OUT_WIDTH
    if TO_SOURCE:
        values, keys = load_source(own_row, heads, has_head, columns, has_column, SCORE, WIDTH)
    else:
        gradient, query, greatest, inverse, product = _load_gradient(
            own_row, heads, has_head, columns, has_column, SCORE, HEADS, WIDTH, KEY_WIDTH
        )
    weights = 0.0
    if SCORE == DYNAMIC:
        weights = tl.load(queries + t * QUERY_WIDTH + WIDTH + columns, mask=has_column, other=0.0)
    if TO_SOURCE or SCORE == DYNAMIC:
        others = tl.load(out_row + OTHERS_AT + columns, mask=kept_column, other=0.0)
    if not TO_SOURCE or SCORE != DYNAMIC:
        of_keys = load_keys(out_row + KEYS_AT, heads, kept_head, columns, kept_column, SCORE)
    start, end, e = begin(indptr, cursor, r, halo_start)
    if SELF_LOOPS:
        e = tl.where(later, e, e - 1)  # the loop comes first, as an edge before all others
    reached = num_resident + halo_stop
    before, parallel = -1, 0
    while e < end:
        going = e < end
        stop = e
        for ahead in tl.static_range(_UNROLLED):
            at = e + ahead
            is_loop, within = at < start, at < end
            j = tl.where(is_loop, loop, tl.load(indices + at, mask=within & (at >= start), other=0))
            going = going & within & (j < reached)
            stop = tl.where(going, at + 1, stop)
            taken = going
            if SELF_LOOPS:
                taken = going & (is_loop | (j != loop))
            row = row_of(local, hubs, halo, j, num_local, num_resident, halo_start, PULLED_WIDTH)
            head_at, column_at = among(tl.where(taken, HEADS, 0), heads, CHANNELS, C)
            if TO_SOURCE:
                gradient, query, greatest, inverse, product = _load_gradient(
                    row, heads, head_at, columns, column_at, SCORE, HEADS, WIDTH, KEY_WIDTH
                )
            else:
                values, keys = load_source(row, heads, head_at, columns, column_at, SCORE, WIDTH)
            weight = tl.exp(score_of(keys, query, weights, slope, scale, SCORE) - greatest) * inverse
            of_weight = tl.sum(gradient * values, axis=1)
            if DROPS:
                there = tl.load(positions + at, mask=within & (at >= start), other=0)
                there = tl.where(is_loop, here, there)
                parallel = tl.where(taken, tl.where(j == before, parallel + 1, 0), parallel)
                before = tl.where(taken, j, before)
                target = there if TO_SOURCE else here
                source = here if TO_SOURCE else there
                factor = factors_of(target, source, parallel, heads, seed, site, threshold, kept)
                of_score = weight * (factor * of_weight - product)
                given = weight * factor
            else:
                of_score = weight * (of_weight - product)
                given = weight
            added = _of_keys(keys, query, weights, of_score, slope, scale, SCORE, TO_SOURCE)
            if TO_SOURCE:
                others = tl.where(taken, tl.fma(given[:, None], gradient, others), others)
            elif SCORE == DYNAMIC:
                others = tl.where(taken, tl.fma(of_score[:, None], leaky(keys + query, slope), others), others)
            if TO_SOURCE and SCORE == DYNAMIC:  # keys are values
                others = tl.where(taken, others + added, others)
            else:
                of_keys = tl.where(taken, of_keys + added, of_keys)
        end = tl.where(going, end, stop)
        e = stop
    if TO_SOURCE or SCORE == DYNAMIC:
        tl.store(out_row + OTHERS_AT + columns, others, mask=has_column)
    if not TO_SOURCE or SCORE != DYNAMIC:
        if SCORE == ADDITIVE:
            tl.store(out_row + KEYS_AT + heads, of_keys, mask=has_head)
        else:
            tl.store(out_row + KEYS_AT + columns, of_keys, mask=has_column)
    tl.store(next_cursor + r, e, mask=(last_pass == 0) & (tl.program_id(1) == 0))
