"""Tells of steps once they are done, which on a device is later than when they were asked for."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from flexgnn.core.compute import Stamp
from flexgnn.core.plan.workload import Step
from flexgnn.core.runtime.events import Listener, StepFinished


@dataclass(frozen=True, kw_only=True)
class AskedStep:
    """A step that was asked for, and its moments."""

    epoch: int
    step: Step
    opened: Stamp
    """When the step before was done."""
    begun: Stamp
    """When everything that it needs was there."""
    ended: Stamp
    live_bytes: int
    """Of the compute tier, in use at its end."""


class StepReports:
    """Steps that are yet to be told of, in their order."""

    def __init__(self, listener: Listener, clock_start: float) -> None:
        self._listener, self._clock_start = listener, clock_start
        self._asked: deque[AskedStep] = deque()

    def add(self, asked: AskedStep) -> None:
        """Tell of ``asked`` once it is done, and now of those before it that are."""
        self._asked.append(asked)
        while self._asked and self._asked[0].ended.passed():
            self._tell()

    def finish(self) -> None:
        """Wait for all, and tell of them."""
        while self._asked:
            self._tell()

    def _tell(self) -> None:
        asked = self._asked.popleft()
        begun, phase = asked.begun.seconds(), asked.step.phase
        self._listener(
            StepFinished(
                epoch=asked.epoch,
                step=asked.step.index,
                phase=phase.kind,
                stage=phase.stage,
                column_slice=phase.column_slice,
                block=asked.step.block,
                wait_seconds=begun - asked.opened.seconds(),
                start_seconds=begun - self._clock_start,
                end_seconds=asked.ended.seconds() - self._clock_start,
                live_bytes=asked.live_bytes,
            )
        )
