"""The graph of a segment in fewer kinds of nodes, and fewer of them.

Linear layers become ``functional.linear`` with their parameters as nodes, every way to write a ReLU becomes
``torch.relu``, and sums become functions of ``row_functions.py`` that say what is added: into a product where they can.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.nn import functional

from flexgnn.core.program.row_functions import plus, plus_bias, plus_product
from flexgnn.core.program.row_local import Fact, parameter_fact

_ADDITIONS = (operator.add, torch.add)

Facts = dict[Node, Fact]


def simplify(root: torch.nn.Module, graph: Graph, facts: Facts) -> None:
    """Rewrite ``graph`` over ``root`` in place, keeping ``facts`` of its nodes complete."""
    for node in list(graph.nodes):
        if node.op == "call_module":
            _open_module(root, graph, node, facts)
        elif _is_relu(node):
            _become(node, torch.relu, node.all_input_nodes[0])
        elif node.target in _ADDITIONS and len(node.args) == 2 and not node.kwargs:
            _name_sum(node, facts)
    for node in reversed(graph.nodes):
        if node.target is functional.linear and not node.users:
            graph.erase_node(node)


def _become(node: Node, function: Callable[..., Any], *args: Any) -> None:
    node.op, node.target, node.args, node.kwargs = "call_function", function, args, {}


def _is_relu(node: Node) -> bool:
    function = node.op == "call_function" and node.target in (functional.relu, torch.relu)
    return function or (node.op == "call_method" and node.target == "relu")


def _open_module(root: torch.nn.Module, graph: Graph, node: Node, facts: Facts) -> None:
    module = root.get_submodule(str(node.target))
    if type(module) is torch.nn.ReLU:
        _become(node, torch.relu, node.all_input_nodes[0])
    elif type(module) is torch.nn.Linear:
        with graph.inserting_before(node):
            parameters = {graph.get_attr(f"{node.target}.{name}"): p for name, p in module.named_parameters()}
        facts.update({added: parameter_fact(parameter) for added, parameter in parameters.items()})
        _become(node, functional.linear, node.all_input_nodes[0], *parameters)


def _name_sum(node: Node, facts: Facts) -> None:
    a, b = node.args
    shape = facts[node].shape
    if not isinstance(a, Node) or not isinstance(b, Node) or shape is None or len(shape) != 2:
        return
    if facts[a].shape == shape[1:]:
        a, b = b, a
    if facts[a].shape == shape and facts[b].shape == shape[1:]:
        _become(node, functional.linear, *a.args[:2], b) if _is_product(a) else _become(node, plus_bias, a, b)
    elif facts[a].shape == facts[b].shape == shape:
        if not _is_product(b):
            a, b = b, a
        _become(node, plus_product, a, *b.args[:2]) if _is_product(b) else _become(node, plus, a, b)


def _is_product(node: Node) -> bool:
    """Whether it is ``linear(x, W)`` without a bias, which no one else reads."""
    without_bias = node.target is functional.linear and not node.kwargs and not any(node.args[2:])
    return without_bias and len(node.users) == 1
