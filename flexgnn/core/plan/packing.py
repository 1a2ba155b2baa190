"""Static memory planning: an offset for every slot in one buffer, so that no two overlap in time and space.

Largest first, each at the lowest offset that is free for its whole stay (greedy by size; Pisarchyk and Lee, "Efficient
Memory Management for Deep Neural Net Inference", 2020). The buffer is allocated once, and its pages fault once.
"""

from __future__ import annotations

import numpy as np

from flexgnn.core.plan.slots import Slot
from flexgnn.core.tier import Array

ALIGNMENT_BYTES = 64
"""Of every slot at least: a cache line, and what reproducible results of BLAS libraries ask for."""


def aligned(size_bytes: int, alignment_bytes: int = ALIGNMENT_BYTES) -> int:
    """``size_bytes`` rounded up to a multiple of the alignment; at least one."""
    return max(-(-size_bytes // alignment_bytes), 1) * alignment_bytes


def pack(slots: list[Slot], alignment_bytes: int = ALIGNMENT_BYTES) -> tuple[Array, int]:
    """Offsets (int64, one a slot) and the size of the buffer in bytes."""
    if not slots:
        return np.zeros(0, dtype=np.int64), 0
    sizes = np.array([aligned(s.size_bytes, alignment_bytes) for s in slots], dtype=np.int64)
    first = np.array([s.first_step for s in slots], dtype=np.int64)
    last = np.array([s.last_step for s in slots], dtype=np.int64)
    orders = (np.lexsort((first, -sizes)), np.lexsort((-sizes, first - last)))
    return min((_place(order, sizes, first, last) for order in orders), key=lambda placed: placed[1])


def _place(order: Array, sizes: Array, first: Array, last: Array) -> tuple[Array, int]:
    """Place slots in ``order``. Placed ones are kept sorted by offset, so that gaps are found in one pass."""
    offsets = np.zeros(len(sizes), dtype=np.int64)
    placed = np.empty(0, dtype=np.int64)
    for index in order:
        clash = placed[(first[placed] <= last[index]) & (last[placed] >= first[index])]
        starts = offsets[clash]
        # The end of everything that clashes so far: a gap opens where the next start lies beyond it.
        ends = np.maximum.accumulate(np.concatenate(([0], starts + sizes[clash])))
        gaps = np.concatenate((starts, [np.iinfo(np.int64).max])) - ends
        offsets[index] = ends[int(np.argmax(gaps >= sizes[index]))]
        placed = np.insert(placed, int(np.searchsorted(offsets[placed], offsets[index])), index)
    return offsets, int((offsets + sizes).max())
