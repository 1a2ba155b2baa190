"""Writes a graph store, as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import zarr

from flexgnn.core.graph.layout import FORMAT_VERSION, ArrayLayout, GraphInfo, array_layouts
from flexgnn.core.graph.staging import staged_directory
from flexgnn.core.graph.stored_array import array_settings
from flexgnn.core.tier import Array

P = ParamSpec("P")
R = TypeVar("R")

ATTRIBUTES = "flexgnn"
"""Key of FlexGNN's group attributes."""


class StoreWriter:
    """Fills the arrays of one store. Made by :func:`writing_store`."""

    def __init__(self, directory: Path, info: GraphInfo, pool: ThreadPoolExecutor) -> None:
        self._info = info
        self._layouts = array_layouts(info)
        self._pool = pool
        self._group = self._finished(zarr.create_group, directory, zarr_format=3)
        self._digests: dict[str, str] = {}

    def write(self, name: str, blocks: Iterable[Array]) -> None:
        """Write array ``name`` from consecutive blocks of rows, each of any length; blocks are cast to its dtype.

        Raises:
            ValueError: if the blocks hold more or fewer rows than ``info`` says.
        """
        layout = self._layouts[name]
        array = self._create(name, layout)
        digest = hashlib.blake2b(digest_size=16)
        start = 0
        for chunk in _rechunked(blocks, layout):
            digest.update(chunk.data)
            self._finished(array.__setitem__, slice(start, start + len(chunk)), chunk)
            start += len(chunk)
        if start != layout.shape[0]:
            raise ValueError(f"{name} was given {start} rows instead of {layout.shape[0]}.")
        self._digests[name] = digest.hexdigest()

    def finish(self) -> None:
        """Write the attributes, without which nothing opens as a store.

        Raises:
            ValueError: if an array was not written.
        """
        if missing := self._layouts.keys() - self._digests.keys():
            raise ValueError(f"never written: {sorted(missing)}")
        facts = self._info.to_json()
        attributes: Any = {
            "version": FORMAT_VERSION,
            "info": facts,
            "digests": self._digests,
            "fingerprint": fingerprint(facts, self._digests),
        }
        self._finished(self._group.attrs.put, {ATTRIBUTES: attributes})

    def _finished(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The result of ``call``, made on the pool.

        Zarr goes on writing behind a call that Ctrl-C interrupts; leaving the pool waits for that to end, so that
        nothing is written after the directory is removed.
        """
        return self._pool.submit(call, *args, **kwargs).result()

    def _create(self, name: str, layout: ArrayLayout) -> zarr.Array[Any]:
        return self._finished(self._group.create_array, name, **array_settings(layout))


@contextmanager
def writing_store(path: Path, info: GraphInfo, *, overwrite: bool) -> Iterator[StoreWriter]:
    """A writer whose store appears at ``path`` when the block ends well; otherwise nothing is left.

    Raises:
        GraphError: if something is at ``path`` that may not be replaced.
        StoreError: if the file system refuses.
    """
    with staged_directory(path, overwrite=overwrite) as staging, ThreadPoolExecutor(max_workers=1) as pool:
        writer = StoreWriter(staging, info, pool)
        yield writer
        writer.finish()


def fingerprint(facts: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """A hash of a graph's facts and of the contents of its arrays, in hexadecimal."""
    text = json.dumps([facts, digests], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _rechunked(blocks: Iterable[Array], layout: ArrayLayout) -> Iterator[Array]:
    """The rows of ``blocks`` in the dtype and chunks of ``layout``; the buffer is used again for every chunk."""
    buffer = np.empty(layout.chunks, dtype=layout.dtype)
    filled = 0
    for block in blocks:
        start = 0
        while start < len(block):
            count = min(len(buffer) - filled, len(block) - start)
            buffer[filled : filled + count] = block[start : start + count]
            start += count
            filled += count
            if filled == len(buffer):
                yield buffer
                filled = 0
    if filled:
        yield buffer[:filled]
