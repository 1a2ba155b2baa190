"""Tells when kernels are compiled, which happens on the first run on a machine, whenever one is first called."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import event as numba_event

from flexgnn.core.runtime.events import CompilationFinished, CompilationStarted, Listener

_COMPILATION = "numba:compile"
"""Numba's event: begins and ends on one thread, under a lock; none for a kernel that was found on disk."""

_told: list[Listener] = []


@contextmanager
def telling_of_compilation(listener: Listener) -> Iterator[None]:
    """Tell ``listener`` when the first kernel is compiled meanwhile, and in the end how long all of them took.

    Where nothing is compiled, it hears nothing. One that is told already is told once.
    """
    if listener in _told:
        yield
        return
    watch = _Watch(listener)
    _told.append(listener)
    try:
        with numba_event.install_listener(_COMPILATION, watch):
            yield
    finally:
        _told.remove(listener)
    if watch.kernels:
        listener(CompilationFinished(kernels=watch.kernels, seconds=watch.seconds))


class _Watch(numba_event.Listener):
    """Counts kernels of FlexGNN and their time; functions that are compiled within one belong to it."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._depth, self._began = 0, 0.0
        self.kernels, self.seconds = 0, 0.0

    def on_start(self, event: Any) -> None:
        kernel = event.data["dispatcher"]
        if self._depth == 0:
            if not kernel.py_func.__module__.startswith("flexgnn."):
                return
            if self.kernels == 0:
                self._listener(CompilationStarted(location=kernel.stats.cache_path))
            self._began = time.perf_counter()
        self._depth += 1

    def on_end(self, event: Any) -> None:
        if self._depth == 0:
            return
        self._depth -= 1
        if self._depth == 0:
            self.kernels += 1
            self.seconds += time.perf_counter() - self._began
