"""From a graph store back to a PyG ``Data`` in RAM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch_geometric.data import Data

from flexgnn.core.graph.csr import NO_WEIGHTS, Csr, csr_both_ways
from flexgnn.core.graph.layout import LINKED, LINKS, TEST, TRAIN, VAL
from flexgnn.core.tier import Array

if TYPE_CHECKING:
    from flexgnn.core.graph.store import GraphStore


def export_pyg(store: GraphStore) -> Data:
    """See :meth:`~flexgnn.core.graph.store.GraphStore.to_pyg`."""
    node_ids = _read_all(store, "node_ids")
    edge_index, weights = _edges(store, node_ids)
    data = Data(
        x=torch.from_numpy(_in_original_order(store, "features", node_ids)),
        edge_index=torch.from_numpy(edge_index),
    )
    if store.info.weighted:
        data.edge_weight = torch.from_numpy(weights)
    if store.info.edge_columns or store.info.num_edge_types:
        _add_edge_arrays(store, data, node_ids)
    if store.info.task == LINKS:
        _add_pairs(store, data, node_ids)
    else:
        _add_labels(store, data, node_ids)
    return data


def _add_labels(store: GraphStore, data: Data, node_ids: Array) -> None:
    split = _in_original_order(store, "split", node_ids)
    data.y = torch.from_numpy(_in_original_order(store, "labels", node_ids))
    for name, bit in (("train_mask", TRAIN), ("val_mask", VAL), ("test_mask", TEST)):
        data[name] = torch.from_numpy((split & bit) != 0)


def _add_pairs(store: GraphStore, data: Data, node_ids: Array) -> None:
    """Those of each split, by destination."""
    destination = np.repeat(node_ids, np.diff(_read_all(store, "pairs/indptr")))
    ends = np.stack([node_ids[_read_all(store, "pairs/indices")], destination])
    kinds = _read_all(store, "pairs/types")
    for prefix, bit in (("", TRAIN), ("val_", VAL), ("test_", TEST)):
        chosen = (kinds & bit) != 0
        if chosen.any():
            data[f"{prefix}edge_label_index"] = torch.from_numpy(ends[:, chosen])
            data[f"{prefix}edge_label"] = torch.from_numpy(((kinds[chosen] & LINKED) != 0).astype(np.float32))


def _edges(store: GraphStore, node_ids: Array) -> tuple[Array, Array]:
    """``edge_index``, int64 [2, E], sorted by source and then destination, and the weights."""
    weights = _read_all(store, "in/weights") if store.info.weighted else NO_WEIGHTS
    stored = Csr(_read_all(store, "in/indptr"), _read_all(store, "in/indices"), weights)
    original = node_ids.astype(np.int32)
    _, by_source = csr_both_ways(original[stored.indices], original[stored.rows()], weights, store.info.num_nodes)
    return np.stack([by_source.rows(), by_source.indices]).astype(np.int64), by_source.weights


def _add_edge_arrays(store: GraphStore, data: Data, node_ids: Array) -> None:
    """Attributes and types of edges, in the order of ``edge_index``."""
    pointers = _read_all(store, "in/indptr")
    destination = np.repeat(node_ids, np.diff(pointers))
    order = np.lexsort((destination, node_ids[_read_all(store, "in/indices")]))
    if store.info.edge_columns:
        data.edge_attr = torch.from_numpy(_read_all(store, "in/attributes")[order])
    if store.info.num_edge_types:
        data.edge_type = torch.from_numpy(_read_all(store, "in/types")[order].astype(np.int64))


def _in_original_order(store: GraphStore, array: str, node_ids: Array) -> Array:
    """The whole array with row i for the node of original id i; chunk by chunk, so that it is held once."""
    first = store.read(array, 0, 0)
    result = np.empty((store.length(array), *first.shape[1:]), dtype=first.dtype)
    step = store.info.chunk_rows
    for start in range(0, len(result), step):
        stop = min(start + step, len(result))
        result[node_ids[start:stop]] = store.read(array, start, stop)
    return result


def _read_all(store: GraphStore, array: str) -> Array:
    return store.read(array, 0, store.length(array))
