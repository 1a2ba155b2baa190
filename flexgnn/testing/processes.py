"""Running a backend in another process, from the tests' side."""

from __future__ import annotations

import atexit
import functools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flexgnn.core.tier import TierBackend

Told = Mapping[str, Any]

_PATIENCE_SECONDS = 120.0


class OtherProcess:
    """A server in a process of its own, see :mod:`flexgnn.testing.child`; it does one job at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", "from flexgnn.testing.child import serve; serve()"]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=same_imports()
        )
        self._told: queue.Queue[Told] = queue.Queue()
        self._busy = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @contextmanager
    def doing(self, job: str, backend: type[TierBackend], options: Mapping[str, Any], number: int) -> Iterator[int]:
        """Begin ``job`` with a tier opened by ``options``; the id of its process, which is gone on the way out."""
        assert self._server.stdin is not None
        line = {
            "job": job,
            "module": backend.__module__,
            "name": backend.__qualname__,
            "options": dict(options),
            "path": _import_path(),
            "environment": dict(os.environ),
            "number": number,
        }
        self._server.stdin.write(json.dumps(line) + "\n")
        self._server.stdin.flush()
        self._busy = True
        told = self.next()
        assert "process" in told, f"{backend.__name__} can't be opened in another process (see standard error): {told}"
        process = int(told["process"])
        try:
            yield process
        finally:
            if self._busy:
                os.kill(process, signal.SIGKILL)
            while self._busy:
                self.next()

    def next(self, seconds: float = _PATIENCE_SECONDS) -> Told:
        """What the job tells next; :class:`queue.Empty` if that takes longer."""
        told = self._told.get(timeout=seconds)
        if "ended" in told:
            self._busy = False
        return told

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(timeout=_PATIENCE_SECONDS)
        self._listener.join()
        self._server.stdout.close()

    def _listen(self) -> None:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            self._told.put(json.loads(line))
        self._told.put({"ended": "the server"})


@functools.cache
def other_process() -> OtherProcess:
    """The server of this test session."""
    process = OtherProcess()
    atexit.register(process.close)
    return process


def same_imports() -> dict[str, str]:
    """An environment in which another Python finds the modules and plug-ins that this one finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(_import_path())}


def _import_path() -> list[str]:
    return [entry or os.getcwd() for entry in sys.path]
