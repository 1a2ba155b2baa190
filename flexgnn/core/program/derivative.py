"""The derivative of a segment, as a graph of its own: reverse accumulation over the graph of the segment.

What autograd would run, with three differences: values of the segment are computed again only where a derivative needs
them (not the last product, for one); nothing is recorded; and functions write over what no one reads any more. A few
functions have rules here. Any other is differentiated by autograd, by itself.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.nn import Parameter, functional
from torch.utils._pytree import tree_flatten, tree_unflatten

from flexgnn.core.program.dropout import dropout
from flexgnn.core.program.in_place import reuse_memory
from flexgnn.core.program.row_functions import (
    plus,
    plus_bias,
    plus_product,
    product_of_rows,
    relu_gradient,
    scaled_columns,
    standardized,
    standardized_gradient,
    sum_of_rows,
)
from flexgnn.core.program.row_local import Fact

GRADIENTS_OF = "gradients_of"
"""Name of the placeholder for the function that gives the gradients of the outputs."""


def derivative(
    root: torch.nn.Module,
    graph: Graph,
    facts: dict[Node, Fact],
    outputs: Sequence[str],
    *,
    sees_outputs: bool,
    hidden: Sequence[Node] = (),
) -> tuple[GraphModule, list[Node]]:
    """A module from a segment's inputs to its gradients.

    Args:
        root: has the parameters and modules that ``graph`` uses.
        graph: of a segment, simplified; its output is a tuple of values.
        facts: of its nodes; they say which need a gradient.
        outputs: their names.
        sees_outputs: whether outputs are computed, for ``gradients_of``.
        hidden: nodes whose values are at hand.

    Returns:
        A module that is called with the inputs of ``graph``, a function ``gradients_of`` and the values of ``hidden``.
        The function gets the outputs (an empty tuple unless ``sees_outputs``) and returns the gradients of those that
        need one, by name. The module returns a list: the gradient of each input that needs one, then of each of
        :func:`parameters_of`. None stands for what no output depends on.

        And the nodes of ``graph`` whose values derivatives read, among them those that are computed again for it.
    """
    differentiation = _Differentiation(root, graph, facts, hidden)
    found = differentiation.run(outputs, sees_outputs)
    return GraphModule(root, found, class_name="Derivative"), differentiation.read


def parameters_of(root: torch.nn.Module, graph: Graph) -> tuple[Parameter, ...]:
    """The trainable parameters that ``graph`` uses, each once."""
    found: dict[Parameter, None] = {}
    for node in graph.nodes:
        found.update(dict.fromkeys(trainable(root, node)))
    return tuple(found)


def tensors_of(root: torch.nn.Module, graph: Graph) -> tuple[Tensor, ...]:
    """All tensors that ``graph`` uses by name, each once."""
    return tuple({id(tensor): tensor for node in graph.nodes for tensor in _held(root, node)}.values())


def trainable(root: torch.nn.Module, node: Node) -> list[Parameter]:
    """The trainable parameters that ``node`` reads by name: of a module, or one alone."""
    return [tensor for tensor in _held(root, node) if isinstance(tensor, Parameter) and tensor.requires_grad]


def _held(root: torch.nn.Module, node: Node) -> list[Tensor]:
    """What ``node`` reads by name: of a module, or a tensor alone."""
    target = str(node.target)
    if node.op == "call_module":
        module = root.get_submodule(target)
        return [*module.parameters(), *module.buffers()]
    if node.op != "get_attr":
        return []
    path, _, name = target.rpartition(".")
    value = getattr(root.get_submodule(path), name)
    return [value] if isinstance(value, Tensor) else []


class _Differentiation:
    def __init__(self, root: torch.nn.Module, forward: Graph, facts: dict[Node, Fact], hidden: Sequence[Node]) -> None:
        self.root, self.forward, self.facts, self.hidden = root, forward, facts, hidden
        self.graph = Graph()
        self._values: dict[Node, Node] = {}
        self._gradients: dict[Node | Parameter, Node] = {}
        self._items: dict[Node, dict[int, Node]] = {}
        """Of tuples: gradients by position."""

    def run(self, names: Sequence[str], sees_outputs: bool) -> Graph:
        inputs = [node for node in self.forward.nodes if node.op == "placeholder"]
        self._values.update({node: self.graph.placeholder(str(node.target)) for node in inputs})
        gradients_of = self.graph.placeholder(GRADIENTS_OF)
        self._values.update({node: self.graph.placeholder(f"hidden_{node.name}") for node in self.hidden})
        outputs: Any = next(iter(reversed(self.forward.nodes))).args[0]
        seen = tuple(self.value(node) for node in outputs) if sees_outputs else ()
        given = self.emit(_call, gradients_of, seen)
        for name, node in zip(names, outputs, strict=True):
            if self.needs(node):
                self.give(node, self.emit(operator.getitem, given, name))
        for node in reversed(self.forward.nodes):
            if node.op not in ("placeholder", "output"):
                self._differentiate(node)
        targets = [*filter(self.needs, inputs), *parameters_of(self.root, self.forward)]
        self.graph.output([self._gradients.get(target) for target in targets])
        reuse_memory(self.graph)
        return self.graph

    @property
    def read(self) -> list[Node]:
        """The nodes of the segment whose values are read for more than computing others of its values."""
        values = set(self._values.values())
        return [node for node, value in self._values.items() if not values.issuperset(value.users)]

    def needs(self, node: object) -> bool:
        """Whether ``node`` is one that needs a gradient."""
        return isinstance(node, Node) and self.facts[node].needs_grad and self.facts[node].has_derivative

    def value(self, node: Node) -> Node:
        """The value of a node of the segment, computed again unless it is at hand."""
        pending = [] if node in self._values else [node]
        while pending:
            missing = [used for used in pending[-1].all_input_nodes if used not in self._values]
            if missing:
                pending += missing
                continue
            last = pending.pop()
            if last not in self._values:
                self._values[last] = self.graph.node_copy(last, self._values.__getitem__)
        return self._values[node]

    def emit(self, function: Callable[..., Any], *args: Any) -> Node:
        return self.graph.call_function(function, args)

    def give(self, target: Any, gradient: Node) -> None:
        """Add ``gradient`` to that of a node or parameter; nothing happens to one that needs none."""
        if isinstance(target, Parameter) or self.needs(target):
            before = self._gradients.get(target)
            self._gradients[target] = gradient if before is None else self.emit(plus, before, gradient)

    def give_item(self, target: Node, position: int, gradient: Node) -> None:
        """Add ``gradient`` to that of an element of a tuple."""
        items = self._items.setdefault(target, {})
        items[position] = self.emit(plus, items[position], gradient) if position in items else gradient

    def _differentiate(self, node: Node) -> None:
        if node in self._items:
            gradients = self._items.pop(node)
            self._by_autograd(node, tuple(gradients), *gradients.values())
        elif node in self._gradients:
            gradient = self._gradients.pop(node)
            if node.op == "get_attr":
                for parameter in trainable(self.root, node):
                    self.give(parameter, gradient)
            elif not (
                node.op == "call_function" and node.target in _RULES and _RULES[node.target](self, node, gradient)
            ):
                self._by_autograd(node, (), gradient)

    def _by_autograd(self, node: Node, positions: tuple[int, ...], *gradients: Node) -> None:
        """Differentiate any ``node``, given the gradient of its value, or those of ``positions`` of a tuple."""
        leaves, structure = tree_flatten((node.args, node.kwargs))
        nodes = [number for number, leaf in enumerate(leaves) if isinstance(leaf, Node)]
        wanted = [number for number in nodes if self.needs(leaves[number])]
        function: Any = node.target
        parameters: list[Parameter] = []
        if node.op == "call_module":
            function = self.root.get_submodule(str(node.target))
            parameters = trainable(self.root, node)

        def pull_back(*tensors: Any) -> list[Tensor]:
            filled = list(leaves)
            for number, value in zip(nodes, tensors[len(gradients) :], strict=True):
                filled[number] = value.detach().requires_grad_() if number in wanted else value
            args, kwargs = tree_unflatten(filled, structure)
            with torch.enable_grad():
                if node.op == "call_method":
                    result = getattr(args[0], str(node.target))(*args[1:], **kwargs)
                else:
                    result = function(*args, **kwargs)
            results = [result[p] for p in positions] if positions else [result]
            targets = [*(filled[number] for number in wanted), *parameters]
            return list(
                torch.autograd.grad(
                    results, targets, tensors[: len(gradients)], allow_unused=True, materialize_grads=True
                )
            )

        values = [self.value(leaves[number]) for number in nodes]
        found = self.emit(pull_back, *gradients, *values)
        for position, target in enumerate([*(leaves[number] for number in wanted), *parameters]):
            self.give(target, self.emit(operator.getitem, found, position))


def _call(
    gradients_of: Callable[[Sequence[Tensor]], Mapping[str, Tensor]], outputs: Sequence[Tensor]
) -> Mapping[str, Tensor]:
    return gradients_of(outputs)


def _linear(d: _Differentiation, node: Node, gradient: Node) -> bool:
    x, weight, *bias = node.args
    if node.kwargs or len(d.facts[node].shape or ()) != 2:
        return False
    _product(d, x, weight, gradient)
    if any(map(d.needs, bias)):
        d.give(bias[0], d.emit(sum_of_rows, gradient))
    return True


def _product(d: _Differentiation, x: Any, weight: Any, gradient: Node) -> None:
    if d.needs(x):
        d.give(x, d.emit(torch.mm, gradient, d.value(weight)))
    if d.needs(weight):
        d.give(weight, d.emit(product_of_rows, gradient, d.value(x)))


def _plus_product(d: _Differentiation, node: Node, gradient: Node) -> bool:
    a, x, weight = node.args
    d.give(a, gradient)
    _product(d, x, weight, gradient)
    return True


def _relu(d: _Differentiation, node: Node, gradient: Node) -> bool:
    d.give(node.args[0], d.emit(relu_gradient, gradient, d.value(node)))
    return True


def _plus(d: _Differentiation, node: Node, gradient: Node) -> bool:
    for term in node.args:
        d.give(term, gradient)
    return True


def _standardized(d: _Differentiation, node: Node, gradient: Node) -> bool:
    x, affine = node.all_input_nodes
    if d.needs(affine):
        d.give(affine, d.emit(standardized_gradient, gradient, d.value(x), d.value(affine)))
    if d.needs(x):
        d.give(x, d.emit(scaled_columns, gradient, d.value(affine)))
    return True


def _plus_bias(d: _Differentiation, node: Node, gradient: Node) -> bool:
    d.give(node.args[0], gradient)
    if d.needs(node.args[1]):
        d.give(node.args[1], d.emit(sum_of_rows, gradient))
    return True


def _dropout(d: _Differentiation, node: Node, gradient: Node) -> bool:
    x, p, site, rows = node.args
    assert isinstance(rows, Node), "the rows are an input of every segment"
    d.give(x, d.emit(dropout, gradient, p, site, d.value(rows)))
    return True


def _item(d: _Differentiation, node: Node, gradient: Node) -> bool:
    values, position = node.args
    assert isinstance(values, Node), "constants have no gradient"
    if d.facts[values].dtype is not None:
        return False
    assert isinstance(position, int), "a tuple is read at a position"
    d.give_item(values, position, gradient)
    return True


def _scaled(d: _Differentiation, node: Node, gradient: Node) -> bool:
    """A product with one number that needs no gradient."""
    for factor, other in (node.args, node.args[::-1]):
        number = not isinstance(factor, Node) or d.facts[factor].shape in ((), (1,))
        if number and not d.needs(factor) and not node.kwargs:
            scale = d.value(factor) if isinstance(factor, Node) else factor
            d.give(other, d.emit(operator.mul, gradient, scale))
            return True
    return False


_RULES: dict[Any, Callable[[_Differentiation, Node, Node], bool]] = {
    functional.linear: _linear,
    plus_product: _plus_product,
    plus: _plus,
    plus_bias: _plus_bias,
    standardized: _standardized,
    torch.relu: _relu,
    dropout: _dropout,
    operator.getitem: _item,
    **dict.fromkeys((operator.mul, torch.mul), _scaled),
}
"""By function. Given a node and the gradient of its value, a rule gives gradients to what the node reads; one that
doesn't know the case at hand does nothing, and says so."""
