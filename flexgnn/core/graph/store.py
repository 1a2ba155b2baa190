"""Reads a graph store: a graph on disk, in chunks of nodes, with checksums.

Shapes: N nodes, E edges, F features, C classes. Arrays, all in positions (reordered nodes):

==================  ===========  ======================================================================
``features``        [N, F] f32
``labels``          [N] i64      one class a node, -1 for none; [N, C] f32 of zeros and ones if multi-label
``split``           [N] u8       bit flags: 1 training, 2 validation, 4 test
``node_ids``        [N] i64      original id of the node at each position
``in/indptr``       [N + 1] i64  rows are destinations
``in/indices``      [E] i32      sources, ascending in a row; duplicate edges in the order they were given
``in/weights``      [E] f32      only if the graph has edge weights
``out/...``                      the same with rows as sources and indices as destinations
==================  ===========  ======================================================================
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.buffer.cpu import NDBuffer
from zarr.codecs import BytesCodec, Crc32cCodec

from flexgnn.core.errors import StoreError
from flexgnn.core.graph.layout import FORMAT_VERSION, ArrayLayout, GraphInfo, array_layouts
from flexgnn.core.graph.writer import ATTRIBUTES, fingerprint
from flexgnn.core.tier import Array

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["GraphInfo", "GraphStore"]

_CHECKSUM_BYTES = 4


class GraphStore:
    """A graph on disk. Made by :meth:`open` and :meth:`from_pyg`; reading is safe from several threads."""

    path: Path
    """The store's directory."""
    info: GraphInfo
    """Facts about the graph."""
    fingerprint: str
    """A hash of the facts and of every array, made at import."""

    def __init__(self, path: Path, info: GraphInfo, fingerprint: str, arrays: dict[str, zarr.Array[Any]]) -> None:
        self.path = path
        self.info = info
        self.fingerprint = fingerprint
        self._arrays = arrays
        self._layouts = array_layouts(info)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> GraphStore:
        """The store at ``path``. Arrays are checked for completeness now, and for flipped bits when they are read.

        Raises:
            StoreError: if there is no store at ``path``, or it is damaged, or of a newer version.
        """
        directory = Path(path)
        group = _open_group(directory)
        info, found = _read_facts(directory, group)
        arrays = {name: _open_array(directory, group, name, layout) for name, layout in array_layouts(info).items()}
        return cls(directory, info, found, arrays)

    @classmethod
    def from_pyg(
        cls,
        data: Data,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        order: str = "auto",
        chunk_rows: int | None = None,
        class_names: Sequence[str] | None = None,
        overwrite: bool = False,
    ) -> GraphStore:
        """Import a PyG graph into a new store at ``path``; on any failure nothing is left there.

        Args:
            data: ``x`` [N, F], ``edge_index`` [2, E], ``y`` [N], [N, 1] or, for several classes a node, [N, C];
                optionally ``edge_weight`` [E] and ``train_mask``, ``val_mask``, ``test_mask`` [N]. Without any mask,
                labelled nodes are split 60/20/20 under a fixed seed. Other attributes are ignored.
            path: where the store is to be.
            name: what the graph is called; the last part of ``path`` if None.
            order: ``auto``, or one of ``metis``, ``rcm``, ``given``: see :func:`~flexgnn.core.graph.order.node_order`.
            chunk_rows: nodes of a chunk; None: about 64 chunks.
            class_names: one a class; numbers if None.
            overwrite: whether a store at ``path`` may be replaced.

        Raises:
            GraphError: if the graph can't be trained on, or something is at ``path``.
            ConfigError: if ``order`` or ``chunk_rows`` is not accepted.
            StoreError: if the file system refuses.
        """
        # PyG takes seconds to import, and whoever calls this has it already.
        from flexgnn.core.graph.importing import import_pyg

        import_pyg(
            data,
            Path(path),
            name=name,
            order=order,
            chunk_rows=chunk_rows,
            class_names=class_names,
            overwrite=overwrite,
        )
        return cls.open(path)

    def length(self, array: str) -> int:
        """Rows of ``array``: its first dimension.

        Raises:
            KeyError: if the store has no such array.
        """
        return self._layouts[self._stored_name(array)].shape[0]

    def read(self, array: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Rows ``start:stop`` of ``array``, in ``out`` if given, else in a new array.

        ``out`` must be C-contiguous with the array's dtype and exact shape.

        Raises:
            KeyError: if the store has no such array.
            ValueError: if the rows or ``out`` do not fit.
            StoreError: if a chunk is missing or damaged.
        """
        name = self._stored_name(array)
        layout = self._layouts[name]
        if not 0 <= start <= stop <= layout.shape[0]:
            raise ValueError(f"rows {start}:{stop} of {array}, which has {layout.shape[0]}")
        shape = (stop - start, *layout.shape[1:])
        if out is None:
            out = np.empty(shape, dtype=layout.dtype)
        elif out.shape != shape or out.dtype != layout.dtype or not out.flags.c_contiguous:
            raise ValueError(
                f"{array} needs a C-contiguous buffer of {layout.dtype} {shape}, not {out.dtype} {out.shape}"
            )
        # Chunk by chunk: zarr would hold several decoded chunks at once, which counts against small budgets.
        for first in range(start - start % layout.chunk_rows, stop, layout.chunk_rows):
            begin, end = max(first, start), min(first + layout.chunk_rows, stop)
            self._read_within_chunk(name, begin, end, out[begin - start : end - start])
        return out

    def to_pyg(self) -> Data:
        """The graph as it was imported: original node ids, edges sorted by source and then destination.

        Raises:
            StoreError: if a chunk is missing or damaged.
        """
        # PyG takes seconds to import, and training does not need this.
        from flexgnn.core.graph.exporting import export_pyg

        return export_pyg(self)

    def _stored_name(self, array: str) -> str:
        name = "in/" + array.removeprefix("out/") if self.info.symmetric and array.startswith("out/") else array
        if name not in self._arrays:
            raise KeyError(f"{array!r} is not an array of this store; it has {', '.join(self._arrays)}")
        return name

    def _read_within_chunk(self, name: str, start: int, stop: int, out: Array) -> None:
        layout = self._layouts[name]
        # Zarr gives zeros for a missing chunk.
        _check_chunk(self.path, name, layout, start // layout.chunk_rows)
        view: Any = out  # zarr's protocol of arrays is narrower than numpy's annotations
        try:
            self._arrays[name].get_basic_selection(slice(start, stop), out=NDBuffer(view))
        except (ValueError, OSError) as error:
            raise _damaged(self.path, f"array {name} can't be read ({error})") from error


def _open_group(path: Path) -> zarr.Group:
    if not path.exists():
        raise StoreError(f"There is no graph store at {path}: check the path, or make one with GraphStore.from_pyg.")
    if not (path / "zarr.json").is_file():
        raise StoreError(f"{path} is not a graph store: it has no zarr.json.")
    try:
        return zarr.open_group(path, mode="r", zarr_format=3)
    except Exception as error:  # zarr raises whatever a damaged JSON text leads it to
        raise _damaged(path, "its zarr.json can't be read") from error


def _read_facts(path: Path, group: zarr.Group) -> tuple[GraphInfo, str]:
    """The facts and the fingerprint in the attributes."""
    attributes: Any = group.attrs.get(ATTRIBUTES)
    if not isinstance(attributes, dict):
        raise StoreError(f"{path} is a Zarr group, but not a graph store of FlexGNN.")
    version = attributes.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version}, and this FlexGNN reads up to {FORMAT_VERSION}: "
            "install a newer FlexGNN, or import the graph again."
        )
    try:
        info = GraphInfo.from_json(attributes["info"])
        expected = fingerprint(attributes["info"], attributes["digests"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, "its attributes are incomplete") from error
    if version != FORMAT_VERSION or attributes.get("fingerprint") != expected:
        raise _damaged(path, "its attributes were changed")
    return info, expected


def _open_array(path: Path, group: zarr.Group, name: str, layout: ArrayLayout) -> zarr.Array[Any]:
    """Array ``name``, after a check of its metadata and of the number and sizes of its chunk files."""
    try:
        array = group[name]
    except Exception as error:  # zarr raises whatever a damaged JSON text leads it to
        raise _damaged(path, f"array {name} is missing") from error
    if not isinstance(array, zarr.Array) or (array.shape, array.dtype, array.chunks) != (
        layout.shape,
        layout.dtype,
        layout.chunks,
    ):
        raise _damaged(path, f"array {name} is not {layout.dtype} of shape {layout.shape}")
    # A codec is code that runs on what is read: none but those that the writer uses, whoever made the store.
    if array.filters or not isinstance(array.serializer, BytesCodec) or array.compressors != (Crc32cCodec(),):
        raise _damaged(path, f"array {name} is stored with other codecs than FlexGNN uses")
    for chunk in range(layout.num_chunks):
        _check_chunk(path, name, layout, chunk)
    return array


def _check_chunk(path: Path, name: str, layout: ArrayLayout, chunk: int) -> None:
    """Chunks are stored uncompressed and padded, so that every file of an array has the same size."""
    file = path / name / ".".join(["c", str(chunk), *["0"] * (len(layout.shape) - 1)])
    expected_bytes = math.prod(layout.chunks) * layout.dtype.itemsize + _CHECKSUM_BYTES
    try:
        found_bytes = file.stat().st_size
    except OSError as error:
        raise _damaged(path, f"chunk {chunk} of array {name} is missing") from error
    if found_bytes != expected_bytes:
        raise _damaged(path, f"chunk {chunk} of array {name} has {found_bytes} bytes instead of {expected_bytes}")


def _damaged(path: Path, what: str) -> StoreError:
    return StoreError(f"The graph store at {path} is damaged: {what}. Delete it and import the graph again.")
