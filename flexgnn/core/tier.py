"""What a tier of memory must be able to do: the contract that backends implement.

Two kinds of backend stand behind tiers. A :class:`ComputeBackend` hands out the memory that kernels and
segments work in (RAM on a CPU, device memory on a GPU); the plan divides it. A :class:`TierBackend`
stores tensors below it, as immutable blobs under a key.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class TierOptions:
    """How a :class:`TierBackend` is opened."""

    path: Path
    """An existing, private directory that the tier may fill and need not empty."""


class TierBackend(ABC):
    """Tensors by key on a slower tier.

    A blob is written once by :meth:`put` and read many times; putting again under the same key replaces it
    as a whole. Calls for different keys may come from several threads at once. A key is any text of 1 to
    200 characters; another, or rows that the blob does not have, is a :class:`ValueError`. Arrays are
    C-contiguous, little-endian, of any shape and of a numeric or bool dtype.
    Every failure of the tier itself (full, read-only, damaged) is a :class:`~flexgnn.core.errors.TierError`;
    reading or deleting a key that was never put is a :class:`KeyError`.
    """

    name: ClassVar[str]
    """The name users select the backend by."""

    @classmethod
    @abstractmethod
    def open(cls, options: TierOptions) -> TierBackend:
        """A tier over ``options.path``, with whatever blobs an earlier tier there was left with."""

    @abstractmethod
    def put(self, key: str, array: Array) -> None:
        """Store ``array`` under ``key``. An interrupted put leaves the old blob, or none."""

    @abstractmethod
    def get_rows(self, key: str, start: int, out: Array) -> None:
        """Fill ``out`` with the rows ``start : start + len(out)`` of blob ``key``.

        ``out`` is C-contiguous and has the blob's dtype and trailing shape; else :class:`ValueError`.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Forget ``key`` and give its space back."""

    @abstractmethod
    def keys(self) -> Iterator[str]:
        """The keys stored now."""

    @abstractmethod
    def size_bytes(self, key: str) -> int:
        """Bytes of the tensor stored under ``key``, without the format's own overhead."""

    @abstractmethod
    def flush(self) -> None:
        """Return once everything put before survives a crash of the machine."""

    @abstractmethod
    def close(self) -> None:
        """Release files and memory. Closing twice is allowed; the blobs stay."""

    def get(self, key: str, out: Array) -> None:
        """Fill ``out`` with the whole blob ``key``; its size must match, else :class:`ValueError`."""
        if out.nbytes != self.size_bytes(key):
            raise ValueError(f"{key!r} holds {self.size_bytes(key)} bytes, the buffer {out.nbytes}.")
        self.get_rows(key, 0, out)


class ComputeBackend(ABC):
    """The memory in which steps run."""

    name: ClassVar[str]
    """The name of the tier: ``ram``, ``cuda``."""

    @abstractmethod
    def free_bytes(self) -> int:
        """Bytes this process could use now without pushing anything out."""

    @abstractmethod
    def allocate(self, size_bytes: int) -> Array:
        """A writable buffer of ``size_bytes`` uint8, aligned to 64 bytes, that counts as used once touched."""
