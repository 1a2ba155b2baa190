"""How long phases took, from the events of their steps."""

from __future__ import annotations

import statistics
from collections import defaultdict

from flexgnn.core.runtime.events import Event, StepFinished

PhaseKey = tuple[str, int, int | None]
"""Kind, stage, and slice of columns."""


class PhaseTimes:
    """A listener that measures phases: each lasts from the opening of its first step to that of the next phase."""

    def __init__(self) -> None:
        self._seconds: dict[PhaseKey, list[float]] = defaultdict(list)
        self._current: PhaseKey | None = None
        self._began = self._ended = 0.0
        self._epoch = -1

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepFinished):
            phase = event.phase, event.stage, event.column_slice
            self.step(phase, event.epoch, event.start_seconds, event.end_seconds, event.wait_seconds)

    def step(self, phase: PhaseKey, epoch: int, start_seconds: float, end_seconds: float, wait_seconds: float) -> None:
        """Take note of a step."""
        opened = start_seconds - wait_seconds
        if (phase, epoch) != (self._current, self._epoch):
            # Between epochs there is more than the last phase.
            self._close(opened if epoch == self._epoch else self._ended)
            self._current, self._epoch, self._began = phase, epoch, opened
        self._ended = end_seconds

    def medians(self) -> dict[PhaseKey, float]:
        """Seconds of each phase, over all epochs but the first where there are several."""
        self._close(self._ended)
        self._current = None
        return {phase: statistics.median(times[1:] or times) for phase, times in self._seconds.items()}

    def _close(self, now: float) -> None:
        if self._current is not None:
            self._seconds[self._current].append(now - self._began)
