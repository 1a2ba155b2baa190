"""Whether every operation of a graph works on each row alone, checked while a few rows flow through it.

A tensor with rows has them in its first dimension. Tensors made from parameters alone have none, and may only meet rows
by broadcasting over them. An operation that is not listed here is refused, as is a listed one whose arguments reach
across rows.

Shape legend: R rows of the probe, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, Interpreter, Node

from flexgnn.core.errors import LoweringError
from flexgnn.core.program.convolution_check import checked_width
from flexgnn.core.program.convs import AGGREGATION, EDGE_INDEX, aggregated, is_convolution
from flexgnn.core.program.dropout import dropout
from flexgnn.core.program.edge_inputs import EdgeInput
from flexgnn.core.program.functional import ROWS
from flexgnn.core.program.modules import module_problem
from flexgnn.core.program.moments import column_moments
from flexgnn.core.program.norms import AFFINE_FUNCTIONS
from flexgnn.core.program.operations import OPERATIONS, Operand, operation_name
from flexgnn.core.program.program import is_stored
from flexgnn.core.program.refusals import locate, operation, refuse
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.program.row_functions import standardized

PROBE_ROWS = 5
_OF_EDGES = (EDGE_INDEX, *(given.value for given in EdgeInput))
EVALUATION = RowContext(start=0, seed=0, epoch=0, training=False)


@dataclass(frozen=True, kw_only=True)
class Fact:
    """What is known of a node's value."""

    stage: int | None
    """The first stage at which it can be computed; None: it depends on parameters alone."""
    has_rows: bool
    """False: it depends on parameters and moments alone."""
    shape: tuple[int, ...] | None
    """Of a tensor, rows first; None: a tuple of tensors."""
    dtype: torch.dtype | None
    """None: a tuple of tensors."""
    needs_grad: bool
    """Whether it depends on a trainable parameter."""

    @property
    def is_value(self) -> bool:
        """Whether it can be stored between segments: an N x D tensor."""
        return self.has_rows and self.shape is not None and len(self.shape) == 2 and self.dtype is torch.float32

    @property
    def has_derivative(self) -> bool:
        """Whether it is made of real numbers; of a tuple, whether it may be."""
        return self.dtype is None or self.dtype.is_floating_point


NO_VALUE = Fact(stage=None, has_rows=False, shape=None, dtype=None, needs_grad=False)
"""Of the row context."""


def parameter_fact(parameter: torch.Tensor) -> Fact:
    """The fact of a node that reads a parameter."""
    return Fact(
        stage=None,
        has_rows=False,
        shape=tuple(parameter.shape),
        dtype=parameter.dtype,
        needs_grad=parameter.requires_grad,
    )


def check_rows(root: torch.nn.Module, graph: Graph, widths: Mapping[str, int]) -> dict[Node, Fact]:
    """Facts of every node of a functional graph over ``root``, given the columns of each stored value that it reads.

    Raises:
        LoweringError: an operation reads the graph, or reaches across rows, or isn't known not to; or the model
            does not take so many columns; or its output is not one N x C tensor.
    """
    module = torch.fx.GraphModule(root, graph)
    generator = torch.Generator().manual_seed(0)
    probes = {name: torch.randn(PROBE_ROWS, width, generator=generator) for name, width in widths.items()}
    inputs = {**probes, ROWS: EVALUATION}
    checker = _Checker(module)
    with torch.no_grad():
        checker.run(*(inputs.get(str(node.target)) for node in module.graph.nodes if node.op == "placeholder"))
    return {node: checker.facts[copy] for node, copy in zip(graph.nodes, module.graph.nodes, strict=True)}


class _Checker(Interpreter):
    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False  # it would be appended to the messages of refusals
        self.facts: dict[Node, Fact] = {}

    def run_node(self, n: Node) -> Any:
        if n.op == "output":
            self._check_output(n)
        elif n.op not in ("placeholder", "get_attr"):
            self._check_operation(n)
        try:
            value = self._convolved(n) if is_convolution(n) else super().run_node(n)
        except LoweringError:
            raise
        except Exception as error:
            raise LoweringError(f"{operation(n)} doesn't accept its input: {error}") from error
        self.facts[n] = self._fact(n, value)
        self._check_value(n, value)
        return value

    def _convolved(self, node: Node) -> torch.Tensor:
        """A tensor of the shape that a convolution returns which is run as it is."""
        columns = (self.facts[node.all_input_nodes[0]].shape or ())[1]
        return torch.zeros(PROBE_ROWS, checked_width(node.meta[AGGREGATION].convolution, columns))

    def _stage(self, node: Node) -> int | None:
        if node.op == "placeholder":
            return 0 if is_stored(str(node.target)) else None
        stages = [self.facts[used].stage for used in node.all_input_nodes]
        stage = max((s for s in stages if s is not None), default=None)
        return stage + 1 if node.target in (aggregated, column_moments) and stage is not None else stage

    def _has_rows(self, node: Node) -> bool:
        if node.op == "placeholder":
            return is_stored(str(node.target))
        return node.target is not column_moments and any(self.facts[used].has_rows for used in node.all_input_nodes)

    def _fact(self, node: Node, value: Any) -> Fact:
        is_tensor = isinstance(value, torch.Tensor)
        parameters: list[torch.Tensor] = []
        if node.op == "get_attr":
            parameters = [value]
        elif node.op == "call_module":
            parameters = list(self.module.get_submodule(str(node.target)).parameters())
        elif is_convolution(node):
            parameters = list(node.meta[AGGREGATION].convolution.parameters)
        return Fact(
            stage=self._stage(node),
            has_rows=self._has_rows(node),
            shape=tuple(value.shape) if is_tensor else None,
            dtype=value.dtype if is_tensor else None,
            needs_grad=any(p.requires_grad for p in parameters)
            or any(self.facts[used].needs_grad for used in node.all_input_nodes),
        )

    def _check_operation(self, node: Node) -> None:
        for used in node.all_input_nodes:
            if used.op == "placeholder" and used.target in _OF_EDGES:
                raise refuse(operation(node), f"reads {used.target}", "only convolutions may read the graph")
        if node.op == "call_module":
            problem = self._module_problem(node)
        elif node.target in (aggregated, column_moments):
            fact = self.facts[node.all_input_nodes[0]]
            what = "aggregates" if node.target is aggregated else "takes statistics of"
            if not fact.is_value:
                problem = f"{what} a tensor that isn't N x D float32 (shape {fact.shape})"
                raise refuse(locate(node), problem, "give it one row of features a node")
            problem = None
        elif node.target in (dropout, standardized) or node.target in AFFINE_FUNCTIONS:
            problem = None
        else:
            problem = self._function_problem(node)
        if problem is not None:
            remedy = "outside convolutions, a row of the output may need only the same row of the input"
            raise refuse(operation(node), problem, remedy)

    def _module_problem(self, node: Node) -> str | None:
        tensors = [*node.args, *node.kwargs.values()]
        fact = self.facts[tensors[0]] if isinstance(tensors[0], Node) else None
        if fact is None or fact.shape is None or any(other is not None for other in tensors[1:]):
            return "is not called with one tensor"
        if not fact.has_rows:
            return None
        return module_problem(self.module.get_submodule(str(node.target)), fact.shape)

    def _function_problem(self, node: Node) -> str | None:
        name = operation_name(node)
        if name is None:
            return "is not an operation that FlexGNN knows to work on each row alone"
        operands = {
            used: Operand(shape=self.facts[used].shape, has_rows=self.facts[used].has_rows)
            for used in node.all_input_nodes
        }
        if not any(operand.has_rows for operand in operands.values()):
            return None
        return OPERATIONS[name](node, operands)

    def _check_value(self, node: Node, value: Any) -> None:
        if not self.facts[node].has_rows or node.op == "output":
            return
        for tensor in value if isinstance(value, tuple | list) else (value,):
            if not isinstance(tensor, torch.Tensor) or tensor.ndim == 0 or tensor.shape[0] != PROBE_ROWS:
                raise refuse(operation(node), "doesn't keep one row a node", "keep nodes in the first dimension")

    def _check_output(self, node: Node) -> None:
        output = node.args[0]
        if isinstance(output, Node):
            fact = self.facts[output]
            computed = fact.has_rows and output.op != "placeholder"
            if computed and fact.is_value:
                return
            shape = ", ".join(["N", *map(str, (fact.shape or ())[1:])])
            found = f"a tensor of shape ({shape})" if computed else "its input, or what doesn't depend on it"
        else:
            found = f"a {type(output).__name__}"
        raise refuse("the model", f"returns {found}", "it must return one float32 tensor of N rows and C classes")
