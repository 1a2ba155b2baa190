"""Checksums of what a run wrote, kept in memory, so that other bytes than those are noticed when they are read.

They are kept by groups of rows, since halos read a part of a blob: 8 bytes for about 256 KiB. As they are not stored
with the blobs, a write that was lost, and an old blob in place of a new one, are noticed too.
"""

from __future__ import annotations

from threading import Lock

import numpy as np
from xxhash import xxh3_64, xxh3_64_intdigest

from flexgnn.core.blob import Array, flat_bytes
from flexgnn.core.errors import DamagedBlobError
from flexgnn.core.tier import TierBackend

_GROUP_BYTES = 2**18


class Checksums:
    """XXH3 (64 bits) of the blobs on one tier. Several threads may use it for different keys."""

    def __init__(self, tier: TierBackend, name: str) -> None:
        self._tier, self._name = tier, name
        self._digests: dict[str, list[int]] = {}
        self._lock = Lock()

    def remember(self, key: str, array: Array) -> None:
        """Keep the checksums of what is about to be put under ``key``."""
        content = flat_bytes(np.ascontiguousarray(array))
        size = _group_rows(array) * _row_bytes(array)
        digests = [xxh3_64_intdigest(content[begin : begin + size]) for begin in range(0, len(content), size)]
        with self._lock:
            self._digests[key] = digests

    def check(self, key: str, start: int, out: Array) -> None:
        """Compare rows that were read with what was put; groups that they cut are completed by reading.

        Raises:
            DamagedBlobError: if they differ.
        """
        with self._lock:
            digests = self._digests[key]
        if out.nbytes == 0:
            return
        content, row_bytes, size = flat_bytes(out), _row_bytes(out), _group_rows(out)
        stop, num_rows = start + len(content) // row_bytes, self._tier.blob(key).num_rows
        for group in range(start // size, -(-stop // size)):
            first, last = group * size, min((group + 1) * size, num_rows)
            begin, end = max(first, start), min(last, stop)
            digest = xxh3_64(self._rows(key, first, begin, out))
            digest.update(content[(begin - start) * row_bytes : (end - start) * row_bytes])
            digest.update(self._rows(key, end, last, out))
            if digest.intdigest() != digests[group]:
                raise DamagedBlobError(
                    f"Tensor {key!r} on the tier {self._name} ({self._tier.where(key)}) is damaged: rows {first} to "
                    f"{last} are not what was written there. Check the disk, or name another with --ssd-path or --tier."
                )

    def _rows(self, key: str, start: int, stop: int, like: Array) -> memoryview:
        """The bytes of rows that were not asked for, from the tier."""
        rows = np.empty((stop - start, *like.shape[1:]), dtype=like.dtype)
        if len(rows):
            self._tier.get_rows(key, start, rows)
        return flat_bytes(rows)


def _row_bytes(array: Array) -> int:
    return max(1, array.nbytes // (len(array) or 1) if array.ndim else array.nbytes)


def _group_rows(array: Array) -> int:
    return max(1, _GROUP_BYTES // _row_bytes(array))
