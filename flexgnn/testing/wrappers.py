"""Tiers around a tier: slow, failing and full ones, to prove planners and recovery right without special disks.

:meth:`WrapperBackend.over` makes a backend of a backend, to be used wherever one is taken::

    slow = ThrottledBackend.over(ArrowBackend, read_bytes_per_second=200e6, latency_seconds=0.001)
    fails_slowly = FailingBackend.over(slow, fail_writes_every=10)
    tier = fails_slowly(TierOptions(location=...))
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from flexgnn.core.blob import flat_bytes
from flexgnn.core.errors import TierError, TierFullError
from flexgnn.core.sizes import format_size
from flexgnn.core.tier import Array, Blob, TierBackend, TierOptions

_DECLARED = ("name", "contract_version", "settings_type", "local", "alignment_bytes")
_LEAST_SLEEP_SECONDS = 0.001


class WrapperBackend(TierBackend):
    """Passes everything on to an inner tier, whose name, settings and place are its own.

    The account is the wrapper's: the inner tier is only asked for its blobs.
    """

    def __init__(self, inner: TierBackend) -> None:
        """Wrap ``inner``, which nobody else should use from then on."""
        vars(self).update(_declared(inner))
        super().__init__(inner.options)
        self.inner = inner

    @classmethod
    def over(cls, backend: type[TierBackend], **how: Any) -> type[TierBackend]:
        """A backend: this wrapper over ``backend``, under its name; ``how`` are the wrapper's own arguments."""

        def open_both(self: WrapperBackend, options: TierOptions) -> None:
            cls.__init__(self, backend(options), **how)

        name = cls.__name__.removesuffix("Backend") + backend.__name__
        return type(name, (cls,), {"__init__": open_both, "__doc__": cls.__doc__, **_declared(backend)})

    def write_blob(self, key: str, array: Array) -> Blob:
        return self.inner.write_blob(key, array)

    def read_blob(self, key: str, blob: Blob, start: int, out: Array) -> None:
        self.inner.read_blob(key, blob, start, out)

    def find_blob(self, key: str) -> Blob:
        return self.inner.find_blob(key)

    def remove_blob(self, key: str) -> None:
        self.inner.remove_blob(key)

    def keys(self) -> Iterator[str]:
        return self.inner.keys()

    def flush(self) -> None:
        self.inner.flush()

    def close(self) -> None:
        self.inner.close()

    @property
    def notice(self) -> str | None:
        return self.inner.notice

    def where(self, key: str) -> str:
        return self.inner.where(key)

    def room_bytes(self) -> int | None:
        return self.inner.room_bytes()


class ThrottledBackend(WrapperBackend):
    """No faster than a given device, which reads one blob at a time, and writes one."""

    def __init__(
        self,
        inner: TierBackend,
        *,
        read_bytes_per_second: float | None = None,
        write_bytes_per_second: float | None = None,
        latency_seconds: float = 0.0,
    ) -> None:
        """Wrap ``inner``.

        Args:
            read_bytes_per_second: of all reading threads together; None: as fast as ``inner``.
            write_bytes_per_second: of all writing threads together.
            latency_seconds: of each call beside its bytes.
        """
        super().__init__(inner)
        self._reading = _Pace(read_bytes_per_second, latency_seconds)
        self._writing = _Pace(write_bytes_per_second, latency_seconds)

    def write_blob(self, key: str, array: Array) -> Blob:
        start = time.perf_counter()
        blob = super().write_blob(key, array)
        self._writing.keep(array.nbytes, start)
        return blob

    def read_blob(self, key: str, blob: Blob, start: int, out: Array) -> None:
        began = time.perf_counter()
        super().read_blob(key, blob, start, out)
        self._reading.keep(out.nbytes, began)

    def find_blob(self, key: str) -> Blob:
        start = time.perf_counter()
        blob = super().find_blob(key)
        self._reading.keep(0, start)
        return blob

    def remove_blob(self, key: str) -> None:
        start = time.perf_counter()
        super().remove_blob(key)
        self._writing.keep(0, start)


class FailingBackend(WrapperBackend):
    """Fails, or damages what it writes, at regular intervals."""

    def __init__(
        self,
        inner: TierBackend,
        *,
        fail_reads_every: int | None = None,
        fail_writes_every: int | None = None,
        tear_writes_every: int | None = None,
    ) -> None:
        """Wrap ``inner``.

        Args:
            fail_reads_every: of so many reads the last raises :class:`~flexgnn.core.errors.TierError`; None: none does.
            fail_writes_every: likewise for writes; the old blob is left.
            tear_writes_every: of so many writes the last seems to succeed, but the second half of its bytes is not what
                was put, as after a power failure: only who keeps checksums can tell.
        """
        super().__init__(inner)
        self._failing_reads = _Every(fail_reads_every)
        self._failing_writes = _Every(fail_writes_every)
        self._torn_writes = _Every(tear_writes_every)

    def write_blob(self, key: str, array: Array) -> Blob:
        if self._failing_writes.due():
            raise TierError(f"The {self.name} tier can't write {self.where(key)}: it was told to fail.")
        return super().write_blob(key, _torn(array) if self._torn_writes.due() else array)

    def read_blob(self, key: str, blob: Blob, start: int, out: Array) -> None:
        if self._failing_reads.due():
            raise TierError(f"The {self.name} tier can't read {self.where(key)}: it was told to fail.")
        super().read_blob(key, blob, start, out)


class FullBackend(WrapperBackend):
    """Has less room than it says: once blobs take a given number of bytes, it is full, as a disk that others use."""

    def __init__(self, inner: TierBackend, *, full_bytes: int) -> None:
        """Wrap ``inner``; a blob with which it would hold more than ``full_bytes`` is refused, and the old one left."""
        super().__init__(inner)
        self._full_bytes = full_bytes
        held = list(inner.keys())
        self._held = {key: inner.find_blob(key).size_bytes for key in held}
        self._held_lock = threading.Lock()

    def write_blob(self, key: str, array: Array) -> Blob:
        with self._held_lock:
            before = self._held.get(key, 0)
            if sum(self._held.values()) - before + array.nbytes > self._full_bytes:
                raise TierFullError(
                    f"The {self.name} tier can't write {self.where(key)}: it was told to be full at "
                    f"{format_size(self._full_bytes)}."
                )
            self._held[key] = array.nbytes
        try:
            return super().write_blob(key, array)
        except BaseException:
            with self._held_lock:
                self._held[key] = before
            raise

    def remove_blob(self, key: str) -> None:
        super().remove_blob(key)
        with self._held_lock:
            self._held.pop(key, None)


class _Pace:
    """Makes one call after the other take its time. Sleeps that end late shorten later ones, so that many are exact."""

    def __init__(self, bytes_per_second: float | None, latency_seconds: float) -> None:
        self._bytes_per_second, self._latency_seconds = bytes_per_second, latency_seconds
        self._owed_seconds = 0.0
        self._lock = threading.Lock()

    def keep(self, size_bytes: int, start: float) -> None:
        """Sleep off what a call that began at ``start`` was too fast by; short times are saved up."""
        due = self._latency_seconds
        if self._bytes_per_second is not None:
            due += size_bytes / self._bytes_per_second
        taken = time.perf_counter() - start
        with self._lock:
            self._owed_seconds += max(0.0, due - taken)
            if self._owed_seconds >= _LEAST_SLEEP_SECONDS:
                asleep = time.perf_counter()
                time.sleep(self._owed_seconds)
                self._owed_seconds -= time.perf_counter() - asleep


class _Every:
    """Counts calls from several threads."""

    def __init__(self, interval: int | None) -> None:
        self._interval, self._calls = interval, 0
        self._lock = threading.Lock()

    def due(self) -> bool:
        """Count a call: whether it is the last of an interval."""
        with self._lock:
            self._calls += 1
            return self._interval is not None and self._calls % self._interval == 0


def _torn(array: Array) -> Array:
    """A copy whose second half is zeros, or ones where it was zeros already."""
    torn = array.copy()
    tail = flat_bytes(torn)[array.nbytes // 2 :]
    tail[:] = np.full(len(tail), 0 if any(tail) else 1, dtype=np.uint8).data
    return torn


def _declared(tier: TierBackend | type[TierBackend]) -> dict[str, Any]:
    """What a backend says of itself."""
    return {name: getattr(tier, name) for name in _DECLARED}
