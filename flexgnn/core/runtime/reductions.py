"""What a tile pulls and publishes, by the kind of aggregation.

Shape legend: T rows of a tile, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flexgnn.core.plan.names import gradient_name, prefixed, published_name, softmax_name, ties_name
from flexgnn.core.program.adjacency import vector_names
from flexgnn.core.program.attention import Attention
from flexgnn.core.program.attention_kernels import ATTEND, TO_QUERY, TO_SOURCE
from flexgnn.core.program.program import Aggregation
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.program.row_kernels import Place
from flexgnn.core.runtime.tile_view import TileView
from flexgnn.core.tier import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class ConvolutionGradients:
    """What a tile adds to the gradients of a convolution's input and parameters."""

    rows: Array
    """int64: positions in the graph, each once."""
    of_rows: Tensor | None
    """At these rows; None: the input needs none, or the output does not depend on it."""
    of_parameters: list[tuple[torch.nn.Parameter, Tensor]]


def source_of(view: TileView, aggregation: Aggregation) -> str:
    """The field that an aggregation pulls from in the pass at hand."""
    return prefixed(published_name(aggregation.input, aggregation), view.prefix)


def aggregate(view: TileView, aggregation: Aggregation, rows: RowContext) -> None:
    """A pass of an aggregation."""
    source, output, adjacency = source_of(view, aggregation), view.prefix + aggregation.output, aggregation.adjacency
    if aggregation.attention is not None:
        state, query = view.rows(view.prefix + softmax_name(aggregation)), _query(view, aggregation)
        _attend(view, aggregation.attention, source, ATTEND, (query, query, view.rows(output), state), rows)
    elif aggregation.convolution is not None:
        convolution = aggregation.convolution
        view.write(output, convolution.forward(*view.neighborhood(source, convolution, rows)))
    elif aggregation.reduce == "max":
        name, out = ties_name(aggregation), view.rows(output)
        view.pull_max(source, out, view.rows(name) if view.has(name) else torch.empty_like(out))
    else:
        view.sum_into(output, source, vector_names(adjacency), weighted=adjacency.weighted)


def pull_gradient(view: TileView, aggregation: Aggregation, sums: Tensor, rows: RowContext) -> None:
    """A pass of the gradient of an aggregation's input into ``sums`` (T x D)."""
    name, adjacency = gradient_name(aggregation), aggregation.adjacency
    if aggregation.attention is not None:
        own = view.rows(aggregation.input)
        # Only a dynamic attention has something of queries that its sources need.
        query = _query(view, aggregation) if aggregation.attention.score == "dynamic" else own
        _attend(view, aggregation.attention, name, TO_SOURCE, (own, query, sums, sums), rows)
    elif aggregation.reduce == "max":
        view.pull_max_gradient(name, view.rows(aggregation.input), sums)
    else:
        view.pull_sum(name, vector_names(adjacency).transposed, sums, weighted=adjacency.weighted)


def pull_query_gradient(view: TileView, aggregation: Aggregation, sums: Tensor, rows: RowContext) -> None:
    """A pass of the gradient of an attention's queries into ``sums`` (T x D)."""
    assert aggregation.attention is not None, "others have no queries"
    own = view.rows(gradient_name(aggregation))
    query = _query(view, aggregation) if aggregation.attention.score == "dynamic" else own
    _attend(view, aggregation.attention, source_of(view, aggregation), TO_QUERY, (own, query, sums, sums), rows)


def publish_gradient(view: TileView, aggregation: Aggregation, gradient: Tensor) -> None:
    """Write what others pull of the gradient of an aggregation's output (T x D)."""
    name, width = gradient_name(aggregation), gradient.shape[1]
    if aggregation.attention is not None:
        attention, out = aggregation.attention, view.tensor(aggregation.output)
        products = (gradient * out).view(-1, attention.heads, attention.channels).sum(2)
        keys = _query(view, aggregation)[:, : attention.key_width]
        parts = [gradient, keys, view.tensor(softmax_name(aggregation)), products]
        torch.cat(parts, dim=1, out=view.tensor(name))
    elif aggregation.reduce == "max":
        out = view.tensor(name)
        torch.div(gradient, view.tensor(ties_name(aggregation)).clamp(min=1), out=out[:, :width])
        out[:, width:] = view.tensor(aggregation.output)
    else:
        view.write(name, gradient, scale=vector_names(aggregation.adjacency).row)


def differentiate(
    view: TileView, aggregation: Aggregation, gradient: Tensor, rows: RowContext, *, of_input: bool
) -> ConvolutionGradients:
    """Run a convolution again that is run as it is, and differentiate it; ``gradient`` (T x C) is of its output."""
    convolution = aggregation.convolution
    assert convolution is not None, "others have rules"
    x, part = view.neighborhood(source_of(view, aggregation), convolution, rows)
    of_rows, of_parameters = convolution.backward(x, part, gradient, of_input=of_input)
    pairs = zip(convolution.parameters, of_parameters, strict=True)
    return ConvolutionGradients(
        rows=part.rows, of_rows=of_rows, of_parameters=[(p, g) for p, g in pairs if g is not None]
    )


def _query(view: TileView, aggregation: Aggregation) -> Tensor:
    assert aggregation.query is not None, "attention has queries"
    return view.rows(view.prefix + aggregation.query)


def _attend(
    view: TileView,
    attention: Attention,
    source: str,
    work: int,
    tensors: tuple[Tensor, Tensor, Tensor, Tensor],
    rows: RowContext,
) -> None:
    """``tensors`` are those of :meth:`RowKernels.pull_attention`, from ``rows`` on."""
    place = Place(first=view.first, rows=rows)
    view.data.kernels.pull_attention(view.data.neighbors[source], place, attention, work, *tensors)
