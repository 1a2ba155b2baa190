from __future__ import annotations

import threading
import time

import pytest

from flexgnn.core.runtime.events import Event, TransferFinished
from flexgnn.core.runtime.transfers import Job, Transfers


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def transfers(events: list[Event]) -> Transfers:
    return Transfers(["disk"], events.append, time.perf_counter())


def test_jobs_that_are_handed_over_together_run_in_order_and_are_reported_one_by_one(
    transfers: Transfers, events: list[Event]
) -> None:
    done: list[str] = []
    jobs = [Job(key=key, size_bytes=10, run=lambda key=key: done.append(key)) for key in "abc"]  # type: ignore[misc]
    transfers.submit("disk", "read", jobs).result()
    transfers.close()
    assert done == ["a", "b", "c"]
    finished = [event for event in events if isinstance(event, TransferFinished)]
    assert [(event.channel, event.key, event.size_bytes) for event in finished] == [
        ("disk read", key, 10) for key in "abc"
    ]
    assert transfers.moved_bytes["disk read"] == 30


def test_a_job_waits_for_the_write_before_it(transfers: Transfers) -> None:
    release, done = threading.Event(), list[str]()

    def write() -> None:
        release.wait(10)
        done.append("write")

    written = transfers.submit("disk", "write", [Job(key="x", size_bytes=1, run=write)])
    read = transfers.submit(
        "disk", "read", [Job(key="x", size_bytes=1, run=lambda: done.append("read"), after=written)]
    )
    assert not read.done()
    release.set()
    read.result()
    transfers.close()
    assert done == ["write", "read"]


class Asked:
    """Something that was asked of a compute tier, and is done when it is released."""

    def __init__(self) -> None:
        self.done = threading.Event()

    def synchronize(self) -> None:
        assert self.done.wait(10)


def test_a_job_waits_for_what_was_asked_of_the_compute_tier_and_counts_no_time_of_it(
    transfers: Transfers, events: list[Event]
) -> None:
    asked = Asked()
    moved = transfers.submit("disk", "read", [Job(key="x", size_bytes=1, run=lambda: None, mark=asked)])
    time.sleep(0.2)
    assert not moved.done()
    asked.done.set()
    moved.result()
    transfers.close()
    (finished,) = events
    assert isinstance(finished, TransferFinished)
    assert finished.end_seconds - finished.start_seconds < 0.1


def test_what_a_job_raises_reaches_who_waits_and_ends_the_others(transfers: Transfers) -> None:
    def fail() -> None:
        raise OSError("no disk")

    done: list[str] = []
    jobs = [Job(key="x", size_bytes=1, run=fail), Job(key="y", size_bytes=1, run=lambda: done.append("y"))]
    with pytest.raises(OSError, match="no disk"):
        transfers.submit("disk", "read", jobs).result()
    transfers.close()
    assert done == []
    assert transfers.moved_bytes["disk read"] == 0
