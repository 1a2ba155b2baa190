"""One epoch: the training pass, the optimizer's step, the evaluation, and the record of it all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from flexgnn.core.errors import TrainingError
from flexgnn.core.program.program import Program
from flexgnn.core.runtime.events import EpochRecord
from flexgnn.core.runtime.executor import Executor, Totals
from flexgnn.core.runtime.splits import SplitSizes


@dataclass(frozen=True, kw_only=True)
class _Update:
    """An epoch whose update was made, and that has yet to be evaluated and recorded."""

    totals: Totals
    seconds: float
    moved_bytes: dict[str, int]


class EpochRunner:
    """Runs epochs. Where damage interrupts an evaluation, the update before it is not made again."""

    def __init__(self, optimizer: torch.optim.Optimizer, seed: int) -> None:
        """``seed``: of dropout masks."""
        self._optimizer, self._seed = optimizer, seed
        self._updated: _Update | None = None

    def run(
        self,
        executor: Executor,
        program: Program,
        splits: SplitSizes,
        *,
        epoch: int,
        evaluating: bool,
        before_step: Callable[[], None],
    ) -> EpochRecord:
        """Train, and evaluate if asked to, where that is a pass of its own.

        Args:
            executor: of a plan for ``program``.
            program: the network.
            splits: how many nodes are scored.
            epoch: its number, from 1.
            evaluating: whether to run the evaluation pass; without, such a network gets no scores.
            before_step: called once gradients are complete, before anything is updated.

        Raises:
            TrainingError: if the loss is not finite; nothing was updated.
        """
        if self._updated is None:
            self._updated = self._update(executor, program, epoch, before_step)
        updated = self._updated
        moved_before = executor.movement.moved_bytes
        counted: Totals | None = updated.totals
        if program.evaluates_apart:
            counted = executor.evaluate() if evaluating else None
        moved = _moved_since(moved_before, executor)
        self._updated = None
        return EpochRecord(
            epoch=epoch,
            loss=updated.totals.loss,
            seconds=updated.seconds,
            peak_bytes=executor.peak_bytes,
            moved_bytes={channel: size + moved[channel] for channel, size in updated.moved_bytes.items()},
            **(splits.scores(counted.scores) if counted else {}),
        )

    def _update(self, executor: Executor, program: Program, epoch: int, before_step: Callable[[], None]) -> _Update:
        """The training pass, and the optimizer's step."""
        moved_before = executor.movement.moved_bytes
        start = time.perf_counter()
        self._optimizer.zero_grad()
        totals = executor.train(epoch, self._seed)
        if not math.isfinite(totals.loss):
            raise TrainingError(
                f"The loss is {totals.loss} in epoch {epoch}; its update was not made. Try a lower learning rate."
            )
        before_step()
        totals.moments.update_running(program)
        self._optimizer.step()
        seconds = time.perf_counter() - start
        return _Update(totals=totals, seconds=seconds, moved_bytes=_moved_since(moved_before, executor))


def _moved_since(before: dict[str, int], executor: Executor) -> dict[str, int]:
    return {channel: size - before[channel] for channel, size in executor.movement.moved_bytes.items()}
