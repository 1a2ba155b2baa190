"""Attention over neighbours on a GPU: ``pull_attention`` of ``row_kernels.py``. Gradients: ``attention_gradients.py``.

Shape legend: that of ``attention_kernels.py``.

A program makes some heads of one row, as many as fit into registers. What is summed over channels is summed by one
compiled kernel for all tiles and passes, wherever their rows are: compiled for rows at some alignment, it could sum in
another order.
"""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl
from torch import Tensor

from flexgnn.core.gpu.attention_gradients import pull_gradient
from flexgnn.core.gpu.dropout import seed_of, signed
from flexgnn.core.gpu.edges import begin, launch, reach_of, row_of
from flexgnn.core.gpu.scores import (
    ADDRESSES,
    DYNAMIC,
    NUMBERS,
    among,
    columns_of,
    factors_of,
    load_keys,
    load_source,
    score_of,
)
from flexgnn.core.program.attention import Attention
from flexgnn.core.program.attention_kernels import ATTEND, TO_SOURCE, form_of, mask_of
from flexgnn.core.program.neighbors import Neighbors
from flexgnn.core.program.row_kernels import Place

_UNROLLED = tl.constexpr(4)
"""Edges whose rows are asked for at once."""

_COLUMNS = 512
"""Heads times channels of a program at most, unless one head has more channels."""


def pull_attention(
    n: Neighbors,
    place: Place,
    attention: Attention,
    work: int,
    rows: Tensor,
    queries: Tensor,
    out: Tensor,
    state: Tensor,
) -> None:
    """As :meth:`~flexgnn.core.program.row_kernels.RowKernels.pull_attention`; all tensors of rows are float32."""
    form, mask = form_of(attention), mask_of(attention, place.rows)
    channels = triton.next_power_of_2(attention.channels)
    heads = max(min(triton.next_power_of_2(attention.heads), _COLUMNS // channels), 1)
    scale = float(np.float32(1) / np.sqrt(np.float32(attention.channels)))
    drawing = seed_of(place.rows), signed(mask.site), signed(mask.threshold), float(mask.scale)
    numbers = n.positions, place.rows.start, float(form.slope), scale, *drawing
    constants = {
        "SCORE": form.score,
        "HEADS": attention.heads,
        "CHANNELS": attention.channels,
        "H": heads,
        "C": channels,
        "SELF_LOOPS": attention.self_loops,
        "DROPS": bool(mask.threshold > 0),
        "PULLED_WIDTH": n.local.shape[1],
        "QUERY_WIDTH": attention.query_width,
        "warps": min(max(heads * channels // _COLUMNS, 1), 8),
    }
    grid, common = (out.shape[0], triton.cdiv(attention.heads, heads)), (*reach_of(n, place.first), *numbers)
    if work == ATTEND:
        launch(_attend, grid, *common, queries, out, state, **constants)
    else:
        widths = {"KEY_WIDTH": attention.key_width, "OWN_WIDTH": rows.shape[1], "OUT_WIDTH": out.shape[1]}
        launch(pull_gradient, grid, *common, rows, queries, out, **constants, **widths, TO_SOURCE=work == TO_SOURCE)


@triton.jit(do_not_specialize=NUMBERS, do_not_specialize_on_alignment=ADDRESSES)
def _attend(
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
    queries,
    out,
    state,
    SCORE: tl.constexpr,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    H: tl.constexpr,
    C: tl.constexpr,
    SELF_LOOPS: tl.constexpr,
    DROPS: tl.constexpr,
    PULLED_WIDTH: tl.constexpr,
    QUERY_WIDTH: tl.constexpr,
):
    """Some heads of one row of a tile."""
    t = tl.program_id(0).to(tl.int64)
    r, here = first + t, position + t
    loop = (own + r).to(tl.int32)
    heads, columns = columns_of(CHANNELS, H, C)
    has_head, has_column = among(HEADS, heads, CHANNELS, C)
    later, last = halo_start > 0, last_pass != 0
    query = queries + t * QUERY_WIDTH
    wanted = load_keys(query, heads, has_head, columns, has_column, SCORE)
    weights = wanted
    if SCORE == DYNAMIC:
        weights = tl.load(query + HEADS * CHANNELS + columns, mask=has_column, other=0.0)
    out_row, state_row = out + t * (HEADS * CHANNELS), state + t * (2 * HEADS)
    kept_head, kept_column = among(tl.where(later, HEADS, 0), heads, CHANNELS, C)
    sums = tl.load(out_row + columns, mask=kept_column, other=0.0)
    greatest = tl.load(state_row + heads, mask=kept_head, other=-float("inf"))
    total = tl.load(state_row + HEADS + heads, mask=kept_head, other=0.0)
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
            values, keys = load_source(row, heads, head_at, columns, column_at, SCORE, HEADS * CHANNELS)
            score = score_of(keys, wanted, weights, slope, scale, SCORE)
            exceeds = taken & (score > greatest)
            now = tl.where(exceeds, score, greatest)
            # Infinities, which stand for no score so far, have no difference and no product with 0.
            smaller = tl.exp(tl.where(exceeds, greatest, 0.0) - tl.where(exceeds, now, 0.0))
            exponential = tl.exp(tl.where(taken, score - now, 0.0))
            factor = exponential
            if DROPS:
                there = tl.load(positions + at, mask=within & (at >= start), other=0)
                there = tl.where(is_loop, here, there)
                parallel = tl.where(taken, tl.where(j == before, parallel + 1, 0), parallel)
                before = tl.where(taken, j, before)
                factor = exponential * factors_of(here, there, parallel, heads, seed, site, threshold, kept)
            sums = tl.where(taken, tl.fma(factor[:, None], values, sums * smaller[:, None]), sums)
            total = tl.where(taken, tl.fma(total, smaller, exponential), total)
            greatest = now
        end = tl.where(going, end, stop)
        e = stop
    inverse = tl.where(total > 0, tl.div_rn(1.0, tl.where(total > 0, total, 1.0)), 0.0)
    tl.store(out_row + columns, tl.where(last, sums * inverse[:, None], sums), mask=has_column)
    tl.store(state_row + heads, greatest, mask=has_head)
    tl.store(state_row + HEADS + heads, tl.where(last, inverse, total), mask=has_head)
    tl.store(next_cursor + r, e, mask=(last_pass == 0) & (tl.program_id(1) == 0))
