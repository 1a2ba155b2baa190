"""Loads and writes on threads of their own, beside the computation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from flexgnn.core.plan.traffic import Channel
from flexgnn.core.runtime.events import Listener, TransferFinished


class Transfers:
    """One thread that reads and one that writes; each does its jobs in the order they were given."""

    def __init__(self, listener: Listener, clock_start: float) -> None:
        self._listener, self._clock_start = listener, clock_start
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="flexgnn-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="flexgnn-write")
        self.moved_bytes: dict[str, int] = {"store read": 0, "tier read": 0, "tier write": 0}
        """Since the run began. Each channel is counted by one thread only."""

    def read(
        self, channel: Channel, key: str, size_bytes: int, job: Callable[[], None], after: Iterable[Future[None]]
    ) -> Future[None]:
        """Run ``job``, which reads ``size_bytes``, once all writes of ``after`` have ended."""
        return self._reader.submit(self._run, channel, key, size_bytes, job, list(after))

    def write(self, key: str, size_bytes: int, job: Callable[[], None]) -> Future[None]:
        """Run ``job``, which writes ``size_bytes``."""
        return self._writer.submit(self._run, "tier write", key, size_bytes, job, [])

    def _run(
        self, channel: Channel, key: str, size_bytes: int, job: Callable[[], None], after: list[Future[None]]
    ) -> None:
        for write in after:
            write.result()
        start = time.perf_counter()
        job()
        end = time.perf_counter()
        self.moved_bytes[channel] += size_bytes
        self._listener(
            TransferFinished(
                channel=channel,
                key=key,
                size_bytes=size_bytes,
                start_seconds=start - self._clock_start,
                end_seconds=end - self._clock_start,
            )
        )

    def close(self) -> None:
        """Drop jobs that have not begun, and wait for those that have."""
        for pool in (self._reader, self._writer):
            pool.shutdown(wait=True, cancel_futures=True)
