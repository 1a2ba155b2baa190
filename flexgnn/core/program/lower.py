"""From a PyTorch Geometric model to a :class:`~flexgnn.core.program.program.Program`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.fx import Graph, Node

from flexgnn.core.program.building import build_segment
from flexgnn.core.program.convolution import Convolution
from flexgnn.core.program.convs import AGGREGATION
from flexgnn.core.program.dropout import dropout
from flexgnn.core.program.edge_inputs import NO_EDGE_INPUTS, EdgeInputs
from flexgnn.core.program.functional import functionalize, same_computation
from flexgnn.core.program.norms import tracked_affine
from flexgnn.core.program.partition import Partition, partition
from flexgnn.core.program.program import Aggregation, Moment, Program, RunningStatistics, is_stored
from flexgnn.core.program.refusals import refuse
from flexgnn.core.program.rewrites import ALL_REWRITES, Rewritten, checked_rewrites, rewrite
from flexgnn.core.program.row_local import Fact
from flexgnn.core.program.trace import make_root, trace


def lower(
    model: torch.nn.Module,
    *,
    num_features: int,
    edges: EdgeInputs = NO_EDGE_INPUTS,
    rewrites: Sequence[str] = ALL_REWRITES,
    output: str | None = None,
    links: Convolution | None = None,
) -> Program:
    """``model`` as segments and aggregations that compute the same, with the model's own parameters.

    The model is left as it is: its modes, attributes and random state. Which parameters are trainable is read now.

    Args:
        model: ``forward(x, edge_index)``, with ``edge_weight``, ``edge_attr`` and ``edge_type`` where it takes them, to
            one N x C tensor of logits, built from convolutions and row-local operations.
        num_features: columns of ``x``.
        edges: what the graph has for each edge. What a model or convolution does not take is ignored, as in PyG.
        rewrites: those that may be made; see :mod:`flexgnn.core.program.rewrites`.
        output: path of a module that the forward calls once, to compute what that returns, and no more, instead.
        links: to be applied to what the model returns; the program's output is that of it.

    Raises:
        ConfigError: there is no such rewrite.
        LoweringError: the model can't be run block by block with the same result; the message names the module, the
            reason and what to use instead.
    """
    chosen = checked_rewrites(rewrites)
    root = make_root(model, edges, links)
    graph = functionalize(root, trace(root, training=True, output=output), training=True)
    evaluation = functionalize(root, trace(root, training=False, output=output), training=False)
    if not same_computation(graph, evaluation):
        raise refuse(
            type(model).__name__,
            "computes something else in evaluation than in training, or at each call",
            "only dropout may differ: don't use self.training or random numbers in forward otherwise",
        )
    return _assemble(root, graph, rewrite(root, graph, num_features, chosen), chosen)


def _assemble(root: torch.nn.Module, graph: Graph, rewritten: Rewritten, rewrites: frozenset[str]) -> Program:
    facts = rewritten.facts
    cut = partition(graph, facts)
    widths, with_gradients = _values(cut, facts)
    computed = frozenset(name for name in widths if not is_stored(name))
    needs_grad = with_gradients if "gradients" in rewrites else computed | with_gradients
    segments = [build_segment(root, graph, cut, stage, facts, needs_grad) for stage in range(len(cut.parts))]
    aggregations = tuple(_aggregation(node, cut, facts) for node in cut.aggregations)
    hidden = {name: width for s in segments if s.retaining for name, width in s.retaining.hidden.items()}
    return Program(
        segments=tuple(segments),
        aggregations=aggregations,
        widths=widths | hidden,
        needs_grad=needs_grad,
        evaluates_apart=any(n.target in (dropout, tracked_affine) for part in cut.parts for n in part.body)
        or any(a.attention is not None and a.attention.dropout > 0 for a in aggregations),
        moments=tuple(_moment(node, cut, facts) for node in cut.moments),
        running=tuple(_running(root, graph, cut)),
        folded=rewritten.folded,
        fused="fuse" in rewrites,
        rewrites=(*rewritten.notes, *_notes(rewrites, sorted(computed - needs_grad))),
    )


def _notes(rewrites: frozenset[str], without_gradient: Sequence[str]) -> Iterator[str]:
    """What the rewrites that don't concern the graph do, in words."""
    if "fuse" in rewrites:
        yield "fuse: each tile is computed as soon as it is pulled"
    if without_gradient:
        yield f"gradients: none is computed for {', '.join(without_gradient)}"


def _values(cut: Partition, facts: dict[Node, Fact]) -> tuple[dict[str, int], frozenset[str]]:
    named = [*cut.names.items(), *cut.aggregation_names.items()]
    widths = {name: shape[1] for node, name in named if (shape := facts[node].shape) is not None}
    return widths, frozenset(name for node, name in [*named, *cut.moment_names.items()] if facts[node].needs_grad)


def _moment(node: Node, cut: Partition, facts: dict[Node, Fact]) -> Moment:
    value = node.all_input_nodes[0]
    return Moment(
        name=cut.moment_names[node],
        value=cut.names[value],
        stage=(facts[node].stage or 0) - 1,
        width=(facts[value].shape or ())[1],
        in_evaluation=any(user.target is not tracked_affine for user in node.users),
    )


def _running(root: torch.nn.Module, graph: Graph, cut: Partition) -> Iterator[RunningStatistics]:
    """In the order in which a forward pass of the model would update them."""
    for node in graph.nodes:
        if node.target is tracked_affine:
            moments, mean = node.all_input_nodes[:2]
            norm = root.get_submodule(str(mean.target).rpartition(".")[0])
            yield RunningStatistics(norm=norm, moment=cut.moment_names[moments])


def _aggregation(node: Node, cut: Partition, facts: dict[Node, Fact]) -> Aggregation:
    reduction, inputs = node.meta[AGGREGATION], node.all_input_nodes
    return Aggregation(
        stage=facts[node].stage or 0,
        input=cut.names[inputs[0]],
        output=cut.aggregation_names[node],
        reduce=reduction.reduce,
        adjacency=reduction.adjacency,
        attention=reduction.attention,
        convolution=reduction.convolution,
        query=None if reduction.attention is None else cut.names[inputs[1]],
    )
