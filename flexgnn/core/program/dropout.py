"""Dropout whose mask is a pure function of a counter, so that any tile of rows can be drawn again, in any order.

The element in column c of row i is number ``e = i * D + c`` of its site. Its random word is one lane of Philox4x32-10
(Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011) under a key made from seed and epoch, at a
counter made from ``e`` and the site. Elements come in groups, laid out so that a group is one vector loop: in group
``g``, position ``n`` of lane ``l`` belongs to element ``(4 * g + l) * GROUP + n``.

Shape legend: R rows of a tile, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from flexgnn.core.compiling import compiled
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.tier import Array

GROUP = 512
"""Counters drawn at once: 8 KiB of random words, which stay in the first-level cache."""

_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)

_compile = compiled(boundscheck=False)


@_compile
def draw(
    first: np.uint64, count: int, third: np.uint32, site: np.uint32, key_0: np.uint32, key_1: np.uint32, words: Array
) -> None:
    """Philox4x32-10 at the counters ``first : first + count``; lane l of counter n goes to ``words[l * count + n]``.

    ``third`` and ``site`` are the upper words of all these counters.
    """
    for n in range(count):
        counter = first + np.uint64(n)
        c_0, c_1, c_2, c_3 = np.uint32(counter & _LOW), np.uint32(counter >> _HALF), third, site
        k_0, k_1 = key_0, key_1
        for _ in range(10):
            product_0, product_1 = _MULTIPLIER_0 * np.uint64(c_0), _MULTIPLIER_1 * np.uint64(c_2)
            c_0, c_1 = np.uint32(product_1 >> _HALF) ^ c_1 ^ k_0, np.uint32(product_1)
            c_2, c_3 = np.uint32(product_0 >> _HALF) ^ c_3 ^ k_1, np.uint32(product_0)
            k_0, k_1 = np.uint32(k_0 + _WEYL_0), np.uint32(k_1 + _WEYL_1)
        words[n], words[count + n], words[2 * count + n], words[3 * count + n] = c_0, c_1, c_2, c_3


@_compile
def _keep(values: Array, words: Array, threshold: np.uint32, scale: np.float32, out: Array) -> None:
    for n in range(out.shape[0]):
        out[n] = values[n] * scale if words[n] >= threshold else np.float32(0)


@_compile
def _apply_mask(
    values: Array,
    first: int,
    site: np.uint32,
    key_0: np.uint32,
    key_1: np.uint32,
    threshold: np.uint32,
    scale: np.float32,
    out: Array,
) -> None:
    """Drop and scale the elements ``first : first + len(values)`` of a site."""
    words = np.empty(4 * GROUP, dtype=np.uint32)
    stop = first + values.shape[0]
    for group in range(first // words.shape[0], (stop + words.shape[0] - 1) // words.shape[0]):
        draw(np.uint64(group) * np.uint64(GROUP), GROUP, np.uint32(0), site, key_0, key_1, words)
        begins = group * words.shape[0]
        a, b = max(first, begins), min(stop, begins + words.shape[0])
        inside, drawn = slice(a - first, b - first), slice(a - begins, b - begins)
        _keep(values[inside], words[drawn], threshold, scale, out[inside])


@lru_cache(maxsize=64)
def key_of(seed: int, epoch: int) -> tuple[np.uint32, np.uint32]:
    """The key of an epoch."""
    words = np.random.SeedSequence((seed, epoch)).generate_state(2, np.uint32)
    return words[0], words[1]


def threshold_of(p: float) -> np.uint32:
    """Random words below it drop what they are drawn for, with probability ``p``."""
    return np.uint32(min(round(p * 2**32), 2**32 - 1))


@dataclass
class DrawCount:
    """How many values were drawn."""

    values: int = 0


_draws: ContextVar[DrawCount | None] = ContextVar("draws", default=None)


@contextmanager
def counting_draws() -> Iterator[DrawCount]:
    """Count the values that this thread draws meanwhile."""
    count = DrawCount()
    token = _draws.set(count)
    try:
        yield count
    finally:
        _draws.reset(token)


def _mask(values: Tensor, p: float, site: int, rows: RowContext, out: Tensor) -> Tensor:
    """``values`` dropped and scaled into ``out``, which may be the same; both contiguous."""
    if (count := _draws.get()) is not None:
        count.values += values.numel()
    if values.device.type != "cpu":
        from flexgnn.core.gpu.dropout import masked  # Triton is there where a GPU is

        return masked(values, p, site, rows, out)
    elements_per_row = values[0].numel() if len(values) else 0
    key_0, key_1 = key_of(rows.seed, rows.epoch)
    _apply_mask(
        values.view(-1).numpy(),
        rows.start * elements_per_row,
        np.uint32(site),
        key_0,
        key_1,
        threshold_of(p),
        np.float32(1 / (1 - p)),
        out.view(-1).numpy(),
    )
    return out


def dropout(x: Tensor, p: float, site: int, rows: RowContext) -> Tensor:
    """``x`` with each element zeroed with probability ``p``, else scaled by ``1 / (1 - p)``; ``x`` out of training.

    It is its own derivative: applied to the gradient of its result, it gives that of ``x``.

    Args:
        x: R x D float32; further dimensions count as width.
        p: from 0 to 1.
        site: number of the dropout in its program, so that no two share a mask.
        rows: which rows ``x`` holds. The mask of a row does not depend on the tile that it comes in.
    """
    if not rows.training:
        return x
    if p >= 1:
        return x * 0.0
    x = x.contiguous()
    return _mask(x, p, site, rows, torch.empty_like(x))


def dropout_(x: Tensor, p: float, site: int, rows: RowContext) -> Tensor:
    """:func:`dropout` in place; ``x`` is contiguous."""
    if not rows.training:
        return x
    return x.mul_(0.0) if p >= 1 else _mask(x, p, site, rows, x)
