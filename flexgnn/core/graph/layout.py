"""What a graph store holds: its arrays, their shapes and dtypes, and the facts about the graph.

Shapes: N nodes, E edges, F features, C classes.

A store is a Zarr v3 group. Everything in it is in *positions*: nodes are reordered at import, so that nodes
that share neighbours share chunks; ``node_ids`` maps a position back to the node's original id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from flexgnn.core.errors import ConfigError

FORMAT_VERSION = 1
"""Version of the layout that this package writes, and the newest that it reads."""

TASKS = MULTI_CLASS, MULTI_LABEL, REGRESSION, LINKS = "multi-class", "multi-label", "regression", "links"
"""What labels are: one class a node; several, each of which a node has or not; numbers; or which pairs of nodes are
linked."""

TRAIN, VAL, TEST = 1, 2, 4
"""Bits of the ``split`` array, and of the kinds of pairs."""

LINKED = 8
"""Bit of the kinds of pairs that are linked."""

EDGE_CHUNK = 2**18
"""Entries of a chunk of an edge array: 1 MiB of int32 or float32."""

MAX_NODES = 2**31 - 1
"""Edge arrays hold positions as int32."""

ALIGNED_ROWS = 16
"""So many rows of float32 fill whole cache lines at any width: chunks that are multiples of it begin at one."""

_FEWEST_CHUNK_ROWS, _MOST_CHUNK_ROWS = 256, 2048
_CHUNKS_WANTED = 64


@dataclass(frozen=True, kw_only=True)
class GraphInfo:
    """Facts about a stored graph."""

    name: str
    """What the graph is called in reports."""
    num_nodes: int
    num_edges: int
    """Directed edges, duplicates and self loops counted: columns of ``edge_index``."""
    num_features: int
    num_classes: int
    """For regression: numbers a node."""
    task: str
    """What the labels are: one of :data:`TASKS`."""
    weighted: bool
    """Whether edges carry weights."""
    symmetric: bool
    """Whether the CSR by destination and the one by source are the same, weights included; then one is stored."""
    chunk_rows: int
    """Nodes of a chunk: a contiguous range of positions; the last chunk may be shorter."""
    order: str
    """How nodes were ordered: ``clusters``, ``metis``, ``rcm``, ``given`` or, for generated graphs, ``community``."""
    class_names: tuple[str, ...]
    """One name a class, or for regression a number."""
    edge_columns: int = 0
    """Columns of the attributes of edges; 0: there are none."""
    num_edge_types: int = 0
    """Types of edges are below it; 0: there are none."""
    num_pairs: int = 0
    """Pairs of nodes whose links are predicted: more than 0 where that is the task, and then nodes have no labels."""

    @property
    def label_columns(self) -> int | None:
        """Columns of the labels; None where each node has one class, and labels are a vector, or there are none."""
        return None if self.task in (MULTI_CLASS, LINKS) else self.num_classes

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> GraphInfo:
        """The facts that :meth:`to_json` gave.

        Raises:
            ValueError: if a fact is missing, unknown or of another type.
        """
        names = {field.name: field.type for field in fields(cls)}
        if set(values) != set(names):
            raise ValueError(f"facts {sorted(values)} instead of {sorted(names)}")
        info = cls(**{**values, "class_names": tuple(values["class_names"])})
        for name, kind in names.items():
            expected = {"str": str, "int": int, "bool": bool}.get(str(kind), tuple)
            if type(getattr(info, name)) is not expected:
                raise ValueError(f"{name} is {getattr(info, name)!r}")
        if info.task not in TASKS or (info.task == LINKS) != (info.num_pairs > 0):
            raise ValueError(f"task is {info.task!r}, with {info.num_pairs} pairs")
        return info

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON holds them."""
        return {**asdict(self), "class_names": list(self.class_names)}


@dataclass(frozen=True, kw_only=True)
class ArrayLayout:
    """Shape, dtype and rows of a chunk of one stored array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_rows: int

    @property
    def chunks(self) -> tuple[int, ...]:
        return (self.chunk_rows, *self.shape[1:])

    @property
    def num_chunks(self) -> int:
        return -(-self.shape[0] // self.chunk_rows)


def array_layouts(info: GraphInfo) -> dict[str, ArrayLayout]:
    """The arrays that a store of ``info`` consists of, by name."""
    nodes, edges, columns, rows = info.num_nodes, info.num_edges, info.label_columns, info.chunk_rows
    layouts = {
        "features": _layout((nodes, info.num_features), "<f4", rows),
        "node_ids": _layout((nodes,), "<i8", rows),
    }
    if info.task == LINKS:
        layouts["pairs/indptr"] = _layout((nodes + 1,), "<i8", EDGE_CHUNK // 2)
        layouts["pairs/indices"] = _layout((info.num_pairs,), "<i4", EDGE_CHUNK)
        layouts["pairs/types"] = _layout((info.num_pairs,), "<i4", EDGE_CHUNK)
    else:
        classes, numbers = _layout((nodes,), "<i8", rows), _layout((nodes, columns or 1), "<f4", rows)
        layouts["labels"] = classes if columns is None else numbers
        layouts["split"] = _layout((nodes,), "|u1", rows)
    for direction in ("in",) if info.symmetric else ("in", "out"):
        layouts[f"{direction}/indptr"] = _layout((nodes + 1,), "<i8", EDGE_CHUNK // 2)
        layouts[f"{direction}/indices"] = _layout((edges,), "<i4", EDGE_CHUNK)
        if info.weighted:
            layouts[f"{direction}/weights"] = _layout((edges,), "<f4", EDGE_CHUNK)
    # What is pulled backward needs neither.
    if info.edge_columns:
        rows = max(1, EDGE_CHUNK // info.edge_columns)
        layouts["in/attributes"] = _layout((edges, info.edge_columns), "<f4", rows)
    if info.num_edge_types:
        layouts["in/types"] = _layout((edges,), "<i4", EDGE_CHUNK)
    return layouts


def choose_chunk_rows(num_nodes: int, chunk_rows: int | None) -> int:
    """``chunk_rows`` as asked for, or about 64 chunks of at most 2048 nodes, a multiple of :data:`ALIGNED_ROWS`.

    Raises:
        ConfigError: if ``chunk_rows`` is below 1.
    """
    if chunk_rows is None:
        wanted = -(-num_nodes // (_CHUNKS_WANTED * ALIGNED_ROWS)) * ALIGNED_ROWS
        return min(max(wanted, _FEWEST_CHUNK_ROWS), _MOST_CHUNK_ROWS)
    if chunk_rows < 1:
        raise ConfigError(f"chunk_rows is {chunk_rows}: give 1 or more nodes a chunk, or None to have it chosen.")
    return chunk_rows


def _layout(shape: tuple[int, ...], dtype: str, chunk_rows: int) -> ArrayLayout:
    # Zarr pads every chunk to its full size, so a chunk larger than the array would waste disk.
    return ArrayLayout(shape=shape, dtype=np.dtype(dtype), chunk_rows=max(1, min(chunk_rows, shape[0])))
