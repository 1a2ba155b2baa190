"""How rows get between storage tiers and the compute tier.

Everything is asked for on the thread that computes; it is done by the threads that move (``runtime/transfers.py``).
A compute tier may run behind the thread that feeds it, as a GPU does: before a thread moves anything, it waits for what
was asked of the compute tier until then (:meth:`Copies.mark`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from threading import local
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from flexgnn.core.blob import Array, Blob
from flexgnn.core.program.bfloat16 import stored_array

PIECE_BYTES = 4 * 2**20
"""Rows come in through host memory in pieces of so many bytes: one is filled while the one before is copied."""


class RowSource(Protocol):
    """Rows that are somewhere below the compute tier."""

    def read(self, start: int, out: Array) -> None:
        """Fill ``out`` with rows, from number ``start`` of those that were asked for on."""

    def lend(self, num_rows: int) -> Array | None:
        """The rows' own memory where they are in host memory, valid until they are written again; else None."""


class BlobSink(Protocol):
    """A place for a blob below the compute tier."""

    def write(self, array: Array) -> None:
        """Put ``array`` there."""

    def fill(self, blob: Blob) -> AbstractContextManager[Array] | None:
        """Memory to fill where the place is in host memory: what is in it on the way out is there then; else None."""


class Pending(Protocol):
    """Something that was begun."""

    def synchronize(self) -> None:
        """Return once it has ended."""


class Copies(ABC):
    """The way in and out of one compute tier."""

    def mark(self) -> Pending | None:
        """All that was asked of the compute tier so far; None: that is done."""
        return None

    @abstractmethod
    def into(self, out: Tensor, source: RowSource) -> Callable[[], None]:
        """What is to be run, once, to fill ``out`` with the rows of ``source``. They are there when it returns."""

    @abstractmethod
    def out_of(self, rows: Tensor, sink: BlobSink) -> Callable[[], None]:
        """What is to be run, once, to put ``rows`` into ``sink``. They may be written over when it returns."""


class DirectCopies(Copies):
    """A compute tier in host memory, which storage tiers read into and write from."""

    def into(self, out: Tensor, source: RowSource) -> Callable[[], None]:
        array = stored_array(out)
        return lambda: source.read(0, array)

    def out_of(self, rows: Tensor, sink: BlobSink) -> Callable[[], None]:
        array = stored_array(rows)
        return lambda: sink.write(array)


class StagedCopies(Copies):
    """A compute tier apart from host memory: bytes are copied from and to buffers that subclasses make.

    Each thread that moves has buffers of its own: two pieces to read through, and one as large as the largest blob that
    it has written.
    """

    def __init__(self) -> None:
        self._buffers = local()

    @abstractmethod
    def new_buffer(self, size_bytes: int) -> Tensor:
        """``size_bytes`` uint8 in host memory from which the compute tier can be filled fast."""

    @abstractmethod
    def begin(self, target: Tensor, source: Tensor) -> Pending:
        """Begin a copy; one of both is in the compute tier."""

    def into(self, out: Tensor, source: RowSource) -> Callable[[], None]:
        def run() -> None:
            lent = source.lend(len(out))
            if lent is not None:
                self.begin(out, host_tensor(lent, out.dtype)).synchronize()
                return
            under_way: list[Pending] = []
            for number, (start, stop) in enumerate(_pieces(out)):
                if number >= 2:
                    under_way[number - 2].synchronize()
                part = out[start:stop]
                staged = self._staged(f"in {number % 2}", part, max(PIECE_BYTES, part.nbytes))
                source.read(start, stored_array(staged))
                under_way.append(self.begin(part, staged))
            for copy in under_way[-2:]:
                copy.synchronize()

        return run

    def out_of(self, rows: Tensor, sink: BlobSink) -> Callable[[], None]:
        def run() -> None:
            place = sink.fill(Blob(_numpy_dtype(rows), tuple(rows.shape)))
            if place is not None:
                with place as array:
                    self.begin(host_tensor(array, rows.dtype), rows).synchronize()
                return
            staged = self._staged("out", rows, rows.nbytes)
            self.begin(staged, rows).synchronize()
            sink.write(stored_array(staged))

        return run

    def _staged(self, purpose: str, like: Tensor, size_bytes: int) -> Tensor:
        """A buffer of this thread, shaped as ``like``; it grows to ``size_bytes`` where it is smaller."""
        buffers: dict[str, Tensor] = self._buffers.__dict__
        if purpose not in buffers or buffers[purpose].nbytes < size_bytes:
            buffers.pop(purpose, None)
            buffers[purpose] = self.new_buffer(size_bytes)
        return buffers[purpose][: like.nbytes].view(like.dtype).view(like.shape)


def host_tensor(array: Array, dtype: torch.dtype) -> Tensor:
    """The memory of ``array`` as a tensor of ``dtype``, of the same size."""
    return torch.from_numpy(array.reshape(-1).view(np.uint8)).view(dtype).view(array.shape)


def _numpy_dtype(tensor: Tensor) -> np.dtype[Any]:
    return stored_array(torch.empty(0, dtype=tensor.dtype)).dtype


def _pieces(rows: Tensor) -> Iterator[tuple[int, int]]:
    """Ranges of rows of about :data:`PIECE_BYTES`, one row at least."""
    row_bytes = max(1, rows[:1].nbytes)
    step = max(1, PIECE_BYTES // row_bytes)
    for start in range(0, len(rows), step):
        yield start, min(start + step, len(rows))
