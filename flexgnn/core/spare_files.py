"""Files that were replaced, kept for a moment to be written over.

A file that is written anew costs the system memory for its pages and blocks on the disk, and giving back those of the
file that it replaces; on Linux, that is most of the time of a buffered write. A run replaces every blob in every epoch,
so the file that a blob leaves becomes another's, of about its size: what that is longer costs as much as a new one.
Readers that may still have it open are waited for.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MOST = 16
"""Spare files at a time, to choose the size from."""
_RATIO = 1.5
"""Times its new content that a file may be long, or the other way round. It is not cut: cutting a file that is being
written out waits for the disk."""


@dataclass(frozen=True)
class _Spare:
    retired: int
    path: Path
    size_bytes: int


class SpareFiles:
    """Retired files of one directory. Safe to use from several threads."""

    def __init__(self, directory: Path, prefix: str) -> None:
        """``prefix``: of their names."""
        self._directory, self._prefix = directory, prefix
        self._lock = threading.Lock()
        self._clock = itertools.count()
        self._readers: set[int] = set()
        self._spares: list[_Spare] = []

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
            spare = self._directory / f"{self._prefix}{os.getpid()}-{now}"
            # No file yet, or a file system without hard links.
            with contextlib.suppress(OSError):
                os.link(path, spare)
                self._spares.append(_Spare(now, spare, os.stat(spare).st_size))
            if len(self._spares) > _MOST:
                self._spares.pop(0).path.unlink(missing_ok=True)

    def reuse(self, path: Path, size_bytes: int) -> None:
        """Move a spare file to ``path``, if there is one of about the size that no one reads any more."""
        with self._lock:
            fitting = [
                spare
                for spare in self._spares
                if size_bytes / _RATIO <= spare.size_bytes <= size_bytes * _RATIO
                and all(reader > spare.retired for reader in self._readers)
            ]
            if fitting:
                chosen = min(fitting, key=lambda spare: abs(spare.size_bytes - size_bytes))
                self._spares.remove(chosen)
                with contextlib.suppress(OSError):
                    os.rename(chosen.path, path)

    def remove(self) -> None:
        """Give back their room."""
        with self._lock:
            while self._spares:
                self._spares.pop().path.unlink(missing_ok=True)
