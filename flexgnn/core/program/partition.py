"""Which segment computes what: a functional graph cut at its aggregations and moments.

A row-local operation could run at any stage from the one where its inputs exist. It is placed as late as possible, at
the first stage that needs its result: what crosses from a stage to a later one has to be stored, and the operations of
a later stage can often start from what is stored anyway (GraphSAGE's root term from the aggregated layer input).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch.fx import Graph, Node

from flexgnn.core.program.convs import aggregated
from flexgnn.core.program.moments import column_moments
from flexgnn.core.program.program import is_stored
from flexgnn.core.program.row_local import Fact

LOGITS = "logits"


@dataclass(kw_only=True)
class Part:
    """The nodes of one segment, as sets; their order is that of the graph."""

    inputs: set[Node] = field(default_factory=set)
    body: set[Node] = field(default_factory=set)
    outputs: set[Node] = field(default_factory=set)
    moments: set[Node] = field(default_factory=set)
    """Those that it reads."""


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A cut graph. Nodes are those of the graph."""

    parts: tuple[Part, ...]
    """One a stage. Their inputs and outputs are stored values, aggregations, and operations."""
    aggregations: tuple[Node, ...]
    """Those that the logits depend on, by stage, then in the order of the graph."""
    moments: tuple[Node, ...]
    """Likewise."""
    names: dict[Node, str]
    """Of stored values, and of what segments put out."""
    aggregation_names: dict[Node, str]
    """Of what aggregations put out. A segment may put out the same under a name of its own."""
    moment_names: dict[Node, str]

    def input_name(self, node: Node, stage: int, facts: dict[Node, Fact]) -> str:
        """The name of the value under which segment ``stage`` reads ``node``."""
        own = node.target is aggregated and facts[node].stage == stage
        return self.aggregation_names[node] if own else self.names[node]


def partition(graph: Graph, facts: dict[Node, Fact]) -> Partition:
    """Cut a functional graph whose every operation is row-local, given the facts of its nodes."""
    order = {node: position for position, node in enumerate(graph.nodes)}
    output = next(iter(reversed(graph.nodes)))
    logits = output.all_input_nodes[0]
    needed = sorted(_needed(logits), key=lambda node: (_stage(facts, node), order[node]))
    aggregations = [node for node in needed if node.target is aggregated]
    moments = [node for node in needed if node.target is column_moments]
    parts = _place(logits, [*aggregations, *moments], facts)

    names = {node: str(node.target) for node in graph.nodes if _is_stored(node)}
    for stage, part in enumerate(parts[:-1]):
        names.update(_numbered(f"h{stage}", sorted(part.outputs, key=order.__getitem__)))
    names[logits] = LOGITS
    aggregation_names: dict[Node, str] = {}
    moment_names: dict[Node, str] = {}
    for stage in range(1, len(parts)):
        aggregation_names.update(_numbered(f"agg{stage}", [a for a in aggregations if facts[a].stage == stage]))
        moment_names.update(_numbered(f"moments{stage}", [m for m in moments if facts[m].stage == stage]))
    return Partition(
        parts=tuple(parts),
        aggregations=tuple(aggregations),
        moments=tuple(moments),
        names=names,
        aggregation_names=aggregation_names,
        moment_names=moment_names,
    )


def _is_stored(node: Node) -> bool:
    return node.op == "placeholder" and is_stored(str(node.target))


def _stage(facts: dict[Node, Fact], node: Node) -> int:
    return facts[node].stage or 0


def _needed(logits: Node) -> set[Node]:
    seen: set[Node] = set()
    pending = [logits]
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            pending += node.all_input_nodes
    return seen


def _numbered(stem: str, nodes: list[Node]) -> dict[Node, str]:
    """``stem`` for the first, ``stem_2`` for the second, and so on."""
    return {node: stem if position == 1 else f"{stem}_{position}" for position, node in enumerate(nodes, start=1)}


def _place(logits: Node, reductions: list[Node], facts: dict[Node, Fact]) -> list[Part]:
    """``reductions``: aggregations and moments, whose inputs have to be there at the stage before theirs."""
    parts = [Part() for _ in range(_stage(facts, logits) + 1)]
    home: dict[Node, int] = {}
    for stage, part in enumerate(parts):
        due = [node for node in reductions if facts[node].stage == stage + 1]
        measured = [node.all_input_nodes[0] for node in due if node.target is column_moments]
        part.inputs.update(node for node in measured if node.op == "placeholder")
        demanded = [used for node in due for used in node.all_input_nodes]
        demanded = [node for node in demanded if node.op != "placeholder"]
        if stage == len(parts) - 1:
            demanded.append(logits)
        part.outputs.update(demanded)
        pending = demanded
        while pending:
            node = pending.pop()
            if node not in part.body and node not in part.inputs:
                pending += _visit(node, stage, parts, home, facts)
    return parts


def _visit(node: Node, stage: int, parts: list[Part], home: dict[Node, int], facts: dict[Node, Fact]) -> list[Node]:
    """Make ``node`` available at ``stage``; return what that needs."""
    part = parts[stage]
    if node.op == "placeholder":
        if _is_stored(node):  # the other is the row context, which every segment gets
            part.inputs.add(node)
        return []
    if node.target is column_moments:
        part.moments.add(node)
        return []
    if node.target is aggregated:
        produced = _stage(facts, node)
        if produced < stage:  # only segment ``produced`` reads the aggregation, and passes it on
            parts[produced].inputs.add(node)
            parts[produced].outputs.add(node)
        part.inputs.add(node)
        return []
    if facts[node].is_value and home.get(node, stage) < stage:
        parts[home[node]].outputs.add(node)
        part.inputs.add(node)
        return []
    home.setdefault(node, stage)
    part.body.add(node)
    return node.all_input_nodes
