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
from flexgnn.core.program.dropout import draw, key_of, threshold_of
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

Unsigned = Any
"""np.uint64, which a type checker has no arithmetic with."""

_AHEAD_EDGES = 8
"""How far ahead rows are asked for."""
_FLOAT_BYTES = np.uint64(4)
_ZERO, _ONE, _TWO, _LANES = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4)
_HALF = np.uint64(32)
_GROUP_BITS = np.uint32(20)
"""Parallel edges are counted in so many bits of a word of the counter, and groups of four heads in the others."""

_options = {"fastmath": {"contract", "reassoc"}, "boundscheck": False}
_inlined = compiled(inline="always", **_options)
_compile = compiled(**_options)


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
def _exp(x: np.float32) -> np.float32:
    """The exponential of a number up to 88, within 2 units in the last place; below -87 it is that of -87.

    A product of a power of two and the exponential of at most half a binary logarithm, from its Taylor polynomial.
    Unlike that of the C library it is no call, for which all that is in vector registers would be put aside.
    """
    x = max(x, np.float32(-87))
    power = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
    r = x - power * np.float32(0.693359375)  # the logarithm of 2 in two parts, the first of few bits
    r -= power * np.float32(-2.12194440e-4)
    y = np.float32(1 / 5040)
    for factor in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        y = y * r + np.float32(factor)
    return y * np.int32((np.int32(power) + np.int32(127)) << np.int32(23)).view(np.float32)


@_inlined
def _leaky(x: np.float32, slope: np.float32) -> np.float32:
    return x if x > np.float32(0) else slope * x


@_inlined
def _slope(x: np.float32, slope: np.float32) -> np.float32:
    return np.float32(1) if x > np.float32(0) else slope


@_inlined
def _scale(channels: Unsigned) -> np.float32:
    scale: np.float32 = np.float32(1) / np.sqrt(np.float32(channels))
    return scale


@_inlined
def _score(form: Form, head: Unsigned, source: np.uint64, query: np.uint64, weights: np.uint64) -> np.float32:
    """The score of a source and a query, but for ``additive`` before the leaky ReLU."""
    width, first = form.heads * form.channels, head * form.channels
    total = np.float32(0)
    if form.score == ADDITIVE:
        total = element(source, width + head) + element(query, head)
    elif form.score == DYNAMIC:
        for c in range(first, first + form.channels):
            total += element(weights, c) * _leaky(element(source, c) + element(query, c), form.slope)
    else:
        for c in range(first, first + form.channels):
            total += element(source, width + c) * element(query, c)
        total *= _scale(form.channels)
    return total


@_inlined
def _add(row: np.uint64, column: Unsigned, value: np.float32) -> None:
    store(row, column, element(row, column) + value)


@_inlined
def _attend(
    form: Form,
    head: Unsigned,
    source: np.uint64,
    query: np.uint64,
    weights: np.uint64,
    factor: np.float32,
    out: np.uint64,
    state: np.uint64,
) -> None:
    """Add what a row gets from one neighbour; ``state`` are the greatest score and the sum of exponentials."""
    score = _score(form, head, source, query, weights)
    if form.score == ADDITIVE:
        score = _leaky(score, form.slope)
    first, last = head * form.channels, (head + _ONE) * form.channels
    greatest = element(state, head)
    if score > greatest:
        smaller = _exp(greatest - score)
        greatest = score
        store(state, head, score)
        store(state, form.heads + head, element(state, form.heads + head) * smaller)
        for c in range(first, last):
            store(out, c, element(out, c) * smaller)
    weight = _exp(score - greatest)
    _add(state, form.heads + head, weight)
    weight *= factor
    for c in range(first, last):
        _add(out, c, weight * element(source, c))


@_inlined
def _differentiate(
    form: Form,
    head: Unsigned,
    to_source: bool,
    source: np.uint64,
    gradient: np.uint64,
    weights: np.uint64,
    factor: np.float32,
    out: np.uint64,
) -> None:
    """Add what one edge gives to the gradient of its source, or of its query."""
    width, first, last = form.heads * form.channels, head * form.channels, (head + _ONE) * form.channels
    keys = form.heads if form.score == ADDITIVE else width
    query = gradient + _FLOAT_BYTES * width
    state = query + _FLOAT_BYTES * keys
    score = _score(form, head, source, query, weights)
    slope = np.float32(1)
    if form.score == ADDITIVE:
        slope = _slope(score, form.slope)
        score *= slope
    weight = _exp(score - element(state, head)) * element(state, form.heads + head)
    product = np.float32(0)
    for c in range(first, last):
        product += element(gradient, c) * element(source, c)
    of_score = weight * (factor * product - element(state, _TWO * form.heads + head))
    weight *= factor
    if to_source:
        for c in range(first, last):
            _add(out, c, weight * element(gradient, c))
    if form.score == ADDITIVE:
        _add(out, width + head if to_source else head, slope * of_score)
    elif form.score == DYNAMIC:
        for c in range(first, last):
            x = element(source, c) + element(query, c)
            _add(out, c, of_score * element(weights, c) * _slope(x, form.slope))
        if not to_source:
            for c in range(first, last):
                x = element(source, c) + element(query, c)
                _add(out, width + c, of_score * _leaky(x, form.slope))
    else:
        of_score *= _scale(form.channels)
        if to_source:
            for c in range(first, last):
                _add(out, width + c, of_score * element(query, c))
        else:
            for c in range(first, last):
                _add(out, c, of_score * element(source, width + c))


@_compile
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
    keys = form.heads if form.score == ADDITIVE else form.heads * form.channels
    parallel = 0
    for t in range(out.shape[0]):
        r = first + t
        here = np.uint64(position + t)
        row, query = row_address(rows, t), row_address(queries, t)
        weights = query + _FLOAT_BYTES * keys
        result, softmax = row_address(out, t), row_address(state, t)
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
            for head in range(form.heads):
                factor = np.float32(1)
                if mask.threshold > 0:
                    if head % _LANES == _ZERO:
                        third = (np.uint32(head // _LANES) << _GROUP_BITS) | np.uint32(parallel)
                        draw(edge, 1, third, mask.site, mask.key_0, mask.key_1, words)
                    factor = mask.scale if words[head % _LANES] >= mask.threshold else np.float32(0)
                if work == ATTEND:
                    _attend(form, head, neighbor, query, weights, factor, result, softmax)
                elif work == TO_SOURCE:
                    _differentiate(form, head, True, row, neighbor, weights, factor, result)
                else:
                    _differentiate(form, head, False, neighbor, row, weights, factor, result)
            e += 1
        if not last_pass:
            next_cursor[r] = e
        elif work == ATTEND:
            for head in range(form.heads):
                total = state[t, form.heads + head]
                inverse = np.float32(1) / total if total > 0 else np.float32(0)
                state[t, form.heads + head] = inverse
                for c in range(head * form.channels, (head + _ONE) * form.channels):
                    out[t, c] *= inverse
