"""The hidden values of a segment: what its derivative reads, and would need matrix products to compute again."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.fx import Graph, Node
from torch.nn import functional

from flexgnn.core.program.row_functions import plus_product
from flexgnn.core.program.row_local import Fact

_PRODUCTS = frozenset((functional.linear, plus_product))


def hidden_values(
    root: torch.nn.Module, graph: Graph, facts: dict[Node, Fact], read: Iterable[Node]
) -> tuple[Node, ...]:
    """Nodes from which the others of ``read`` follow without a product: few, and each an R x D tensor.

    What element-wise functions make of them (activations, dropout) is cheaper to compute again than to keep.

    Args:
        root: has the modules that ``graph`` uses.
        graph: of a segment, simplified.
        facts: of its nodes.
        read: the nodes that its derivative reads.
    """
    wanted = set(read)
    found: list[Node] = []
    known: set[Node] = set()
    """Inputs, parameters, what was found, and what follows from them without a product."""
    for node in graph.nodes:  # what a node is made of comes first
        if not _is_product(root, facts, node) and known.issuperset(node.all_input_nodes):
            known.add(node)
        elif node in wanted and facts[node].is_value:
            found.append(node)
            known.add(node)
    return tuple(found)


def _is_product(root: torch.nn.Module, facts: dict[Node, Fact], node: Node) -> bool:
    """Whether it multiplies rows by a matrix: it is known to, or has a matrix of parameters."""
    if node.op == "call_module":
        return any(parameter.dim() > 1 for parameter in root.get_submodule(str(node.target)).parameters())
    matrices = (n for n in node.all_input_nodes if n.op == "get_attr" and len(facts[n].shape or ()) > 1)
    return node.target in _PRODUCTS or any(matrices)
