"""Loads and writes on threads of their own, beside the computation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from flexgnn.core.copies import Pending
from flexgnn.core.plan.traffic import STORE, Direction, channel
from flexgnn.core.runtime.events import Listener, TransferFinished


@dataclass(frozen=True, kw_only=True)
class Job:
    """One read or write."""

    key: str
    size_bytes: int
    run: Callable[[], None]
    mark: Pending | None = None
    """What was asked of the compute tier before; it has to be done."""
    after: Future[None] | None = None
    """A write to the same tier that has to have ended."""


class Transfers:
    """For each tier, one thread that reads and one that writes; each does its jobs in the order they were given."""

    def __init__(self, tiers: Sequence[str], listener: Listener, clock_start: float) -> None:
        self._listener, self._clock_start = listener, clock_start
        channels = [channel(STORE, "read")]
        channels += [channel(tier, direction) for tier in tiers for direction in ("read", "write")]
        self._threads = {name: ThreadPoolExecutor(1, thread_name_prefix=f"flexgnn {name}") for name in channels}
        self.moved_bytes = dict.fromkeys(channels, 0)
        """Since the run began. Each channel is counted by one thread only."""

    def submit(self, tier: str, direction: Direction, jobs: Sequence[Job]) -> Future[None]:
        """Run ``jobs`` one after the other. One call for many small ones: to hand over takes longer than such a job."""
        name = channel(tier, direction)
        return self._threads[name].submit(self._run_all, name, jobs)

    def _run_all(self, name: str, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.after is not None:
                job.after.result()
            if job.mark is not None:
                job.mark.synchronize()
            self._run(name, job)

    def _run(self, name: str, job: Job) -> None:
        start = time.perf_counter()
        job.run()
        end = time.perf_counter()
        self.moved_bytes[name] += job.size_bytes
        self._listener(
            TransferFinished(
                channel=name,
                key=job.key,
                size_bytes=job.size_bytes,
                start_seconds=start - self._clock_start,
                end_seconds=end - self._clock_start,
            )
        )

    def close(self) -> None:
        """Drop jobs that have not begun, and wait for those that have."""
        for thread in self._threads.values():
            thread.shutdown(wait=True, cancel_futures=True)
