"""A program run in memory, straight from its definition, beside the model that it was lowered from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from flexgnn.core.program.edge_inputs import EdgeInputs
from flexgnn.core.program.lower import lower
from flexgnn.core.program.program import Adjacency, Aggregation, Folded, Program, Segment
from flexgnn.core.program.rewrites import ALL_REWRITES
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.program.segments import run_backward, run_forward

EVALUATION = RowContext(start=0, seed=0, epoch=0, training=False)


@dataclass(frozen=True)
class SmallGraph:
    """Directed edges in any order, with loops, duplicates and isolated nodes."""

    x: Tensor
    edge_index: Tensor
    edge_weight: Tensor | None


def random_graph(
    seed: int = 0, *, num_nodes: int = 13, num_edges: int = 40, num_features: int = 6, weighted: bool = False
) -> SmallGraph:
    generator = torch.Generator().manual_seed(seed)
    # The last two nodes stay isolated; every tenth edge is a loop, the last few repeat the first.
    edge_index = torch.randint(0, max(1, num_nodes - 2), (2, num_edges), generator=generator)
    edge_index[1, ::10] = edge_index[0, ::10]
    repeated = min(4, num_edges // 2)
    edge_index[:, num_edges - repeated :] = edge_index[:, :repeated]
    weight = torch.rand(num_edges, generator=generator) + 0.1 if weighted else None
    return SmallGraph(torch.randn(num_nodes, num_features, generator=generator), edge_index, weight)


def dense_adjacency(adjacency: Adjacency, graph: SmallGraph) -> Tensor:
    num_nodes = graph.x.shape[0]
    source, target = graph.edge_index.tolist()
    weights = [1.0] * len(source)
    if adjacency.weighted:
        assert graph.edge_weight is not None
        weights = graph.edge_weight.tolist()
    matrix = torch.zeros(num_nodes, num_nodes, dtype=torch.float64)
    one_loop = adjacency.self_loop_weight is not None
    if one_loop:
        matrix.fill_diagonal_(adjacency.self_loop_weight)
    for j, i, weight in zip(source, target, weights, strict=True):
        if not (one_loop and i == j):
            matrix[i, j] += weight
        elif adjacency.weighted:
            matrix[i, i] = weight
    if adjacency.normalization == "mean":
        in_edges = torch.bincount(graph.edge_index[1], minlength=num_nodes)
        matrix /= in_edges.clamp(min=1)[:, None]
    elif adjacency.normalization == "gcn":
        scale = matrix.sum(1) ** -0.5
        scale[torch.isinf(scale)] = 0
        matrix = scale[:, None] * matrix * scale[None, :]
    return matrix.float()


def aggregate(aggregation: Aggregation | Folded, value: Tensor, graph: SmallGraph) -> Tensor:
    if aggregation.reduce == "sum":
        return dense_adjacency(aggregation.adjacency, graph) @ value
    source, target = graph.edge_index
    index = target[:, None].expand(-1, value.shape[1])
    return torch.zeros_like(value).scatter_reduce(0, index, value[source], "amax", include_self=False)


def check_retaining(segment, values, rows, needs_grad, given, expected):
    """With its hidden values at hand, a segment has the same outputs and gradients, to the bit."""
    outputs = run_forward(segment, values, rows)
    assert set(segment.hidden) <= set(outputs)
    kept = {name: outputs[name].clone() for name in segment.hidden}
    upstream = {name: gradient.clone() for name, gradient in given.items()}
    inputs, parameters = run_backward(segment, {**values, **kept}, rows, needs_grad, lambda _: upstream)
    for mine, theirs in zip([*inputs.values(), *parameters], expected, strict=True):
        assert mine is theirs is None or torch.equal(mine, theirs)


class SegmentFunction(torch.autograd.Function):
    """A segment with its own derivative, as autograd sees it."""

    @staticmethod
    def forward(ctx, segment, needs_grad, rows, *tensors):
        values = dict(zip(segment.inputs, tensors, strict=False))
        ctx.call = segment, values, rows, needs_grad
        outputs = {name: value.clone() for name, value in run_forward(segment, values, rows).items()}
        ctx.mark_non_differentiable(*(value for name, value in outputs.items() if name not in needs_grad))
        return tuple(outputs.values())

    @staticmethod
    def backward(ctx, *gradients):
        segment, _, _, needs_grad = ctx.call
        given = {name: g.clone() for name, g in zip(segment.outputs, gradients, strict=True) if name in needs_grad}
        inputs, parameters = run_backward(*ctx.call, lambda _: given)
        if segment.retaining is not None:
            check_retaining(segment.retaining, *ctx.call[1:], given, [*inputs.values(), *parameters])
        return None, None, None, *(inputs.get(name) for name in segment.inputs), *parameters


def run_segment(segment: Segment, values: dict[str, Tensor], rows: RowContext, needs_grad: frozenset[str]) -> Any:
    inputs = [values[name] for name in segment.inputs]
    return SegmentFunction.apply(segment, needs_grad, rows, *inputs, *segment.parameters)


def run_program(program: Program, graph: SmallGraph, rows: RowContext = EVALUATION, tile: int = 4) -> dict[str, Tensor]:
    """All values of a program, with every segment run and differentiated tile by tile."""
    values = {"x": graph.x}
    for folded in program.folded:
        values[folded.name] = aggregate(folded, values[folded.input], graph)
    for segment in program.segments:
        for aggregation in program.aggregations_at(segment.stage):
            values[aggregation.output] = aggregate(aggregation, values[aggregation.input], graph)
        tiles = []
        for start in range(0, graph.x.shape[0], tile):
            context = RowContext(start=start, seed=rows.seed, epoch=rows.epoch, training=rows.training)
            inputs = {name: values[name][start : start + tile] for name in segment.inputs}
            tiles.append(run_segment(segment, inputs, context, program.needs_grad))
        for name, parts in zip(segment.outputs, zip(*tiles, strict=True), strict=True):
            values[name] = torch.cat(parts)
    return values


def check_program(program: Program, values: dict[str, Tensor]) -> None:
    """What must hold of every program, beside its result."""
    hidden = {name for s in program.segments if s.retaining for name in s.retaining.hidden if name not in s.outputs}
    widths = {name: width for name, width in program.widths.items() if name not in hidden}
    assert {name: value.shape[1] for name, value in values.items()} == widths
    assert {name for name, value in values.items() if value.requires_grad} == program.needs_grad
    assert [segment.stage for segment in program.segments] == list(range(program.last_stage + 1))
    assert program.segments[-1].outputs == (program.logits,)
    known = {"x", *(folded.name for folded in program.folded)}
    for segment in program.segments:
        own = {aggregation.output for aggregation in program.aggregations_at(segment.stage)}
        assert all(aggregation.input in known for aggregation in program.aggregations_at(segment.stage))
        assert set(segment.inputs) <= known | own
        known |= set(segment.outputs)  # an aggregation is for the segment of its own stage alone


def check_exact(model: torch.nn.Module, graph: SmallGraph, rewrites: Sequence[str] = ALL_REWRITES) -> Program:
    """Lower ``model``, and compare logits and gradients with those of the model itself, dropout off."""
    takes_weight = graph.edge_weight is not None
    program = lower(model, num_features=graph.x.shape[1], edges=EdgeInputs(weighted=takes_weight), rewrites=rewrites)
    values = run_program(program, graph)
    check_program(program, values)

    reference = copy.deepcopy(model).eval()
    inputs = (graph.x.clone(), graph.edge_index)
    expected = reference(*inputs, graph.edge_weight) if takes_weight else reference(*inputs)
    torch.testing.assert_close(values[program.logits], expected, rtol=1e-5, atol=1e-5)

    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    model.zero_grad()
    if expected.requires_grad:
        (expected * upstream).sum().backward()
        (values[program.logits] * upstream).sum().backward()
    for (name, mine), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), name
        if mine.grad is not None:
            scale = max(1.0, float(theirs.grad.abs().max()))
            torch.testing.assert_close(
                mine.grad, theirs.grad, rtol=1e-5, atol=2e-5 * scale, msg=lambda m, n=name: n + m
            )
    used = {id(p) for segment in program.segments for p in segment.parameters}
    assert used == {id(p) for p in model.parameters() if p.grad is not None}
    return program


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., SmallGraph]:
    return random_graph


@pytest.fixture(scope="session")
def exact() -> Callable[..., Program]:
    return check_exact


@pytest.fixture(scope="session")
def run() -> Callable[..., dict[str, Tensor]]:
    return run_program
