"""Whether attributes and types of edges are what a store can hold.

Shapes: E edges, D columns.
"""

from __future__ import annotations

import numpy as np
import torch

from flexgnn.core.errors import GraphError
from flexgnn.core.tier import Array

_MOST_TYPES = 2**31 - 1


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
