"""Commands that run beside a test."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def running(command: Sequence[object], *, stdout: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    """``command`` in a process of its own, which doesn't outlive the test, however that ends."""
    with subprocess.Popen([*map(str, command)], stdout=stdout, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(happened: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until ``happened`` returns something true, while ``process`` runs; at most a minute."""
    deadline = time.monotonic() + 60
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
