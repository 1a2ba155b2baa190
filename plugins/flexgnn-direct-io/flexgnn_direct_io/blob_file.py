"""An open file that is read and written past the page cache, where that is possible."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from flexgnn.core.tier import Array
from flexgnn_direct_io.access import BUFFERED, Access, bypass_page_cache


class BlobFile:
    """A file of a blob. Each call moves as much as the system takes at once, without holding Python's lock.

    Where the file system refuses direct access after all, calls go on through the page cache; :attr:`access` tells.
    """

    def __init__(self, path: Path, flags: int, access: Access) -> None:
        self._file = os.open(path, flags, 0o600)
        self.access = access
        if access.direct:
            try:
                bypass_page_cache(self._file, True)
            except OSError as error:
                self._go_on_buffered(error)

    def __enter__(self) -> BlobFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return os.fstat(self._file).st_size

    def write(self, parts: Sequence[Array], offset: int) -> None:
        """Write ``parts``, one behind the other; :class:`OSError` if the disk fails or is full."""
        while parts:
            count = self._call(os.pwritev, parts, offset)
            parts, offset = _behind(parts, count), offset + count

    def read(self, parts: Sequence[Array], offset: int) -> int:
        """Fill ``parts``, one behind the other, until the file ends. Returns the bytes read."""
        begin = offset
        while parts:
            count = self._call(os.preadv, parts, offset)
            parts, offset = _behind(parts, count), offset + count
            if count == 0 or count % self.access.block_bytes:  # only where the file ends
                break
        return offset - begin

    def _call(self, call: Callable[[int, Sequence[memoryview], int], int], parts: Sequence[Array], offset: int) -> int:
        views = [part.data for part in parts]
        try:
            return call(self._file, views, offset)
        except OSError as error:
            self._go_on_buffered(error)
            return call(self._file, views, offset)

    def _go_on_buffered(self, error: OSError) -> None:
        """Switch to the page cache if ``error`` says that direct access is impossible; else raise it."""
        if error.errno != errno.EINVAL or not self.access.direct:
            raise error
        bypass_page_cache(self._file, False)
        self.access = BUFFERED


def _behind(parts: Sequence[Array], count: int) -> list[Array]:
    """What is left of ``parts`` behind their first ``count`` bytes."""
    left = []
    for part in parts:
        if count < len(part):
            left.append(part[count:])
        count = max(0, count - len(part))
    return left
