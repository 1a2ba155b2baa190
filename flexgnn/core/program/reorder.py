"""The rewrite ``order``: a sum over neighbours and a product with a matrix change places, ``A(HW) = (AH)W``."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.nn import functional

from flexgnn.core.program.convs import AGGREGATION, aggregated
from flexgnn.core.program.row_local import Fact


@dataclass(frozen=True, kw_only=True)
class _Linear:
    """A node that computes ``input W' + bias`` for N x D rows."""

    node: Node
    input: Node
    weight: Node | str
    """A node, or the path of a parameter."""
    bias: Node | str | None


@dataclass(frozen=True, kw_only=True)
class Swap:
    """An aggregation and a linear layer that may change places, and what that saves."""

    aggregation: Node
    linear: _Linear
    aggregates_first: bool
    """Whether the aggregation comes first afterwards."""
    layer: int
    """Number of the aggregation along the network, from 1."""
    width: int
    """Columns that are aggregated now."""
    width_after: int
    saves: bool
    """Whether fewer columns are aggregated afterwards, forward and backward together."""

    @property
    def input(self) -> Node:
        """What the first of the two is applied to."""
        return self.linear.input if self.aggregates_first else self.aggregation.all_input_nodes[0]

    def make(self, graph: Graph) -> None:
        """Change places in ``graph``."""
        first, last = self.aggregation, self.linear.node
        if self.aggregates_first:
            first, last = last, first
        with graph.inserting_before(last):
            if self.aggregates_first:
                out = self._multiplied(graph, self._aggregated(graph, self.input))
            else:
                out = self._aggregated(graph, self._multiplied(graph, self.input))
                if self.linear.bias is not None:
                    out = graph.call_function(operator.add, (out, _as_node(graph, self.linear.bias)))
        last.replace_all_uses_with(out)
        graph.erase_node(last)
        graph.erase_node(first)

    def _aggregated(self, graph: Graph, value: Node) -> Node:
        node = graph.call_function(aggregated, (value,))
        node.meta = dict(self.aggregation.meta)
        return node

    def _multiplied(self, graph: Graph, value: Node) -> Node:
        node = graph.call_function(functional.linear, (value, _as_node(graph, self.linear.weight)))
        node.meta = dict(self.linear.node.meta)
        return node


def possible_swaps(root: torch.nn.Module, graph: Graph, facts: dict[Node, Fact]) -> Iterator[Swap]:
    """All swaps that leave the result of ``graph`` as it is, where no one else reads what lies between the two."""
    for node in graph.nodes:
        if node.target is not aggregated or node.meta[AGGREGATION].reduce != "sum":
            continue
        (before,) = node.all_input_nodes
        linear = _as_linear(root, before, facts)
        if linear is not None and linear.bias is None and len(before.users) == 1:
            yield _swap(node, linear, facts, aggregates_first=True)
        for after in node.users if len(node.users) == 1 else ():
            linear = _as_linear(root, after, facts)
            if linear is not None and linear.input is node:
                yield _swap(node, linear, facts, aggregates_first=False)


def _swap(node: Node, linear: _Linear, facts: dict[Node, Fact], *, aggregates_first: bool) -> Swap:
    before = node.all_input_nodes[0]
    other = linear.input if aggregates_first else linear.node
    return Swap(
        aggregation=node,
        linear=linear,
        aggregates_first=aggregates_first,
        layer=_layer(node),
        width=_width(facts[before]),
        width_after=_width(facts[other]),
        saves=_cost(facts[other]) < _cost(facts[before]),
    )


def _layer(aggregation: Node) -> int:
    """The most aggregations on a way through the network that ends with ``aggregation``."""
    layers: dict[Node, int] = {}
    for node in aggregation.graph.nodes:
        before = max((layers[used] for used in node.all_input_nodes), default=0)
        layers[node] = before + (node.target is aggregated)
    return layers[aggregation]


def _cost(fact: Fact) -> int:
    """Columns that are aggregated forward, and again backward if the input of the aggregation needs a gradient."""
    return _width(fact) * (1 + fact.needs_grad)


def _width(fact: Fact) -> int:
    assert fact.shape is not None, "only tensors are aggregated and multiplied"
    return fact.shape[1]


def _as_linear(root: torch.nn.Module, node: Node, facts: dict[Node, Fact]) -> _Linear | None:
    """``node``, if it is a linear layer over N x D rows."""
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        if type(module) is not torch.nn.Linear:
            return None
        weight, bias = f"{node.target}.weight", None if module.bias is None else f"{node.target}.bias"
        found = _Linear(node=node, input=node.all_input_nodes[0], weight=weight, bias=bias)
    elif node.target is functional.linear:
        arguments: dict[str, Any] = dict(zip(("input", "weight", "bias"), node.args, strict=False)) | dict(node.kwargs)
        found = _Linear(node=node, input=arguments["input"], weight=arguments["weight"], bias=arguments.get("bias"))
    else:
        return None
    return found if facts[found.input].is_value and facts[node].is_value else None


def _as_node(graph: Graph, value: Node | str) -> Node:
    return graph.get_attr(value) if isinstance(value, str) else value
