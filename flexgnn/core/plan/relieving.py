"""What to open again of the gaps that are filled, where the slots that fill them turn out not to fit when packed.

Shape legend: G gaps, S steps.
"""

from __future__ import annotations

import math

import numpy as np

from flexgnn.core.compiling import compiled
from flexgnn.core.plan.arena import Arena
from flexgnn.core.plan.sketch import Sketch
from flexgnn.core.tier import Array


def relieved(sketch: Sketch, kept: Array, arena: Arena, share: float = 1.0) -> Array:
    """Bool [G]: ``kept`` without some of the gaps that are in the way, at least one; the faster of two choices.

    One opens the gaps whose slots stick out of the budget. These were placed last, since they are small, and may be
    worth most for their size. The other opens those that are worth least, of all that are there when something sticks
    out, until ``share`` of the bytes that stick out are free then. Where nothing does, it is the setup that needs more
    than there is: then gaps go that are worth least, whenever they are.
    """
    beyond, sticking_out = _crowding(sketch, arena)
    missing = np.ceil(share * sticking_out).astype(np.int64)
    choices = [kept & ~beyond, thinned(sketch, kept, missing)]
    fewer = [choice for choice in choices if choice.sum() < kept.sum()]
    if fewer:
        return min(fewer, key=sketch.seconds)
    return _without_cheapest(sketch, kept, math.ceil(share * (arena.peak_bytes - sketch.problem.budget_bytes)))


def thinned(sketch: Sketch, kept: Array, missing: Array) -> Array:
    """Bool [G]: ``kept`` without those that are worth least for their size, so that ``missing`` (int64 [S]) is free."""
    gaps, left = sketch.gaps, kept.copy()
    order = np.argsort(gaps.densities, kind="stable")
    _thin(order[kept[order]], gaps.first_spans, gaps.spans, gaps.sizes, missing.copy(), left)
    return left


def _without_cheapest(sketch: Sketch, kept: Array, missing: int) -> Array:
    """Bool [G]: ``kept`` without the cheapest gaps, whenever they are, of ``missing`` bytes together."""
    candidates = np.flatnonzero(kept)
    cheapest = candidates[np.argsort(sketch.gaps.densities[candidates], kind="stable")]
    enough = np.searchsorted(np.cumsum(sketch.gaps.sizes[cheapest]), missing) + 1
    left = kept.copy()
    left[cheapest[:enough]] = False
    return left


def _crowding(sketch: Sketch, arena: Arena) -> tuple[Array, Array]:
    """The gaps in slots that did not fit in ``arena``, if filled (bool [G]), and by how much by step (int64 [S])."""
    gaps, budget_bytes = sketch.gaps, sketch.problem.budget_bytes
    field, block, step = gaps.keys.T
    beyond, sticking_out = np.zeros(len(gaps), dtype=np.bool_), np.zeros(len(sketch.room), dtype=np.int64)
    for group, slots, over in zip(arena.groups, *arena.beyond(budget_bytes), strict=True):
        number = gaps.fields.index(group.field) if group.role == "own" and group.field in gaps.fields else -1
        for slot, size in zip(slots.tolist(), over.tolist(), strict=True):
            begin, end = int(group.first_step[slot]), int(group.last_step[slot])
            stay = sticking_out[max(begin, 0) : end + 1]
            np.maximum(stay, size, out=stay)
            beyond |= (field == number) & (block == group.block[slot]) & (begin <= step) & (step <= end)
    return beyond, sticking_out


@compiled()
def _thin(order: Array, first: Array, spans: Array, sizes: Array, missing: Array, kept: Array) -> None:
    """Open gaps in ``order`` that are there where something is ``missing``, until nothing is; as in ``_fill``."""
    for g in order:
        needed = False
        for i in range(first[g], first[g + 1]):
            for s in range(spans[i, 1], spans[i, 2]):
                needed = needed or missing[s] > 0
        if needed:
            kept[g] = False
            for i in range(first[g], first[g + 1]):
                for s in range(spans[i, 1], spans[i, 2]):
                    missing[s] -= sizes[g]
