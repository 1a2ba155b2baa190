"""Loads and writes on threads of their own, beside the computation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from flexgnn.core.plan.traffic import STORE, Direction, channel
from flexgnn.core.runtime.events import Listener, TransferFinished


class Transfers:
    """For each tier, one thread that reads and one that writes; each does its jobs in the order they were given."""

    def __init__(self, tiers: Sequence[str], listener: Listener, clock_start: float) -> None:
        self._listener, self._clock_start = listener, clock_start
        channels = [channel(STORE, "read")]
        channels += [channel(tier, direction) for tier in tiers for direction in ("read", "write")]
        self._threads = {name: ThreadPoolExecutor(1, thread_name_prefix=f"flexgnn {name}") for name in channels}
        self.moved_bytes = dict.fromkeys(channels, 0)
        """Since the run began. Each channel is counted by one thread only."""

    def submit(
        self,
        tier: str,
        direction: Direction,
        key: str,
        size_bytes: int,
        job: Callable[[], None],
        after: Iterable[Future[None]] = (),
    ) -> Future[None]:
        """Run ``job``, which moves ``size_bytes``, once all of ``after``, writes of the same tier, have ended."""
        name = channel(tier, direction)
        return self._threads[name].submit(self._run, name, key, size_bytes, job, list(after))

    def _run(self, name: str, key: str, size_bytes: int, job: Callable[[], None], after: list[Future[None]]) -> None:
        for write in after:
            write.result()
        start = time.perf_counter()
        job()
        end = time.perf_counter()
        self.moved_bytes[name] += size_bytes
        self._listener(
            TransferFinished(
                channel=name,
                key=key,
                size_bytes=size_bytes,
                start_seconds=start - self._clock_start,
                end_seconds=end - self._clock_start,
            )
        )

    def close(self) -> None:
        """Drop jobs that have not begun, and wait for those that have."""
        for thread in self._threads.values():
            thread.shutdown(wait=True, cancel_futures=True)
