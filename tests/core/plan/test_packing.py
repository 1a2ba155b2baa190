from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flexgnn.core.plan.packing import ALIGNMENT_BYTES, aligned, pack
from flexgnn.core.tier import Array

STAYS = st.lists(st.tuples(st.integers(0, 900), st.integers(-1, 12), st.integers(0, 6)), min_size=1, max_size=40)


def columns_of(stays: list[tuple[int, int, int]]) -> tuple[Array, Array, Array]:
    """Sizes, first and last steps of (size, first step, length)."""
    size, first, length = np.array(stays, dtype=np.int64).reshape(-1, 3).T
    return size, first, first + length


@settings(deadline=None)
@given(STAYS, st.one_of(st.none(), st.integers(0, 2000)))
def test_no_two_slots_overlap_in_time_and_space(stays: list[tuple[int, int, int]], enough: int | None) -> None:
    sizes, first, last = columns_of(stays)
    offsets, end = pack(sizes, first, last, enough_bytes=enough)
    for i in range(len(stays)):
        assert offsets[i] % ALIGNMENT_BYTES == 0
        assert offsets[i] + sizes[i] <= end
        for j in range(i):
            together = first[i] <= last[j] and first[j] <= last[i]
            apart = offsets[i] + sizes[i] <= offsets[j] or offsets[j] + sizes[j] <= offsets[i]
            assert apart or not together


@settings(deadline=None)
@given(st.lists(st.integers(0, 900), min_size=1, max_size=20))
def test_slots_that_follow_each_other_share_memory(sizes: list[int]) -> None:
    columns = columns_of([(size, 3 * step, 2) for step, size in enumerate(sizes)])
    assert pack(*columns)[1] == aligned(columns[0]).max()


def test_nothing_takes_nothing() -> None:
    assert pack(*columns_of([]))[1] == 0
