"""Folded arrays: aggregated features, computed by the first run that reads them and kept for all later ones.

An array is kept in ``folded/`` in the directory of its graph's store or, where that can't be written, in the cache
directory. Its name there is a hash of what it was made from, so that it is never read for another graph.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock

from flexgnn.core.cache import cache_directory
from flexgnn.core.errors import StoreError
from flexgnn.core.graph.array_writer import ArrayWriter
from flexgnn.core.graph.layout import ArrayLayout
from flexgnn.core.graph.staging import staged_directory
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.graph.stored_array import StoredArray

_FOLDED = "folded"
_VERSION = 1
"""Of what is computed under a name."""


class FoldedArray:
    """One array of aggregated features, N x D float32: finds it, or has it written."""

    def __init__(self, store: GraphStore, name: str, width: int) -> None:
        """Of the graph in ``store``; ``name`` says how the features were aggregated, ``width`` is D."""
        info = store.info
        self._store, self._name = store, name
        # One chunk holds the rows that a tile makes.
        rows = min(info.chunk_rows, info.num_nodes)
        self._layout = ArrayLayout(shape=(info.num_nodes, width), dtype=np.dtype("<f4"), chunk_rows=rows)
        text = f"{_VERSION} {store.fingerprint} {name} {width}"
        self._key = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        self._folders = (store.path / _FOLDED, cache_directory() / _FOLDED)

    @property
    def size_bytes(self) -> int:
        return int(np.prod(self._layout.shape)) * self._layout.dtype.itemsize

    def find(self) -> StoredArray | None:
        """The array, checked for completeness; None if there is none, or only a damaged one."""
        for folder in self._folders:
            try:
                return self._open(folder / self._key)
            except StoreError:
                continue
        return None

    def folder(self) -> Path | None:
        """Where it can be written: the first folder that may be, with room for it; None: nowhere."""
        for folder in self._folders:
            parent = next(path for path in (folder, *folder.parents) if path.exists())
            if os.access(parent, os.W_OK | os.X_OK) and shutil.disk_usage(parent).free > self.size_bytes:
                return folder
        return None

    @property
    def places(self) -> str:
        """All folders that it may be in, for messages."""
        return " nor ".join(map(str, self._folders))

    @contextmanager
    def written_in(self, folder: Path) -> Iterator[ArrayWriter | None]:
        """A writer whose array appears in ``folder`` when the block ends well, and otherwise leaves nothing there.

        None if another process has just written it: this one waited.

        Raises:
            StoreError: if the file system refuses.
        """
        path = folder / self._key
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if self.find() is not None:
                    yield None
                    return
                # What a process left behind that was killed; the lock says that it is gone.
                for leftover in (path, *folder.glob(f".{self._key}.*.tmp")):
                    shutil.rmtree(leftover, ignore_errors=True)
                with staged_directory(path, overwrite=False) as staging, ThreadPoolExecutor(max_workers=1) as pool:
                    yield ArrayWriter(staging, self._layout, pool)
        except OSError as error:
            raise StoreError(f"Could not write {path}: {error.strerror or error}.") from error

    def _open(self, path: Path) -> StoredArray:
        def damaged(what: str) -> StoreError:
            return StoreError(
                f"The aggregated features at {path} are damaged: {what}. Delete them: they are computed again."
            )

        return StoredArray.open(self._name, path, self._layout, damaged)
