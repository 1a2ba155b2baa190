"""From a part of a cut graph to a segment: its function, and the derivative."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from flexgnn.core.errors import LoweringError
from flexgnn.core.program.derivative import derivative, parameters_of, tensors_of, trainable
from flexgnn.core.program.functional import ROWS
from flexgnn.core.program.hidden import hidden_values
from flexgnn.core.program.in_place import reuse_memory
from flexgnn.core.program.partition import Partition
from flexgnn.core.program.program import Segment
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.program.row_local import EVALUATION, NO_VALUE, PROBE_ROWS, Fact
from flexgnn.core.program.simplify import simplify


def build_segment(
    root: torch.nn.Module,
    graph: Graph,
    cut: Partition,
    stage: int,
    facts: dict[Node, Fact],
    needs_grad: frozenset[str],
) -> Segment:
    """Segment ``stage`` of ``graph`` over ``root``, given the facts of its nodes and which values need a gradient.

    Raises:
        LoweringError: it turns out not to be row-local.
    """
    part = cut.parts[stage]
    local = Graph()
    copies: dict[Node, Node] = {}
    inputs = {node: cut.input_name(node, stage, facts) for node in graph.nodes if node in part.inputs}
    for node, name in inputs.items():
        copies[node] = local.placeholder(name)
    moments = {node: cut.moment_names[node] for node in graph.nodes if node in part.moments}
    for node, name in moments.items():
        copies[node] = local.placeholder(name)
    rows = local.placeholder(ROWS)
    for node in graph.nodes:
        if node in part.body:
            copies[node] = local.node_copy(node, lambda used: copies.get(used, rows))
    outputs = {cut.names[node]: copies[node] for node in graph.nodes if node in part.outputs}
    local.output(tuple(outputs.values()))
    local_facts = _local_facts(root, local, {copies[node]: facts[node] for node in copies}, needs_grad)
    simplify(root, local, local_facts)
    return _Builder(root, local, local_facts, stage).build(
        inputs=tuple(inputs.values()),
        moments=tuple(moments.values()),
        outputs=outputs,
        last=stage == len(cut.parts) - 1,
    )


class _Builder:
    """The functions of one segment, from its simplified graph."""

    def __init__(self, root: torch.nn.Module, graph: Graph, facts: dict[Node, Fact], stage: int) -> None:
        self._root, self._graph, self._facts, self._stage = root, graph, facts, stage

    def build(
        self, *, inputs: tuple[str, ...], moments: tuple[str, ...], outputs: dict[str, Node], last: bool
    ) -> Segment:
        """``outputs`` are nodes of the graph, by name; gradients of the ``last`` segment's depend on their values."""
        gradients, read = derivative(self._root, self._graph, self._facts, list(outputs), sees_outputs=last)
        plain = Segment(
            stage=self._stage,
            inputs=inputs,
            moments=moments,
            outputs=tuple(outputs),
            run=_runner(self._forward(outputs)),
            parameters=parameters_of(self._root, self._graph),
            tensors=tensors_of(self._root, self._graph),
            differentiate=gradients,
        )
        # The last segment is differentiated in the step that runs it.
        hidden = () if last else hidden_values(self._root, self._graph, self._facts, read)
        return replace(plain, retaining=self._retaining(plain, outputs, hidden)) if hidden else plain

    def _retaining(self, plain: Segment, outputs: dict[str, Node], hidden: tuple[Node, ...]) -> Segment:
        names = {node: name for name, node in outputs.items()}
        named = {names.get(node, f"segment {self._stage} {node.name}"): node for node in hidden}
        gradients, _ = derivative(
            self._root, self._graph, self._facts, list(outputs), sees_outputs=False, hidden=hidden
        )
        return replace(
            plain,
            outputs=tuple({**outputs, **named}),
            run=_runner(self._forward({**outputs, **named})),
            differentiate=gradients,
            hidden={name: (self._facts[node].shape or ())[1] for name, node in named.items()},
        )

    def _forward(self, outputs: dict[str, Node]) -> GraphModule:
        """A module from the inputs to ``outputs``, checked to be row-local."""
        graph, copies = Graph(), dict[Node, Node]()
        graph.graph_copy(self._graph, copies)
        graph.output(tuple(copies[node] for node in outputs.values()))
        reuse_memory(graph)
        module = GraphModule(self._root, graph, class_name=f"Segment{self._stage}")
        inputs = [node for node in self._graph.nodes if node.op == "placeholder" and node.target != ROWS]
        _verify_rows(module, self._stage, [self._facts[node] for node in inputs])
        return module


def _local_facts(
    root: torch.nn.Module, local: Graph, facts: dict[Node, Fact], needs_grad: frozenset[str]
) -> dict[Node, Fact]:
    """Facts of a segment's nodes, in which its inputs need the gradients that others compute for them."""
    found: dict[Node, Fact] = {}
    for node in local.nodes:
        if node.op == "output":
            continue
        if node.op == "placeholder":
            needed = node.target in needs_grad
        else:
            needed = bool(trainable(root, node)) or any(found[used].needs_grad for used in node.all_input_nodes)
        found[node] = replace(facts.get(node, NO_VALUE), needs_grad=needed)
    return found


def _runner(module: GraphModule) -> Callable[[Sequence[Tensor], RowContext], tuple[Tensor, ...]]:
    def run(inputs: Sequence[Tensor], rows: RowContext) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = module(*inputs, rows)
        return outputs

    return run


def _verify_rows(module: GraphModule, stage: int, operands: Sequence[Fact]) -> None:
    """Run a segment on a few rows together and one by one: a second guard, beside the check of each operation.

    ``operands`` are facts of its inputs and moments.
    In float64, where rounding can't be mistaken for a dependence between rows.
    """
    double = copy.deepcopy(module).double()
    generator = torch.Generator().manual_seed(stage)
    drawn = [torch.randn(fact.shape or (), generator=generator, dtype=torch.float64) for fact in operands]
    inputs = [values if fact.has_rows else values.abs() for values, fact in zip(drawn, operands, strict=True)]
    with torch.no_grad():
        together = double(*inputs, EVALUATION)
        for row in range(PROBE_ROWS):
            single_row = zip(inputs, operands, strict=True)
            alone = double(*(v[row : row + 1] if fact.has_rows else v for v, fact in single_row), EVALUATION)
            for whole, single in zip(together, alone, strict=True):
                if not torch.allclose(whole[row : row + 1], single, rtol=1e-6, atol=1e-9, equal_nan=True):
                    raise LoweringError(
                        f"segment {stage} of the model gives a row another value alone than among other rows; "
                        "please report the model: FlexGNN took each of its operations to be row-local"
                    )
