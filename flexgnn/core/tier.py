"""What a storage tier must be able to do: the contract that backends implement.

A :class:`TierBackend` stores tensors below the compute tier (``compute.py``), as immutable blobs under a key.
"""

from __future__ import annotations

import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from flexgnn.core.blob import Array, Blob, check_key, check_rows, storable
from flexgnn.core.errors import DamagedBlobError, TierError, TierFullError
from flexgnn.core.settings import NoSettings, parse_settings
from flexgnn.core.sizes import format_size

__all__ = ["CONTRACT_VERSION", "Array", "Blob", "TierBackend", "TierOptions"]

CONTRACT_VERSION = 1
"""Of :class:`TierBackend`. It grows when backends have to be changed to go on working."""


@dataclass(frozen=True, kw_only=True)
class TierOptions:
    """Where and how a :class:`TierBackend` is opened."""

    location: str
    """A place of the tier's own, which it may fill and need not find empty. For a backend on this machine an existing,
    private directory; for another what the user named, such as a URL, with a name appended that no one can guess."""
    capacity_bytes: int | None = None
    """The most that blobs may take; None: as much as there is room for."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """By name of a field of the backend's ``settings_type``."""


class TierBackend(ABC):
    """Tensors by key on a slower tier.

    Users of a tier call :meth:`put`, :meth:`get`, :meth:`get_rows`, :meth:`delete` and the like, which check what they
    are given and keep the account. Backends implement the seven abstract methods; those are called with checked
    arguments only, for different keys from several threads at once, and for one key never while it is written or
    removed.

    A blob is written once and read many times; putting again under the same key replaces it as a whole. A key is any
    text of 1 to 200 characters, lone surrogates included. Arrays are C-contiguous, little-endian, of any shape and of a
    numeric or bool dtype.

    Every failure of the tier itself is a :class:`~flexgnn.core.errors.TierError`: no room left is a
    :class:`~flexgnn.core.errors.TierFullError`, content that was not put there a
    :class:`~flexgnn.core.errors.DamagedBlobError`. A key that was never put is a :class:`KeyError`; a key, array,
    buffer or rows that don't fit are a :class:`ValueError`.
    """

    name: ClassVar[str]
    """The name users select the backend by."""
    contract_version: ClassVar[int]
    """The :data:`CONTRACT_VERSION` that the backend was written for, as a number."""
    settings_type: ClassVar[type] = NoSettings
    """A frozen dataclass: what users can set, with defaults. Its docstrings are the help."""
    durable: ClassVar[bool] = True
    """Whether blobs outlive the process that put them, for a tier that is opened again over the same location."""
    local: ClassVar[bool] = True
    """Whether blobs are in a directory of this machine. If not, users name a location of the backend's own kind."""
    alignment_bytes: ClassVar[int] = 1
    """Buffers that begin at multiples of it save the backend a copy."""

    def __init__(self, options: TierOptions) -> None:
        """Open the tier, with whatever blobs an earlier one at ``options.location`` was left with.

        Raises:
            ConfigError: if a setting is not accepted. TierError: if the location can't be used.
        """
        self.options = options
        self.settings: Any = parse_settings(self.name, self.settings_type, options.settings)
        self._blobs: dict[str, Blob] = {}
        self._sizes: dict[str, int] | None = None
        self._used_bytes = self._peak_bytes = 0
        self._account_lock = threading.Lock()

    # What backends implement

    @abstractmethod
    def write_blob(self, key: str, array: Array) -> Blob:
        """Store ``array`` under ``key`` in place of what is there.

        If interrupted at any point, the old blob is left, or none, and never another.

        Returns:
            What :meth:`find_blob` will return for it.
        """

    @abstractmethod
    def read_blob(self, key: str, blob: Blob, start: int, out: Array) -> None:
        """Fill ``out``, C-contiguous, with the rows ``start : start + len(out)``, without a copy of them elsewhere.

        Args:
            blob: what :meth:`write_blob` or :meth:`find_blob` returned for ``key``; ``out`` fits it.
        """

    @abstractmethod
    def find_blob(self, key: str) -> Blob:
        """What is stored under ``key``; :class:`KeyError` if nothing is. The answer is kept until the blob changes."""

    @abstractmethod
    def remove_blob(self, key: str) -> None:
        """Forget ``key`` and give its space back; :class:`KeyError` if nothing is stored under it."""

    @abstractmethod
    def keys(self) -> Iterator[str]:
        """The keys stored now."""

    @abstractmethod
    def flush(self) -> None:
        """Return once everything put before survives a crash of the machine, if anything can."""

    @abstractmethod
    def close(self) -> None:
        """Release files and memory. Closing twice is allowed; the blobs stay."""

    # What backends may override

    @property
    def notice(self) -> str | None:
        """Something that the user should know of how the tier works here, in a sentence."""
        return None

    def where(self, key: str) -> str:
        """Where the blob is, as people find it: a file, an address."""
        return f"{key!r} in {self.options.location}"

    def room_bytes(self) -> int | None:
        """Bytes that the place of the tier has left, whatever the capacity; None: without limit."""
        return shutil.disk_usage(self.options.location).free if self.local else None

    def remove_all(self) -> None:
        """Forget all keys, and give their space back."""
        for key in list(self.keys()):
            self.remove_blob(key)

    # What users of a tier call

    def put(self, key: str, array: Array) -> None:
        """Store ``array`` under ``key``, replacing what is there. An interrupted put leaves the old blob, or none.

        Raises:
            TierFullError: if it would exceed the capacity; the old blob is left then.
        """
        check_key(key)
        array = storable(array)
        with self._accounted(key, array.nbytes):
            self._blobs.pop(key, None)
            self._blobs[key] = self.write_blob(key, array)

    def get(self, key: str, out: Array) -> None:
        """Fill ``out`` with the whole blob ``key``; its shape must match, else :class:`ValueError`."""
        blob = self.blob(key)
        if out.shape != blob.shape:
            raise ValueError(f"{key!r} holds {blob.dtype} {blob.shape}, the buffer is {out.dtype} {out.shape}.")
        self.get_rows(key, 0, out)

    def get_rows(self, key: str, start: int, out: Array) -> None:
        """Fill ``out`` with the rows ``start : start + len(out)`` of blob ``key``.

        ``out`` is C-contiguous and has the blob's dtype and trailing shape; else :class:`ValueError`.
        """
        blob = self.blob(key)
        check_rows(key, blob, start, out)
        self.read_blob(key, blob, start, out)

    def delete(self, key: str) -> None:
        """Forget ``key`` and give its space back."""
        check_key(key)
        self.remove_blob(key)
        self._blobs.pop(key, None)
        with self._account_lock:
            if self._sizes is not None:
                self._used_bytes -= self._sizes.pop(key, 0)

    def clear(self) -> None:
        """Delete all blobs."""
        self.remove_all()
        with self._account_lock:
            self._blobs.clear()
            self._sizes, self._used_bytes = {}, 0

    def blob(self, key: str) -> Blob:
        """Type and shape of the tensor under ``key``."""
        blob = self._blobs.get(key)
        if blob is None:
            check_key(key)
            blob = self._blobs[key] = self.find_blob(key)
        return blob

    def size_bytes(self, key: str) -> int:
        """Bytes of the tensor stored under ``key``, without the format's own overhead."""
        return self.blob(key).size_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes of all blobs, without the format's own overhead."""
        with self._account_lock:
            self._known_sizes()
            return self._used_bytes

    @property
    def peak_bytes(self) -> int:
        """The most of :attr:`used_bytes` since the tier was opened."""
        with self._account_lock:
            self._known_sizes()
            return self._peak_bytes

    def _known_sizes(self) -> dict[str, int]:
        """The account, opened with what is there; the lock is held."""
        if self._sizes is None:
            self._sizes = {key: self._found_bytes(key) for key in self.keys()}
            self._used_bytes = self._peak_bytes = sum(self._sizes.values())
        return self._sizes

    @contextmanager
    def _accounted(self, key: str, size_bytes: int) -> Iterator[None]:
        """Take ``size_bytes`` in place of what ``key`` took; undone if what follows fails."""
        capacity = self.options.capacity_bytes
        with self._account_lock:
            sizes = self._known_sizes()
            before = sizes.get(key, 0)
            used = self._used_bytes - before + size_bytes
            if capacity is not None and used > capacity:
                raise TierFullError(
                    f"{key!r} of {format_size(size_bytes)} does not fit the {self.name} tier: {format_size(used)} "
                    f"would be in use of a capacity of {format_size(capacity)}."
                )
            sizes[key] = size_bytes
            self._used_bytes = used
            self._peak_bytes = max(self._peak_bytes, used)
        try:
            yield
        except BaseException:
            left = self._found_bytes(key, otherwise=before)
            with self._account_lock:
                self._used_bytes += left - size_bytes
                sizes[key] = left  # 0 where nothing is: that adds up
            raise

    def _found_bytes(self, key: str, otherwise: int = 0) -> int:
        """Bytes of what is stored under ``key``, damaged blobs aside; ``otherwise`` where the tier can't tell."""
        try:
            return self.find_blob(key).size_bytes
        except (KeyError, DamagedBlobError):
            return 0
        except TierError:
            return otherwise
