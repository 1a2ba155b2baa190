"""Operators that write over what no one reads any more, instead of filling new memory.

That keeps a tile in the cache, and halves what it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.nn import functional

from flexgnn.core.program.dropout import dropout, dropout_
from flexgnn.core.program.row_functions import (
    plus,
    plus_,
    plus_bias,
    plus_bias_,
    plus_product,
    plus_product_,
    product_of_rows,
    relu_gradient,
    relu_gradient_,
    scaled_columns,
    scaled_columns_,
    standardized,
    standardized_gradient,
    sum_of_rows,
)

_TWINS: dict[Any, Callable[..., Any]] = {
    torch.relu: torch.relu_,
    plus: plus_,
    plus_bias: plus_bias_,
    plus_product: plus_product_,
    relu_gradient: relu_gradient_,
    scaled_columns: scaled_columns_,
    dropout: dropout_,
}
"""By function: one that computes the same, in the memory of its first argument."""

_FRESH = frozenset(
    (
        functional.linear,
        torch.mm,
        torch.relu,
        plus,
        plus_bias,
        plus_product,
        relu_gradient,
        scaled_columns,
        standardized,
    )
)
"""Functions whose result has memory of its own, which is for their users to write over."""

_COPYING = _FRESH | {product_of_rows, standardized_gradient, sum_of_rows}
"""Functions whose result shares no memory with what they read. Out of training, that of dropout does."""


def reuse_memory(graph: Graph) -> None:
    """Replace functions of ``graph`` by their twins, where their first argument is made in the graph and read last."""
    position = {node: number for number, node in enumerate(graph.nodes)}
    fresh: set[Node] = set()
    for node in graph.nodes:
        first = node.args[0] if node.args else None
        if node.target in _TWINS and first in fresh and _is_last(node, first, position):
            node.target = _TWINS[node.target]
            fresh.add(node)
        elif node.target in _FRESH:
            fresh.add(node)


def _is_last(node: Node, first: Node, position: dict[Node, int]) -> bool:
    """Whether ``node`` is the last to read ``first``, and reads it once."""
    others = [user for user in first.users if user is not node]
    done = all(user.target in _COPYING and position[user] < position[node] for user in others)
    return done and node.args.count(first) == 1
