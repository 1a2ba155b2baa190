from __future__ import annotations

import pytest

from flexgnn.core.runtime.phase_times import PhaseTimes


def test_a_phase_lasts_until_the_next_begins() -> None:
    times = PhaseTimes()
    # Two epochs of two phases of two steps: (phase, epoch, start, end, wait before the start).
    for epoch, at in ((1, 0.0), (2, 100.0), (3, 200.0)):
        times.step(("forward", 0), epoch, at + 1, at + 2, 1.0)
        times.step(("forward", 0), epoch, at + 3, at + 4, 0.5)
        times.step(("loss", 1), epoch, at + 6 + epoch, at + 8 + epoch, 1.0)
        times.step(("loss", 1), epoch, at + 9 + epoch, at + 10 + epoch, 0.0)
    found = times.medians()
    assert found["forward", 0] == pytest.approx(7.5), "of the second and the third epoch"
    assert found["loss", 1] == pytest.approx(5.0)


def test_a_single_epoch_counts() -> None:
    times = PhaseTimes()
    times.step(("forward", 0), 1, 0.5, 2.0, 0.5)
    assert times.medians() == {("forward", 0): 2.0}
