"""Reads a graph store: a graph on disk, in chunks of nodes, with checksums.

Shapes: N nodes, E edges, F features, C classes, P pairs of nodes. Arrays, all in positions (reordered nodes):

==================  ===========  ======================================================================
``features``        [N, F] f32
``labels``          [N] i64      one class a node, -1 for none; [N, C] f32 of zeros and ones if multi-label,
                                 of any numbers for regression
``split``           [N] u8       bit flags: 1 training, 2 validation, 4 test
``node_ids``        [N] i64      original id of the node at each position
``in/indptr``       [N + 1] i64  rows are destinations
``in/indices``      [E] i32      sources, ascending in a row; duplicate edges in the order they were given
``in/weights``      [E] f32      only if the graph has edge weights
``out/...``                      the same with rows as sources and indices as destinations
``folded/...``      [N, F] f32   aggregated features, made by the first run that reads them
``pairs/indptr``    [N + 1] i64  where links are predicted, and in place of labels and split: rows are destinations
``pairs/indices``   [P] i32      sources, as in ``in/indices``
``pairs/types``     [P] i32      bit flags: those of ``split``, and 8 for what is linked
==================  ===========  ======================================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr

from flexgnn.core.errors import StoreError
from flexgnn.core.graph.layout import FORMAT_VERSION, GraphInfo, array_layouts
from flexgnn.core.graph.stored_array import StoredArray
from flexgnn.core.graph.writer import ATTRIBUTES, fingerprint
from flexgnn.core.tier import Array

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from flexgnn.core.graph.order import NodeOrder

__all__ = ["GraphInfo", "GraphStore"]


class GraphStore:
    """A graph on disk. Made by :meth:`open` and :meth:`from_pyg`; reading is safe from several threads."""

    path: Path
    """The store's directory."""
    info: GraphInfo
    """Facts about the graph."""
    fingerprint: str
    """A hash of the facts and of every array, made at import."""

    def __init__(self, path: Path, info: GraphInfo, fingerprint: str, arrays: dict[str, StoredArray]) -> None:
        self.path = path
        self.info = info
        self.fingerprint = fingerprint
        self._arrays = arrays

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> GraphStore:
        """The store at ``path``. Arrays are checked for completeness now, for flipped bits when first read.

        Raises:
            StoreError: if there is no store at ``path``, or it is damaged, or of a newer version.
        """
        directory = Path(path)
        group = _open_group(directory)
        info, found = _read_facts(directory, group)

        def damaged(what: str) -> StoreError:
            return _damaged(directory, what)

        arrays = {
            name: StoredArray.open(name, directory / name, layout, damaged)
            for name, layout in array_layouts(info).items()
        }
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
        task: str | None = None,
        overwrite: bool = False,
        on_order: Callable[[NodeOrder], None] | None = None,
    ) -> GraphStore:
        """Import a PyG graph into a new store at ``path``; on any failure nothing is left there.

        Args:
            data: ``x`` [N, F], ``edge_index`` [2, E], ``y`` [N], [N, 1] or, for several classes or numbers a node,
                [N, C]; optionally ``edge_weight`` [E], ``edge_attr`` [E, D], ``edge_type`` [E], and ``train_mask``,
                ``val_mask``, ``test_mask`` [N]. Without any mask, labelled nodes are split 60/20/20 under a fixed seed.
                For link prediction, in place of ``y`` and masks, ``edge_label_index`` [2, P] and ``edge_label`` [P]
                (1 for what is linked, 0 for what is not; without, all are) as ``RandomLinkSplit`` makes them, and for
                validation and test the same with ``val_`` and ``test_`` before their names.
                Other attributes are ignored.
            path: where the store is to be.
            name: what the graph is called; the last part of ``path`` if None.
            order: ``auto``, or one of ``clusters``, ``metis``, ``rcm``, ``given``: see
                :func:`~flexgnn.core.graph.order.node_order`.
            chunk_rows: nodes of a chunk; None: about 64 chunks.
            class_names: one a class, or a column of numbers; numbered if None.
            task: what ``y`` is: ``multi-class``, ``multi-label`` (zeros and ones) or ``regression``, whose labels are
                stored as float32 [N, C]; or ``links``. None: links if there is ``edge_label_index``; regression if a
                label of a used node is a fraction; else classes, several a node where ``y`` has several columns.
            overwrite: whether a store at ``path`` may be replaced.
            on_order: called with the node order when it is chosen, before anything is written.

        Raises:
            GraphError: if the graph can't be trained on, or something is at ``path``.
            ConfigError: if ``order``, ``chunk_rows`` or ``task`` is not accepted.
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
            task=task,
            overwrite=overwrite,
            on_order=on_order,
        )
        return cls.open(path)

    def length(self, array: str) -> int:
        """Rows of ``array``: its first dimension.

        Raises:
            KeyError: if the store has no such array.
        """
        return self._arrays[self._stored_name(array)].layout.shape[0]

    def read(self, array: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Rows ``start:stop`` of ``array``, in ``out`` if given, else in a new array.

        ``out`` must be C-contiguous with the array's dtype and exact shape.

        Raises:
            KeyError: if the store has no such array.
            ValueError: if the rows or ``out`` do not fit.
            StoreError: if a chunk is missing or damaged.
        """
        return self._arrays[self._stored_name(array)].read(start, stop, out)

    def attach(self, name: str, array: StoredArray) -> None:
        """Serve ``array``, which was made from this graph, under ``name`` as well; see ``folded.py``."""
        self._arrays[name] = array

    def to_pyg(self) -> Data:
        """The graph as it was imported: original node ids, edges sorted by source and then destination.

        Labels of one class a node are [N], others [N, C].

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
    if version not in range(1, FORMAT_VERSION + 1) or attributes.get("fingerprint") != expected:
        raise _damaged(path, "its attributes were changed")
    return info, expected


def _damaged(path: Path, what: str) -> StoreError:
    return StoreError(f"The graph store at {path} is damaged: {what}. Delete it and import the graph again.")
