"""Dropout on a GPU, with the masks of ``flexgnn/core/program/dropout.py``."""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl
from torch import Tensor

from flexgnn.core.gpu.edges import launch
from flexgnn.core.program.dropout import GROUP, key_of, threshold_of
from flexgnn.core.program.row_context import RowContext


def masked(values: Tensor, p: float, site: int, rows: RowContext, out: Tensor) -> Tensor:
    """``values`` dropped with probability ``p`` and scaled into ``out``, which may be the same.

    Args:
        values: R x D float32, contiguous; further dimensions count as width.
        p: below 1.
        site: number of the dropout in its program.
        rows: which rows these are.
        out: like ``values``.
    """
    first = rows.start * (values[0].numel() if len(values) else 0)
    stop = first + values.numel()
    groups = triton.cdiv(stop, 4 * GROUP) - first // (4 * GROUP)
    numbers = first, stop, seed_of(rows), signed(site), signed(threshold_of(p))
    launch(_mask, (groups,), values, out, *numbers, 1 / (1 - p), COUNTERS=GROUP, warps=4)
    return out


def seed_of(rows: RowContext) -> int:
    """The key of an epoch as Triton's generator takes it: one signed number of 64 bits."""
    key_0, key_1 = key_of(rows.seed, rows.epoch)
    return int(np.array([key_0, key_1], dtype="<u4").view("<i8")[0])


def signed(word: int | np.uint32) -> int:
    """The bits of a word, as a number that Triton gives the same type whatever they are."""
    return int(np.uint32(word).view(np.int32))


@triton.jit(do_not_specialize=["first", "stop", "seed", "site", "threshold"])
def _mask(
    values,
    out,
    first,
    stop,
    seed,
    site,
    threshold,
    scale,
    COUNTERS: tl.constexpr,
):
    """The elements of one group: four from each counter."""
    n = tl.arange(0, COUNTERS)
    group = first.to(tl.int64) // (4 * COUNTERS) + tl.program_id(0)
    counter = group * COUNTERS + n
    low = counter.to(tl.uint32)
    high = (counter >> 32).to(tl.uint32)
    zero = low * 0
    word_0, word_1, word_2, word_3 = tl.philox(seed, low, high, zero, zero + site.to(tl.uint32))
    element = group * 4 * COUNTERS + n
    _keep(values, out, element, first, stop, word_0, threshold, scale)
    _keep(values, out, element + COUNTERS, first, stop, word_1, threshold, scale)
    _keep(values, out, element + 2 * COUNTERS, first, stop, word_2, threshold, scale)
    _keep(values, out, element + 3 * COUNTERS, first, stop, word_3, threshold, scale)


@triton.jit
def _keep(values, out, element, first, stop, word, threshold, scale):
    inside = (element >= first) & (element < stop)
    value = tl.load(values + (element - first), mask=inside, other=0.0)
    kept = tl.where(word >= threshold.to(tl.uint32), value * scale, 0.0)
    tl.store(out + (element - first), kept, mask=inside)
