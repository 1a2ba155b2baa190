"""What kernels of attention do with the heads of one edge: scores, and the masks of dropout.

Shape legend: H heads of a program, C channels, both padded to a power of two. Keys, and the queries that meet them, are
H for additive scores and H x C for others; weights are those of dynamic scores.

Columns of rows are those of ``attention_kernels.py``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from flexgnn.core.gpu import edges
from flexgnn.core.program import attention_kernels

ADDITIVE, DYNAMIC = tl.constexpr(attention_kernels.ADDITIVE), tl.constexpr(attention_kernels.DYNAMIC)
_BITS = tl.constexpr(int(attention_kernels.GROUP_BITS))

NUMBERS = [*edges.NUMBERS, "position", "seed", "site", "threshold"]
"""Parameters that Triton is not to compile anew for."""
ADDRESSES = ["local", "hubs", "halo", "rows", "queries", "out", "state"]
"""The same, if what is different about them is their alignment."""


@triton.jit
def columns_of(CHANNELS: tl.constexpr, H: tl.constexpr, C: tl.constexpr):
    """The heads of this program, and the columns of their channels (H x C)."""
    heads = tl.program_id(1) * H + tl.arange(0, H)
    return heads, heads[:, None] * CHANNELS + tl.arange(0, C)[None, :]


@triton.jit
def among(count, heads, CHANNELS: tl.constexpr, C: tl.constexpr):
    """Which heads are among the first ``count``, and which of their channels there are (H x C)."""
    has_head = heads < count
    return has_head, has_head[:, None] & (tl.arange(0, C) < CHANNELS)[None, :]


@triton.jit
def load_keys(keys, heads, has_head, columns, has_column, SCORE: tl.constexpr):
    """The keys, or the queries, that begin at ``keys``."""
    if SCORE == ADDITIVE:
        loaded = tl.load(keys + heads, mask=has_head, other=0.0)
    else:
        loaded = tl.load(keys + columns, mask=has_column, other=0.0)
    return loaded


@triton.jit
def load_source(row, heads, has_head, columns, has_column, SCORE: tl.constexpr, WIDTH: tl.constexpr):
    """The values and the keys of a row of sources."""
    values = tl.load(row + columns, mask=has_column, other=0.0)
    keys = values if SCORE == DYNAMIC else load_keys(row + WIDTH, heads, has_head, columns, has_column, SCORE)
    return values, keys


@triton.jit
def leaky(x, slope):
    """The leaky ReLU."""
    return tl.where(x > 0, x, slope * x)


@triton.jit
def score_of(keys, queries, weights, slope, scale, SCORE: tl.constexpr):
    """The scores (H) of an edge; ``scale`` is that of products."""
    if SCORE == ADDITIVE:
        score = leaky(keys + queries, slope)
    elif SCORE == DYNAMIC:
        score = tl.sum(weights * leaky(keys + queries, slope), axis=1)
    else:
        score = tl.sum(keys * queries, axis=1) * scale
    return score


@triton.jit
def factors_of(target, source, parallel, heads, seed, site, threshold, kept):
    """What dropout multiplies the weights (H) of an edge by: 0, or ``kept``.

    ``target`` and ``source`` are positions of nodes; ``parallel`` such edges come before this one.
    """
    zero = (heads * 0).to(tl.uint32)
    third = ((heads // 4).to(tl.uint32) << _BITS) | parallel.to(tl.uint32)
    first, second = zero + target.to(tl.uint32), zero + source.to(tl.uint32)
    word_0, word_1, word_2, word_3 = tl.philox(seed, first, second, third, zero + site.to(tl.uint32))
    lane = heads % 4
    word = tl.where(lane < 2, tl.where(lane == 0, word_0, word_1), tl.where(lane == 2, word_2, word_3))
    return tl.where(word >= threshold.to(tl.uint32), kept, 0.0)
