"""Times small jobs on all threads of a pool at once, as tiles run."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from flexgnn.core.plan.rates import FigureKind
from flexgnn.core.tier import Array

TILE_ROWS = 2048
"""Of the tiles that jobs work on."""

Result = TypeVar("Result")
Job = Callable[[int, int], object]
"""``job(thread, repeat)`` does a thread's part of one repeat."""
Sample = tuple[FigureKind, tuple[int, ...], Array]
"""Some values of a figure."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Runs jobs."""

    pool: ThreadPoolExecutor
    threads: int
    repeats: int

    def seconds(self, job: Job) -> Array:
        """Processor time of the job, the mean of all threads, in each repeat.

        Not wall time, which other processes would add to.
        """

        def timed(thread: int, repeat: int) -> float:
            start = time.thread_time()
            job(thread, repeat)
            return time.thread_time() - start

        return np.array([np.mean(self._on_all(timed, repeat)) for repeat in range(self.repeats)])

    def wall_seconds(self, job: Job) -> Array:
        """From the start of the first thread to the end of the last, in each repeat."""

        def timed(repeat: int) -> float:
            start = time.perf_counter()
            self._on_all(job, repeat)
            return time.perf_counter() - start

        return np.array([timed(repeat) for repeat in range(self.repeats)])

    def once(self, job: Job, *, repeat: int) -> None:
        """Run the job and time nothing."""
        self._on_all(job, repeat)

    def _on_all(self, job: Callable[[int, int], Result], repeat: int) -> list[Result]:
        return list(self.pool.map(job, range(self.threads), [repeat] * self.threads))
