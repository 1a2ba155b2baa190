from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from flexgnn.core.plan.packing import ALIGNMENT_BYTES, aligned, pack
from flexgnn.core.plan.slots import Slot

STAYS = st.lists(st.tuples(st.integers(0, 900), st.integers(-1, 12), st.integers(0, 6)), min_size=1, max_size=40)


def slots_of(stays: list[tuple[int, int, int]]) -> list[Slot]:
    return [
        Slot(role="own", field="h", block=0, size_bytes=size, first_step=first, last_step=first + length)
        for size, first, length in stays
    ]


@settings(deadline=None)
@given(STAYS, st.one_of(st.none(), st.integers(0, 2000)))
def test_no_two_slots_overlap_in_time_and_space(stays: list[tuple[int, int, int]], enough: int | None) -> None:
    slots = slots_of(stays)
    offsets, size = pack(slots, enough_bytes=enough)
    for i, a in enumerate(slots):
        assert offsets[i] % ALIGNMENT_BYTES == 0
        assert offsets[i] + a.size_bytes <= size
        for j, b in enumerate(slots[:i]):
            together = a.first_step <= b.last_step and b.first_step <= a.last_step
            apart = offsets[i] + a.size_bytes <= offsets[j] or offsets[j] + b.size_bytes <= offsets[i]
            assert apart or not together


@settings(deadline=None)
@given(st.lists(st.integers(0, 900), min_size=1, max_size=20))
def test_slots_that_follow_each_other_share_memory(sizes: list[int]) -> None:
    _, size = pack(slots_of([(size, 3 * step, 2) for step, size in enumerate(sizes)]))
    assert size == max(aligned(size) for size in sizes)


def test_nothing_takes_nothing() -> None:
    assert pack([])[1] == 0
