"""The rewrite ``fold``: aggregations of the features alone, which are the same in every epoch, become stored values."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor
from torch.fx import Graph, Node

from flexgnn.core.program.adjacency import adjacency_label, vector_names
from flexgnn.core.program.convs import AGGREGATION, aggregated
from flexgnn.core.program.functional import ROWS
from flexgnn.core.program.program import (
    Adjacency,
    Aggregation,
    Folded,
    Program,
    Reduce,
    Segment,
    is_stored,
)
from flexgnn.core.program.row_context import RowContext

_OUTPUT = "logits"
_AGGREGATED = "agg1"
_COLUMNS = "h0"


def is_foldable(node: Node) -> bool:
    """Whether ``node`` is a stored value, or made from one by aggregations alone."""
    while node.target is aggregated and node.meta[AGGREGATION].reduce in ("sum", "max"):
        (node,) = node.all_input_nodes
    return node.op == "placeholder" and is_stored(str(node.target))


def fold(graph: Graph) -> tuple[Folded, ...]:
    """Replace aggregations of stored values in ``graph`` by stored values, except for one that is the output."""
    folded: dict[str, Node] = {}
    found: list[Folded] = []
    rows = next(node for node in graph.nodes if node.target == ROWS)
    for node in list(graph.nodes):
        if node.target is not aggregated or not is_foldable(node) or any(user.op == "output" for user in node.users):
            continue
        value = str(node.all_input_nodes[0].target)
        reduction = node.meta[AGGREGATION]
        name = _folded_name(value, reduction.reduce, reduction.adjacency)
        if name not in folded:
            with graph.inserting_before(rows):
                folded[name] = graph.placeholder(name)
            found.append(Folded(name=name, input=value, reduce=reduction.reduce, adjacency=reduction.adjacency))
        node.replace_all_uses_with(folded[name])
        graph.erase_node(node)
    return tuple(found)


def _folded_name(value: str, reduce: Reduce, adjacency: Adjacency) -> str:
    """``x_mean`` for the mean of the features: says all that the result depends on, the graph excepted."""
    label = adjacency_label(adjacency)
    return re.sub(r"\W", "_", f"{value}_{label.replace('none', reduce, 1)}")


def folding_program(program: Program, folded: Folded, columns: range) -> Program:
    """A network without parameters whose output is some ``columns`` of ``folded``, which ``program`` reads.

    It pulls from the stored input itself where all columns are wanted as they are, else from a copy of some.
    """
    width = program.widths[folded.name]
    stored = {name: its_width for name, its_width in program.widths.items() if is_stored(name)}
    direct = len(columns) == width and vector_names(folded.adjacency).neighbor is None
    source = folded.input if direct else _COLUMNS

    def choose(inputs: Sequence[Tensor], rows: RowContext) -> tuple[Tensor, ...]:
        return tuple(tensor[:, columns.start : columns.stop] for tensor in inputs)

    def keep(inputs: Sequence[Tensor], rows: RowContext) -> tuple[Tensor, ...]:
        return tuple(inputs)

    given, chosen = ((), ()) if direct else ((folded.input,), (_COLUMNS,))
    return Program(
        segments=(
            Segment(stage=0, inputs=given, outputs=chosen, run=choose),
            Segment(stage=1, inputs=(_AGGREGATED,), outputs=(_OUTPUT,), run=keep),
        ),
        aggregations=(
            Aggregation(stage=1, input=source, output=_AGGREGATED, reduce=folded.reduce, adjacency=folded.adjacency),
        ),
        widths={**stored, **dict.fromkeys({source, _AGGREGATED, _OUTPUT}, len(columns))},
        needs_grad=frozenset(),
        evaluates_apart=False,
        folded=program.folded,
        labelled=False,
    )
