"""Whether a PyG ``Data`` can be trained on: every way in which it can't is one sentence that tells how to mend it.

Shapes: N nodes, E edges, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch_geometric.data import Data, HeteroData

from flexgnn.core.errors import GraphError
from flexgnn.core.graph.edge_checks import checked_attributes, checked_ends, checked_types
from flexgnn.core.graph.labels import checked_labels
from flexgnn.core.graph.layout import LINKS, MAX_NODES, TEST, TRAIN, VAL
from flexgnn.core.graph.pairs import Pairs, checked_pairs
from flexgnn.core.graph.split import seeded_split
from flexgnn.core.tier import Array

_MASKS = {"train_mask": TRAIN, "val_mask": VAL, "test_mask": TEST}
_PAIRS = {"": TRAIN, "val_": VAL, "test_": TEST}
"""By what ``edge_label_index`` and ``edge_label`` are prefixed with."""
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """What is to be predicted: labels of nodes, or which pairs of nodes are linked."""

    task: str
    """One of :data:`~flexgnn.core.graph.layout.TASKS`."""
    labels: Array = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """int64 [N], -1 for none; or, for several classes or numbers a node, float32 [N, C]."""
    split: Array = field(default_factory=lambda: np.empty(0, dtype=np.uint8))
    """uint8 [N]."""
    class_names: tuple[str, ...] = ()
    """C names."""
    pairs: Pairs | None = None
    """In place of all these, for links."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedGraph:
    """A graph that can be trained on, in the original node order."""

    features: torch.Tensor
    """[N, F], of any real dtype; every value is finite as float32."""
    source: Array
    """int32 [E]."""
    destination: Array
    """int32 [E]."""
    weights: Array | None
    """float32 [E]."""
    attributes: Array | None
    """float32 [E, D]."""
    types: Array | None
    """int32 [E], from 0 on."""
    targets: Targets


def checked_graph(data: object, class_names: Sequence[str] | None, task: str | None) -> CheckedGraph:
    """The parts of ``data`` that FlexGNN uses.

    Raises:
        GraphError: if a part is missing or not what training needs.
    """
    if isinstance(data, HeteroData):
        raise GraphError(
            "The graph is a HeteroData, and FlexGNN can't train on types of nodes yet: import "
            "data.to_homogeneous(), which has them all as one type."
        )
    if not isinstance(data, Data):
        raise GraphError(f"The graph is a {type(data).__name__}, and only torch_geometric.data.Data can be imported.")
    features = _features(data)
    source, destination = _edges(data, len(features))
    if task == LINKS or (task is None and getattr(data, "edge_label_index", None) is not None):
        targets = _link_targets(data, len(features), class_names)
    else:
        _check_no_pairs(data, task)
        targets = _node_targets(data, len(features), class_names, task)
    return CheckedGraph(
        features=features,
        source=source,
        destination=destination,
        weights=_weights(data, len(source)),
        attributes=checked_attributes(_optional(data, "edge_attr", "attributes of edges"), len(source)),
        types=checked_types(_optional(data, "edge_type", "types of edges"), len(source)),
        targets=targets,
    )


def _node_targets(data: Data, num_nodes: int, class_names: Sequence[str] | None, task: str | None) -> Targets:
    split = _split(data, num_nodes)
    labels, task, names = checked_labels(_tensor(data, "y", "labels"), split, num_nodes, class_names, task)
    if split is None:
        split = seeded_split(np.ones(len(labels), dtype=bool) if labels.ndim == 2 else labels >= 0)
    if not (split & TRAIN).any():
        raise GraphError("No node is in the training set: set data.train_mask for one node or more.")
    return Targets(task=task, labels=labels, class_names=names, split=split)


def _check_no_pairs(data: Data, task: str | None) -> None:
    """Refuse pairs that would go unnoticed."""
    names = [f"{kind}edge_label{index}" for kind in ("", "pos_", "neg_", *_PAIRS) for index in ("", "_index")]
    present = [name for name in names if getattr(data, name, None) is not None]
    if task is None and present:
        raise GraphError(
            f"The graph has {present[0]}, but no edge_label_index, which pairs to train on are given by: set it (as "
            "RandomLinkSplit without split_labels does), or name the task for labels of nodes."
        )


def _link_targets(data: Data, num_nodes: int, class_names: Sequence[str] | None) -> Targets:
    """The pairs of all splits that there are, in this order."""
    if class_names is not None:
        raise GraphError("Pairs have no classes: leave class_names out, or name the task for labels of nodes.")
    found = []
    for prefix, bit in _PAIRS.items():
        key = f"{prefix}edge_label_index"
        if bit == TRAIN or getattr(data, key, None) is not None:
            ends, labels = _tensor(data, key, "pairs of nodes to train on"), _optional(data, f"{prefix}edge_label", "")
            found.append(checked_pairs(ends, labels, prefix, num_nodes, bit))
    return Targets(task=LINKS, pairs=Pairs.joined(found))


def _tensor(data: Data, key: str, what: str) -> torch.Tensor:
    value = getattr(data, key, None)
    if value is None:
        raise GraphError(f"The graph has no {what}: set data.{key}.")
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        raise GraphError(f"data.{key} is a {_kind(value)}: make it a dense torch tensor.")
    return value.detach().cpu()


def _optional(data: Data, key: str, what: str) -> torch.Tensor | None:
    return None if getattr(data, key, None) is None else _tensor(data, key, what)


def _kind(value: object) -> str:
    return "sparse tensor" if isinstance(value, torch.Tensor) else type(value).__name__


def _shape(tensor: torch.Tensor) -> str:
    return str(list(tensor.shape))


def _features(data: Data) -> torch.Tensor:
    features = _tensor(data, "x", "features")
    if features.dim() != 2 or 0 in features.shape or features.is_complex():
        raise GraphError(
            f"data.x has shape {_shape(features)} and dtype {features.dtype}; it must be [nodes, features] "
            "of real numbers, and not empty."
        )
    num_nodes = data["num_nodes"] if "num_nodes" in data else len(features)
    if len(features) != num_nodes:
        raise GraphError(
            f"data.x has {len(features)} rows, but data.num_nodes is {num_nodes}: give every node one row."
        )
    if num_nodes > MAX_NODES:
        raise GraphError(f"The graph has {num_nodes} nodes; FlexGNN takes up to {MAX_NODES}.")
    # In pieces, so that no second copy of the features is made.
    for start in range(0, num_nodes, _ROWS_AT_ONCE):
        rows = features[start : start + _ROWS_AT_ONCE]
        finite = torch.isfinite(rows.to(torch.float32))
        if not bool(finite.all()):
            row, column = (int(i) for i in torch.nonzero(~finite)[0])
            raise GraphError(
                f"data.x[{start + row}, {column}] is {rows[row, column].item()}; "
                "features must be finite float32 numbers: clean them before the import."
            )
    return features


def _edges(data: Data, num_nodes: int) -> tuple[Array, Array]:
    if getattr(data, "edge_index", None) is None and getattr(data, "adj_t", None) is not None:
        raise GraphError("The graph has adj_t instead of edge_index: import it before the transform ToSparseTensor.")
    edge_index = _tensor(data, "edge_index", "edges")
    return checked_ends(edge_index, "edge_index", num_nodes)


def _weights(data: Data, num_edges: int) -> Array | None:
    if getattr(data, "edge_weight", None) is None:
        return None
    weights = _tensor(data, "edge_weight", "edge weights")
    if _shape(weights) not in (f"[{num_edges}]", f"[{num_edges}, 1]") or weights.is_complex():
        raise GraphError(
            f"data.edge_weight has shape {_shape(weights)} and dtype {weights.dtype}; "
            f"it must have one real number for each of the {num_edges} edges."
        )
    result: Array = weights.reshape(-1).to(torch.float32).numpy()
    finite = np.isfinite(result)
    if not finite.all():
        edge = int(finite.argmin())
        raise GraphError(
            f"data.edge_weight[{edge}] is {weights.reshape(-1)[edge].item()}; edge weights must be finite."
        )
    return result


def _split(data: Data, num_nodes: int) -> Array | None:
    """Bit flags from the masks, uint8 [N]; None if there are no masks at all."""
    present = [key for key in _MASKS if getattr(data, key, None) is not None]
    if not present:
        return None
    if "train_mask" not in present:
        raise GraphError(f"The graph has {' and '.join(present)} but no train_mask: set all three masks, or none.")
    split = np.zeros(num_nodes, dtype=np.uint8)
    for key in present:
        mask = _tensor(data, key, "mask")
        if mask.dim() == 2 and mask.shape[1] > 0:
            raise GraphError(
                f"data.{key} has shape {_shape(mask)}, which is {mask.shape[1]} splits: pick one, "
                f"for example data.{key} = data.{key}[:, 0]."
            )
        if mask.shape != (num_nodes,) or mask.dtype not in (torch.bool, torch.uint8):
            raise GraphError(
                f"data.{key} has shape {_shape(mask)} and dtype {mask.dtype}; it must be torch.bool, "
                f"with one entry for each of the {num_nodes} nodes."
            )
        split[mask.numpy().astype(bool)] |= _MASKS[key]
    return split
