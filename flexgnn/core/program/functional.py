"""From a traced graph to one without side effects: in-place operations out of place, dropout by counter.

An in-place operation changes a tensor that other nodes may have read, or may read later under another name. Each traced
node is therefore given a cell, the memory that it stands for; nodes that return their input share its cell. An in-place
operation puts a new value into its cell, and every later reader of the cell finds it there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.nn import functional

from flexgnn.core.program.convs import AGGREGATION
from flexgnn.core.program.dropout import dropout
from flexgnn.core.program.modules import is_in_place, out_of_place
from flexgnn.core.program.norms import tracked_affine
from flexgnn.core.program.program import Reduction
from flexgnn.core.program.refusals import locate, operation, refuse
from flexgnn.core.program.trace import IN_PLACE_OPERATORS

ROWS = "rows"
"""Name of the placeholder for the :class:`~flexgnn.core.program.row_context.RowContext`."""

_VIEWS = frozenset(
    ("chunk", "contiguous", "flatten", "getitem", "reshape", "split", "squeeze", "t", "transpose", "unsqueeze", "view")
)
"""Operations whose result may share memory with their input without being the same tensor."""


@dataclass(eq=False)
class _Cell:
    value: Node
    shared: bool = False
    """Whether another cell may be a view of the same memory."""


def functionalize(root: torch.nn.Module, graph: Graph, *, training: bool) -> Graph:
    """``graph`` (traced over ``root``, in training or in evaluation) without side effects, dead code and identities.

    Modules that work in place are replaced by copies under new names of ``root``. Dropout becomes
    :func:`~flexgnn.core.program.dropout.dropout`, numbered in order.

    Raises:
        LoweringError: an in-place operation on a parameter, or on memory that views share.
    """
    functionalizer = _Functionalizer(root, training)
    for node in graph.nodes:
        functionalizer.visit(node)
    for node in reversed(functionalizer.graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            if node.target is tracked_affine:
                raise refuse(locate(node), "keeps running statistics of what nothing uses", "leave it out of forward")
            functionalizer.graph.erase_node(node)
    return functionalizer.graph


def same_computation(training: Graph, evaluation: Graph) -> bool:
    """Whether two functional graphs differ by dropout alone."""
    return _canonical(training) == _canonical(evaluation)


def _canonical(graph: Graph) -> list[str]:
    number: dict[Node, int] = {}
    lines: list[str] = []
    for node in graph.nodes:
        if node.target is dropout:
            number[node] = number[node.args[0]]
            continue
        number[node] = len(lines)
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: slice(number[n], "value"))
        lines.append(repr((node.op, node.target, args, kwargs, _without_dropout(node.meta.get(AGGREGATION)))))
    return lines


def _without_dropout(reduction: Reduction | None) -> Reduction | None:
    if reduction is None or reduction.attention is None:
        return reduction
    return replace(reduction, attention=replace(reduction.attention, dropout=0.0, site=0))


class _Functionalizer:
    def __init__(self, root: torch.nn.Module, training: bool) -> None:
        self.root = root
        self.training = training
        self.graph = Graph()
        self.cells: dict[Node, _Cell] = {}
        self.rows: Node | None = None
        self.sites = 0

    def visit(self, node: Node) -> None:
        if node.op != "placeholder" and self.rows is None:
            self.rows = self.graph.placeholder(ROWS)
        if node.op == "call_module":
            self._visit_module(node)
        elif node.op == "call_function":
            self._visit_function(node)
        elif node.op == "call_method":
            name = str(node.target)
            if name.endswith("_") and not name.endswith("__"):
                self._overwrite(node, target=name[:-1])
            else:
                self._compute(node, view=name in _VIEWS)
        else:
            self._compute(node)

    def _visit_module(self, node: Node) -> None:
        module = self.root.get_submodule(str(node.target))
        if isinstance(module, torch.nn.Identity):
            self.cells[node] = self.cells[_subject(node)]
        elif isinstance(module, torch.nn.Dropout):
            self._drop(node, module.p, self.training, module.inplace)
        elif is_in_place(module):
            name = f"out_of_place_{str(node.target).replace('.', '_')}"
            self.root.add_module(name, out_of_place(module))
            self._overwrite(node, target=name)
        else:
            self._compute(node)

    def _visit_function(self, node: Node) -> None:
        function: Any = node.target
        name = getattr(function, "__name__", "")
        arguments = _bind(function, node)
        if function is functional.dropout:
            self._drop(node, arguments["p"], arguments["training"], arguments["inplace"])
        elif function is tracked_affine:
            self._compute(node)
            assert self.rows is not None, "made before the first operation"
            self.cells[node].value.args += (self.rows,)
        elif function in IN_PLACE_OPERATORS:
            self._overwrite(node, target=IN_PLACE_OPERATORS[function])
        elif arguments.get("inplace") is True:
            self._overwrite(node, arguments={**arguments, "inplace": False})
        elif name.endswith("_") and not name.endswith("__"):
            self._overwrite(node, target=getattr(torch, name[:-1], None) or getattr(functional, name[:-1], function))
        elif node.kwargs.get("out") is not None:
            raise refuse(operation(node), "writes into another tensor", "use its return value instead of out=")
        else:
            self._compute(node, view=name in _VIEWS)

    def _copy(self, node: Node) -> Node:
        copy = self.graph.node_copy(node, lambda used: self.cells[used].value)
        copy.meta = dict(node.meta)
        reduction: Reduction | None = copy.meta.get(AGGREGATION)
        if reduction is not None and reduction.attention is not None and reduction.attention.dropout:
            numbered = replace(reduction.attention, site=self._next_site())
            copy.meta[AGGREGATION] = replace(reduction, attention=numbered)
        return copy

    def _next_site(self) -> int:
        self.sites += 1
        return self.sites - 1

    def _compute(self, node: Node, view: bool = False) -> None:
        self.cells[node] = _Cell(self._copy(node), shared=view)
        if view:
            self.cells[_subject(node)].shared = True

    def _overwrite(
        self,
        node: Node,
        *,
        target: Callable[..., Any] | str | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        """``node`` works in place: compute its value by ``target`` or with ``arguments``, for all later readers."""
        cell = self._writable(node)
        value = self._copy(node)
        if target is not None:
            value.target = target
        if arguments is not None:
            value.args = ()
            value.kwargs = torch.fx.node.map_arg(arguments, lambda used: self.cells[used].value)
        cell.value = value
        self.cells[node] = cell

    def _writable(self, node: Node) -> _Cell:
        cell = self.cells[_subject(node)]
        if cell.value.op == "get_attr":
            raise refuse(operation(node), "writes to a parameter or buffer in forward", "compute a new tensor instead")
        if cell.shared:
            raise refuse(
                operation(node), "works in place on a tensor of which there are views", "use its out-of-place form"
            )
        return cell

    def _drop(self, node: Node, p: float, active: bool, in_place: bool) -> None:
        if not 0 <= p <= 1:
            raise refuse(operation(node), f"has p={p}", "use a probability from 0 to 1")
        if not active or p == 0:  # torch returns the input itself
            self.cells[node] = self.cells[_subject(node)]
            return
        if not self.training:
            raise refuse(
                operation(node), "is on in evaluation as well as in training", "pass training=self.training to it"
            )
        cell = self._writable(node) if in_place else None
        value = self.graph.call_function(dropout, (self.cells[_subject(node)].value, p, self._next_site(), self.rows))
        value.meta = dict(node.meta)
        if cell is None:
            cell = _Cell(value)
        cell.value = value
        self.cells[node] = cell


def _subject(node: Node) -> Node:
    """The tensor that an operation is applied to."""
    subject = node.args[0] if node.args else node.kwargs.get("input")
    if not isinstance(subject, Node):
        raise refuse(operation(node), "is applied to no single tensor", "give it one tensor")
    return subject


def _bind(function: Any, node: Node) -> dict[str, Any]:
    """Arguments by name for a function written in Python; none for a built-in."""
    try:
        bound = inspect.signature(function).bind(*node.args, **node.kwargs)
    except (TypeError, ValueError):
        return {}
    bound.apply_defaults()
    return bound.arguments
