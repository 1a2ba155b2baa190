"""Whether edges, and what they come with, are what a store can hold.

Shapes: E edges, D columns.
"""

from __future__ import annotations

import numpy as np
import torch

from flexgnn.core.errors import GraphError
from flexgnn.core.tier import Array

_MOST_TYPES = 2**31 - 1


def checked_ends(edge_index: torch.Tensor, key: str, num_nodes: int) -> tuple[Array, Array]:
    """``data[key]``, pairs of nodes, as int32 [E] each.

    Raises:
        GraphError: if it has another shape, or nodes that there are not.
    """
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise GraphError(
            f"data.{key} has shape {list(edge_index.shape)}; it must be [2, edges]: sources, destinations."
        )
    if edge_index.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise GraphError(f"data.{key} has dtype {edge_index.dtype}; it must hold node ids as torch.int64.")
    ends: Array = edge_index.numpy()
    outside = (ends < 0) | (ends >= num_nodes)
    if outside.any():
        column = int(outside.any(axis=0).argmax())
        row = int(outside[:, column].argmax())
        raise GraphError(
            f"data.{key}[{row}, {column}] is {ends[row, column]}, but the graph has {num_nodes} nodes: "
            f"node ids must be from 0 to {num_nodes - 1}."
        )
    return ends[0].astype(np.int32), ends[1].astype(np.int32)


def checked_attributes(attributes: torch.Tensor | None, num_edges: int) -> Array | None:
    """``data.edge_attr`` as float32 [E, D].

    Raises:
        GraphError: if it has another shape, or values that are not finite real numbers.
    """
    if attributes is None:
        return None
    shape = list(attributes.shape)
    if len(shape) != 2 or shape[0] != num_edges or not shape[1] or attributes.is_complex():
        raise GraphError(
            f"data.edge_attr has shape {shape} and dtype {attributes.dtype}; it must be [{num_edges}, columns] of real "
            "numbers: give one number an edge as edge_attr.view(-1, 1) or as edge_weight, or delete it."
        )
    result: Array = attributes.to(torch.float32).numpy()
    finite = np.isfinite(result)
    if not finite.all():
        edge, column = (int(i) for i in np.argwhere(~finite)[0])
        raise GraphError(
            f"data.edge_attr[{edge}, {column}] is {attributes[edge, column].item()}; attributes must be finite."
        )
    return result


def checked_types(types: torch.Tensor | None, num_edges: int) -> Array | None:
    """``data.edge_type`` as int32 [E].

    Raises:
        GraphError: if it has another shape, or values that are not whole numbers from 0 on.
    """
    if types is None:
        return None
    whole = not types.is_floating_point() and not types.is_complex() and types.dtype != torch.bool
    if list(types.shape) != [num_edges] or not whole:
        raise GraphError(
            f"data.edge_type has shape {list(types.shape)} and dtype {types.dtype}; it must be torch.int64, one number "
            f"for each of the {num_edges} edges."
        )
    if num_edges and not 0 <= int(types.min()) <= int(types.max()) < _MOST_TYPES:
        raise GraphError(
            f"data.edge_type has values from {int(types.min())} to {int(types.max())}; types are numbered from 0."
        )
    return types.numpy().astype(np.int32)
