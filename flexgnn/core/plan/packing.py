"""Static memory planning: an offset for every slot in one buffer, so that no two overlap in time and space.

Slots are placed one by one, each at the lowest offset that is free for its whole stay, in several orders: largest
first (greedy by size; Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020), longest
first, and mixtures. Where that takes more than there is, those that stick out come first in a next round. The buffer
is allocated once, and its pages fault once.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from flexgnn.core.compiling import compiled
from flexgnn.core.tier import Array

ALIGNMENT_BYTES = 64
"""Of every slot at least: a cache line, and what reproducible results of BLAS libraries ask for."""


_ROUNDS = 40
Effort = Literal["quick", "full"]
_WORK: dict[Effort, int] = {"quick": 4 * 10**7, "full": 4 * 10**8}
"""Limit of rounds times the square of the number of slots: at most about 0.1 and 1 second."""
_STRIDE = 32
"""Steps from one list of the slots that are there to the next."""
_FEW = 64
"""So many slots are looked at again and again faster than they are sorted."""
_TOP = 0.98
"""Slots that end above this part of the buffer come first in the next round, if it is not enough by then."""


def aligned(size_bytes: Array, alignment_bytes: int = ALIGNMENT_BYTES) -> Array:
    """``size_bytes`` (int64) rounded up to multiples of the alignment; at least one."""
    rounded: Array = np.maximum(-(-size_bytes // alignment_bytes), 1) * alignment_bytes
    return rounded


def pack(
    size_bytes: Array,
    first_step: Array,
    last_step: Array,
    alignment_bytes: int = ALIGNMENT_BYTES,
    enough_bytes: int | None = None,
    effort: Effort = "full",
) -> tuple[Array, int]:
    """Offsets (int64 [n]) and the size of the buffer in bytes.

    Args:
        size_bytes: int64 [n], of each slot.
        first_step: int64 [n], of its stay.
        last_step: int64 [n].
        alignment_bytes: what every offset is a multiple of.
        enough_bytes: a size that there is no need to get below; None: whatever the first rounds give.
        effort: how many rounds to make, if it is not enough by then.
    """
    if not len(size_bytes):
        return np.zeros(0, dtype=np.int64), 0
    sizes = aligned(size_bytes, alignment_bytes)
    first, last = first_step, last_step
    orders, stays = _orders(sizes, first, last), _index(first, last)
    best: tuple[Array, int] = (np.empty(0, dtype=np.int64), np.iinfo(np.int64).max)
    rounds = 1 if enough_bytes is None else max(min(_ROUNDS, _WORK[effort] // len(sizes) ** 2), 1)
    for _ in range(rounds):
        for position, order in enumerate(orders):
            offsets = np.zeros(len(sizes), dtype=np.int64)
            end = int(_place(order, sizes, first, last, *stays, offsets))
            if end < best[1]:
                best = offsets, end
            if enough_bytes is not None and end <= enough_bytes:
                return best
            sticks_out = (offsets + sizes > max(enough_bytes or 0, _TOP * end))[order]
            orders[position] = np.concatenate([order[sticks_out], order[~sticks_out]])
    return best


def _orders(sizes: Array, first: Array, last: Array) -> list[Array]:
    """By size, by length, and by either to the next power of two with the other next."""
    length = last - first + 1
    return [
        np.lexsort((first, -sizes)),
        np.lexsort((-sizes, -length)),
        np.lexsort((first, -sizes, -np.log2(length).astype(np.int64))),
        np.lexsort((first, -length, -np.log2(sizes).astype(np.int64))),
    ]


def _index(first: Array, last: Array) -> tuple[int, Array, Array, Array, Array]:
    """What finds the slots that are there at some steps.

    Returns:
        The first step of all; slots by first step; the number of those that begin before each step, from the first on;
        the slots that are there at every ``_STRIDE``-th step since the one before, together, and where each list of
        them begins.
    """
    base = int(first.min())
    steps = int(last.max()) - base + 1
    begun = np.cumsum(np.bincount(first - base + 1, minlength=steps + 1))
    earliest = (first - base) // _STRIDE + 1
    listings = np.maximum((last - base) // _STRIDE + 1 - earliest, 0)
    slots = np.repeat(np.arange(len(first)), listings)
    before = np.cumsum(listings) - listings
    marks = np.arange(len(slots)) + np.repeat(earliest - before, listings)
    bounds = np.cumsum(np.bincount(marks + 1, minlength=(steps - 1) // _STRIDE + 2))
    return base, np.argsort(first, kind="stable"), begun, slots[np.argsort(marks, kind="stable")], bounds


@compiled()
def _place(
    order: Array,
    sizes: Array,
    first: Array,
    last: Array,
    base: int,
    by_first: Array,
    begun: Array,
    there: Array,
    bounds: Array,
    offsets: Array,
) -> int:
    """Place slots in ``order``, each at the lowest offset that is free; returns the end of the last."""
    size_bytes = 0
    begins, ends, few = np.empty_like(sizes), np.empty_like(sizes), np.arange(_FEW)
    offsets[:] = -1
    for index in order:
        mark = (first[index] - base) // _STRIDE
        count = 0
        for listed, start, stop in (
            (there, bounds[mark], bounds[mark + 1]),
            (by_first, begun[mark * _STRIDE], begun[last[index] - base + 1]),
        ):
            for other in listed[start:stop]:
                if offsets[other] >= 0 and last[other] >= first[index]:
                    begins[count], ends[count] = offsets[other], offsets[other] + sizes[other]
                    count += 1
        # Each place that is taken rules out all offsets up to its end. Of many, in their order, one look is enough.
        ascending = np.argsort(begins[:count]) if count > _FEW else few[:count]
        offset, moved = 0, True
        while moved:
            moved = False
            for k in ascending:
                if begins[k] < offset + sizes[index] and ends[k] > offset:
                    offset, moved = ends[k], count <= _FEW
        offsets[index] = offset
        size_bytes = max(size_bytes, offset + sizes[index])
    return size_bytes
