"""Attention on the CPU, compiled: a softmax over the neighbours of a row, with nothing kept for an edge.

Shape legend: B rows of a block, T rows of a tile, E edges of the block, H heads, C channels, V = H x C columns of
values, S of sources (values, then keys), Q of queries, K of queries that meet keys, G of gradients.

Rows of neighbours, adjacency and passes are as in ``kernels.py``. Scores, and the columns of all rows, are those of
:class:`~flexgnn.core.program.attention.Attention`. A softmax is made in one go: where a score exceeds the greatest one
so far, what was summed is scaled down to it (Milakov and Gimelshein 2018), so that every neighbour is read once.

Which weights dropout sets to 0 is drawn from a counter made of the positions of an edge's two nodes, of how many such
edges come before it, and of the head: the same whichever way the edge is followed, and whatever the blocks are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from flexgnn.core.compiling import compiled
from flexgnn.core.program.attention import Attention
from flexgnn.core.program.columns import (
    KERNEL_OPTIONS,
    Unsigned,
    add_leaky_gradient,
    add_scaled,
    add_to,
    dot,
    leaky_dot,
    scale_columns,
)
from flexgnn.core.program.dropout import draw, key_of, threshold_of
from flexgnn.core.program.lanes import (
    LANES,
    add_lanes,
    any_above,
    exp_lanes,
    greater_lanes,
    load_lanes,
    load_some,
    multiply_lanes,
    put_lanes,
    select_lanes,
    spread,
    subtract_lanes,
)
from flexgnn.core.program.prefetch import line_columns, prefetch
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.program.rows import element, row_address, store
from flexgnn.core.tier import Array

ADDITIVE, DYNAMIC, PRODUCT = 0, 1, 2
"""How scores are made."""

ATTEND, TO_SOURCE, TO_QUERY = 0, 1, 2
"""What is pulled: outputs, gradients of sources, or gradients of queries."""

NO_POSITIONS = np.empty(0, dtype=np.int32)
"""Stands for the positions of neighbours where nothing is dropped."""

GROUP_BITS = np.uint32(20)
"""Parallel edges are counted in so many bits of a word of the counter, and groups of four heads in the others."""

_AHEAD_EDGES = 8
"""How far ahead rows are asked for."""
_FLOAT_BYTES = np.uint64(4)
_ZERO, _ONE, _TWO, _FOUR = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4)
_HALF = np.uint64(32)

_inlined = compiled(forceinline=True, **KERNEL_OPTIONS)


class Form(NamedTuple):
    """An attention, as kernels take it. Unsigned columns need no look at what negative ones would mean."""

    score: int
    heads: Unsigned
    channels: Unsigned
    slope: np.float32
    self_loops: bool


class Mask(NamedTuple):
    """A dropout of weights, as kernels take it."""

    threshold: np.uint32
    """Words below it drop a weight; 0: none is dropped, and no word is drawn."""
    scale: np.float32
    site: np.uint32
    key_0: np.uint32
    key_1: np.uint32


_SCORES = {"additive": ADDITIVE, "dynamic": DYNAMIC, "product": PRODUCT}


def form_of(attention: Attention) -> Form:
    """``attention``, for kernels."""
    return Form(
        score=_SCORES[attention.score],
        heads=np.uint64(attention.heads),
        channels=np.uint64(attention.channels),
        slope=np.float32(attention.negative_slope),
        self_loops=attention.self_loops,
    )


def mask_of(attention: Attention, rows: RowContext) -> Mask:
    """The dropout of ``attention`` at ``rows``, for kernels."""
    p = attention.dropout if rows.training else 0.0
    key_0, key_1 = key_of(rows.seed, rows.epoch)
    return Mask(
        threshold=threshold_of(p),
        scale=np.float32(1 / (1 - p) if p < 1 else 0),
        site=np.uint32(attention.site),
        key_0=key_0,
        key_1=key_1,
    )


@_inlined
def _scale(channels: Unsigned) -> np.float32:
    scale: np.float32 = np.float32(1) / np.sqrt(np.float32(channels))
    return scale


@_inlined
def _scores(
    form: Form,
    first: Unsigned,
    source: np.uint64,
    query: np.uint64,
    weights: np.uint64,
    scratch: np.uint64,
) -> Any:
    """The scores of a source and a query, L heads from ``first`` on; for ``additive`` before the leaky ReLU."""
    width, count = form.heads * form.channels, form.heads - first
    if form.score == ADDITIVE:
        scores = add_lanes(load_some(source, width + first, count), load_some(query, first, count))
    else:
        for head in range(min(count, LANES)):
            column = (first + head) * form.channels
            if form.score == DYNAMIC:
                score = leaky_dot(weights, source, query, column, form.channels, form.slope)
            else:
                score = dot(source, width + column, query, column, form.channels) * _scale(form.channels)
            store(scratch, head, score)
        scores = load_some(scratch, _ZERO, count)
    return scores


@_inlined
def _attend(
    form: Form,
    source: np.uint64,
    query: np.uint64,
    weights: np.uint64,
    out: np.uint64,
    greatest: np.uint64,
    total: np.uint64,
    factors: np.uint64,
    scratch: np.uint64,
) -> None:
    """Add what a row gets from one neighbour.

    ``greatest`` and ``total`` are the greatest score and the sum of exponentials of each head, with room for whole
    lanes, as has ``scratch``; ``factors`` are those of dropout.
    """
    slopes = spread(form.slope)
    for first in range(_ZERO, form.heads, LANES):
        scores = _scores(form, first, source, query, weights, scratch)
        if form.score == ADDITIVE:
            scores = select_lanes(scores, scores, multiply_lanes(slopes, scores))
        before = load_lanes(greatest, first)
        now = greater_lanes(before, scores)
        heads = min(form.heads - first, LANES)
        if any_above(now, before):
            smaller = exp_lanes(subtract_lanes(before, now))
            put_lanes(greatest, first, now)
            put_lanes(total, first, multiply_lanes(load_lanes(total, first), smaller))
            put_lanes(scratch, _ZERO, smaller)
            for head in range(heads):
                if element(scratch, head) < np.float32(1):
                    scale_columns(out, (first + head) * form.channels, form.channels, element(scratch, head))
        exponentials = exp_lanes(subtract_lanes(scores, now))
        put_lanes(total, first, add_lanes(load_lanes(total, first), exponentials))
        put_lanes(scratch, _ZERO, multiply_lanes(exponentials, load_lanes(factors, first)))
        for head in range(heads):
            column = (first + head) * form.channels
            add_scaled(out, column, source, column, form.channels, element(scratch, head))


@_inlined
def _differentiate(
    form: Form,
    to_source: bool,
    source: np.uint64,
    gradient: np.uint64,
    weights: np.uint64,
    out: np.uint64,
    factors: np.uint64,
    scratch: np.uint64,
    slopes: np.uint64,
) -> None:
    """Add what one edge gives to the gradient of its source, or of its query; ``slopes`` is scratch as well."""
    width = form.heads * form.channels
    keys = form.heads if form.score == ADDITIVE else width
    query = gradient + _FLOAT_BYTES * width
    state = query + _FLOAT_BYTES * keys
    for first in range(_ZERO, form.heads, LANES):
        heads = min(form.heads - first, LANES)
        scores = _scores(form, first, source, query, weights, scratch)
        if form.score == ADDITIVE:
            slope = select_lanes(scores, spread(np.float32(1)), spread(form.slope))
            scores = multiply_lanes(scores, slope)
            put_lanes(slopes, _ZERO, slope)
        exponentials = exp_lanes(subtract_lanes(scores, load_some(state, first, heads)))
        put_lanes(scratch, _ZERO, multiply_lanes(exponentials, load_some(state, form.heads + first, heads)))
        for lane in range(heads):
            head = first + lane
            column, weight, factor = head * form.channels, element(scratch, lane), element(factors, head)
            product = dot(gradient, column, source, column, form.channels)
            of_score = weight * (factor * product - element(state, _TWO * form.heads + head))
            if to_source:
                add_scaled(out, column, gradient, column, form.channels, weight * factor)
            if form.score == ADDITIVE:
                add_to(out, width + head if to_source else head, element(slopes, lane) * of_score)
            elif form.score == DYNAMIC:
                weights_at = _ZERO if to_source else width
                add_leaky_gradient(weights, source, query, column, form.channels, form.slope, of_score, out, weights_at)
            elif to_source:
                add_scaled(out, width + column, query, column, form.channels, of_score * _scale(form.channels))
            else:
                add_scaled(out, column, source, width + column, form.channels, of_score * _scale(form.channels))


@compiled(**KERNEL_OPTIONS)
def pull_attention(
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
    positions: Array,
    own: int,
    first: int,
    position: int,
    work: int,
    form: Form,
    mask: Mask,
    rows: Array,
    queries: Array,
    out: Array,
    state: Array,
) -> None:
    """A pass of an attention, or of its gradients, on one tile.

    Args:
        local: rows at hand locally; of sources, but with :data:`TO_SOURCE` those of gradients. So are the next two.
        hubs: K x S or K x G.
        halo: of this pass.
        halo_start: as for all pulls, like what follows.
        halo_stop: the same.
        cursor: the same.
        next_cursor: the same.
        last_pass: the same.
        indptr: of the block's in-edges, but with :data:`TO_SOURCE` of its out-edges.
        indices: the same.
        positions: int32 (E), where neighbours are in the graph; may be empty if nothing is dropped.
        own: local index of block row 0.
        first: block row of row 0 of the tile.
        position: of the same in the graph.
        work: what is pulled.
        form: the attention.
        mask: its dropout.
        rows: T x S sources of the tile with :data:`TO_SOURCE`, T x G gradients with :data:`TO_QUERY`; else anything.
        queries: T x Q of the tile.
        out: T x V outputs, T x S gradients of sources, or T x Q gradients of queries.
        state: T x 2 H, of :data:`ATTEND`: between passes the greatest score and the sum of exponentials, in the end its
            inverse, which is 0 without neighbours, as is the output.
    """
    num_local = local.shape[0]
    num_resident = num_local + hubs.shape[0]
    base = indptr[0]
    last = indices.shape[0] - _AHEAD_EDGES
    words = np.empty(4, dtype=np.uint32)
    # Of heads, with room for whole lanes.
    of_heads = np.zeros((5, form.heads + LANES), dtype=np.float32)
    greatest, total, factors = row_address(of_heads, 0), row_address(of_heads, 1), row_address(of_heads, 2)
    scratch, slopes = row_address(of_heads, 3), row_address(of_heads, 4)
    of_heads[2] = np.float32(1)
    keys = form.heads if form.score == ADDITIVE else form.heads * form.channels
    parallel = 0
    for t in range(out.shape[0]):
        r = first + t
        here = np.uint64(position + t)
        row, query = row_address(rows, t), row_address(queries, t)
        weights = query + _FLOAT_BYTES * keys
        result = row_address(out, t)
        passed_over = own + r if form.self_loops else -1
        start, end = indptr[r] - base, indptr[r + 1] - base
        e = start
        if halo_start == 0:
            out[t, :] = np.float32(0)
            if work == ATTEND:
                for head in range(form.heads):
                    state[t, head], state[t, form.heads + head] = np.float32(-np.inf), np.float32(0)
            e -= 1 if form.self_loops else 0  # the loop comes first, as an edge before all others
        else:
            e = cursor[r]
        if work == ATTEND:
            of_heads[0, : form.heads] = state[t, : form.heads]
            of_heads[1, : form.heads] = state[t, form.heads :]
        before = -1
        while e < end:
            if start <= e and e < last:
                p = indices[e + _AHEAD_EDGES]
                for c in range(0, local.shape[1], line_columns(local)):
                    if p < num_local:
                        prefetch(local, p, c)
                    elif p < num_resident:
                        prefetch(hubs, p - num_local, c)
                    elif p < num_resident + halo_stop:
                        prefetch(halo, p - num_resident - halo_start, c)
            there, j = here, own + r
            if e >= start:
                j = indices[e]
                if j >= num_resident + halo_stop:
                    break
                if j == passed_over:
                    e += 1
                    continue
                if mask.threshold > 0:
                    there = np.uint64(positions[e])
            if j < num_local:
                neighbor = row_address(local, j)
            elif j < num_resident:
                neighbor = row_address(hubs, j - num_local)
            else:
                neighbor = row_address(halo, j - num_resident - halo_start)
            parallel = parallel + 1 if j == before else 0
            before = j
            edge = (here << _HALF) | there if work == TO_SOURCE else (there << _HALF) | here
            if mask.threshold > 0:
                for head in range(form.heads):
                    if head % _FOUR == _ZERO:
                        third = (np.uint32(head // _FOUR) << GROUP_BITS) | np.uint32(parallel)
                        draw(edge, 1, third, mask.site, mask.key_0, mask.key_1, words)
                    of_heads[2, head] = mask.scale if words[head % _FOUR] >= mask.threshold else np.float32(0)
            if work == ATTEND:
                _attend(form, neighbor, query, weights, result, greatest, total, factors, scratch)
            elif work == TO_SOURCE:
                _differentiate(form, True, row, neighbor, weights, result, factors, scratch, slopes)
            else:
                _differentiate(form, False, neighbor, row, weights, result, factors, scratch, slopes)
            e += 1
        if work == ATTEND:
            state[t, : form.heads] = of_heads[0, : form.heads]
            state[t, form.heads :] = of_heads[1, : form.heads]
        if not last_pass:
            next_cursor[r] = e
        elif work == ATTEND:
            for head in range(form.heads):
                sum_of_head = state[t, form.heads + head]
                inverse = np.float32(1) / sum_of_head if sum_of_head > 0 else np.float32(0)
                state[t, form.heads + head] = inverse
                scale_columns(result, head * form.channels, form.channels, inverse)
