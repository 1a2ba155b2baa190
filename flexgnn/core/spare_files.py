"""Files that were replaced, kept for a moment to be written over.

A file that is written anew costs the system memory for its pages and blocks on the disk, and giving back those of the
file that it replaces; on Linux, that is most of the time of a buffered write. A run replaces every blob in every epoch,
so the file that a blob leaves is the next one's. Readers that may still have it open are waited for.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

_MOST = 2
"""Spare files at a time: a run writes to a tier with one thread."""


class SpareFiles:
    """Retired files of one directory. Safe to use from several threads."""

    def __init__(self, directory: Path, prefix: str) -> None:
        """``prefix``: of their names."""
        self._directory, self._prefix = directory, prefix
        self._lock = threading.Lock()
        self._clock = itertools.count()
        self._readers: set[int] = set()
        self._spares: deque[tuple[int, Path]] = deque()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """While a file of the directory is read: whatever it holds now is left as it is."""
        with self._lock:
            now = next(self._clock)
            self._readers.add(now)
        try:
            yield
        finally:
            with self._lock:
                self._readers.discard(now)

    def retire(self, path: Path) -> None:
        """Keep the file at ``path``, if there is one, under another name: it is about to be replaced."""
        with self._lock:
            now = next(self._clock)
            if len(self._spares) >= _MOST:
                return
            spare = self._directory / f"{self._prefix}{os.getpid()}-{now}"
            # No file yet, or a file system without hard links.
            with contextlib.suppress(OSError):
                os.link(path, spare)
                self._spares.append((now, spare))

    def reuse(self, path: Path) -> None:
        """Move a spare file to ``path``, if there is one that no one reads any more."""
        with self._lock:
            if self._spares and all(reader > self._spares[0][0] for reader in self._readers):
                _, spare = self._spares.popleft()
                with contextlib.suppress(OSError):
                    os.rename(spare, path)

    def remove(self) -> None:
        """Give back their room."""
        with self._lock:
            while self._spares:
                self._spares.popleft()[1].unlink(missing_ok=True)
