"""From a PyG ``Data`` in RAM to a graph store.

Shapes: N nodes, E edges, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from flexgnn.core.graph.checks import CheckedGraph, Targets, checked_graph
from flexgnn.core.graph.csr import NO_WEIGHTS, Csr, csr_both_ways
from flexgnn.core.graph.labels import check_task
from flexgnn.core.graph.layout import EDGE_CHUNK, GraphInfo, choose_chunk_rows
from flexgnn.core.graph.order import NodeOrder, check_order, node_order
from flexgnn.core.graph.staging import check_replaceable
from flexgnn.core.graph.writer import StoreWriter, writing_store
from flexgnn.core.tier import Array


def import_pyg(
    data: object,
    path: Path,
    *,
    name: str | None,
    order: str,
    chunk_rows: int | None,
    class_names: Sequence[str] | None,
    task: str | None,
    overwrite: bool,
    on_order: Callable[[NodeOrder], None] | None,
) -> None:
    """See :meth:`~flexgnn.core.graph.store.GraphStore.from_pyg`."""
    check_order(order)
    check_task(task)
    check_replaceable(path, overwrite=overwrite)
    graph = checked_graph(data, class_names, task)
    targets = graph.targets
    num_nodes = len(graph.features)
    chunk_rows = choose_chunk_rows(num_nodes, chunk_rows)
    chosen = node_order(graph.source, graph.destination, num_nodes, chunk_rows=chunk_rows, order=order)
    if on_order is not None:
        on_order(chosen)
    node_ids = chosen.node_ids
    by_destination, by_source = _reordered(graph, node_ids)
    info = GraphInfo(
        name=name or path.stem,
        num_nodes=num_nodes,
        num_edges=len(graph.source),
        num_features=graph.features.shape[1],
        num_classes=len(targets.class_names),
        task=targets.task,
        weighted=graph.weights is not None,
        symmetric=by_destination.same_as(by_source),
        chunk_rows=chunk_rows,
        order=chosen.name,
        class_names=targets.class_names,
        edge_columns=0 if graph.attributes is None else graph.attributes.shape[1],
        num_edge_types=0 if graph.types is None else int(graph.types.max(initial=0)) + 1,
        num_pairs=0 if targets.pairs is None else len(targets.pairs.source),
    )
    with writing_store(path, info, overwrite=overwrite) as writer:
        writer.write("features", _feature_blocks(graph.features, node_ids, chunk_rows))
        writer.write("node_ids", [node_ids])
        _write_targets(writer, targets, node_ids)
        _write_csr(writer, "in", by_destination, weighted=info.weighted)
        _write_edge_arrays(writer, graph, node_ids)
        if not info.symmetric:
            _write_csr(writer, "out", by_source, weighted=info.weighted)


def _positions(node_ids: Array) -> Array:
    """int32 [N]: the position of each node."""
    positions = np.empty(len(node_ids), dtype=np.int32)
    positions[node_ids] = np.arange(len(node_ids), dtype=np.int32)
    return positions


def _reordered(graph: CheckedGraph, node_ids: Array) -> tuple[Csr, Csr]:
    positions = _positions(node_ids)
    weights = NO_WEIGHTS if graph.weights is None else graph.weights
    return csr_both_ways(positions[graph.source], positions[graph.destination], weights, len(node_ids))


def _write_targets(writer: StoreWriter, targets: Targets, node_ids: Array) -> None:
    """Labels and split of nodes, or the pairs whose links are predicted."""
    if targets.pairs is None:
        writer.write("labels", [targets.labels[node_ids]])
        writer.write("split", [targets.split[node_ids]])
        return
    pairs, kinds = targets.pairs.by_destination(_positions(node_ids))
    _write_csr(writer, "pairs", pairs, weighted=False)
    writer.write("pairs/types", [kinds])


def _write_edge_arrays(writer: StoreWriter, graph: CheckedGraph, node_ids: Array) -> None:
    """Attributes and types, in the order of the CSR by destination."""
    arrays = {"in/attributes": graph.attributes, "in/types": graph.types}
    given = {name: array for name, array in arrays.items() if array is not None}
    if given:
        positions = _positions(node_ids)
        order = np.lexsort((positions[graph.source], positions[graph.destination]))
        for name, array in given.items():
            parts = (order[start : start + EDGE_CHUNK] for start in range(0, len(order), EDGE_CHUNK))
            writer.write(name, (array[part] for part in parts))


def _feature_blocks(features: torch.Tensor, node_ids: Array, chunk_rows: int) -> Iterator[Array]:
    """The features in the order of positions, float32, a chunk at a time, so that no second copy of them is made."""
    for start in range(0, len(node_ids), chunk_rows):
        yield features[torch.from_numpy(node_ids[start : start + chunk_rows])].to(torch.float32).numpy()


def _write_csr(writer: StoreWriter, direction: str, csr: Csr, *, weighted: bool) -> None:
    writer.write(f"{direction}/indptr", [csr.indptr])
    writer.write(f"{direction}/indices", [csr.indices])
    if weighted:
        writer.write(f"{direction}/weights", [csr.weights])
