"""What the kinds of aggregations read, keep and publish, beside what they pull from."""

from __future__ import annotations

from collections.abc import Mapping

from flexgnn.core.plan.names import softmax_name, ties_name
from flexgnn.core.program.adjacency import AdjacencyVectors, vector_names
from flexgnn.core.program.program import Aggregation


def vectors_of(vectors: AdjacencyVectors) -> tuple[str, ...]:
    """The node vectors that a pull reads."""
    return tuple(name for name in (vectors.row, vectors.loops) if name is not None)


def kept_beside(aggregation: Aggregation, width: int, *, training: bool, needs_grad: bool) -> dict[str, int]:
    """What a forward step makes beside the output, of ``width`` columns: columns by name.

    A softmax also grows in passes, and so is there whether or not backward wants it.
    """
    if aggregation.attention is not None:
        return {softmax_name(aggregation): aggregation.attention.state_width}
    return {ties_name(aggregation): width} if aggregation.reduce == "max" and training and needs_grad else {}


def gradient_columns(aggregation: Aggregation, widths: Mapping[str, int]) -> int:
    """Columns of what backward publishes, or adds up, of the gradient of an output; ``widths``: columns of values."""
    width = widths[aggregation.output]
    if aggregation.convolution is not None:
        return widths[aggregation.input]
    if aggregation.attention is not None:
        return aggregation.attention.gradient_width
    return 2 * width if aggregation.reduce == "max" else width


def publishing_reads(aggregation: Aggregation) -> list[str]:
    """What the gradient of an output is published with, beside that output."""
    if aggregation.attention is not None:
        assert aggregation.query is not None, "attention has queries"
        return [softmax_name(aggregation), aggregation.query]
    if aggregation.reduce == "max":
        return [ties_name(aggregation)]
    row = vector_names(aggregation.adjacency).row
    return [] if row is None else [row]


def input_gradient_reads(aggregation: Aggregation) -> list[str]:
    """What the gradient of an input is pulled with, at the block's own rows.

    Which inputs reached a maximum is seen by comparing them with it; scores are computed again.
    """
    if aggregation.attention is not None:
        return [aggregation.input, *_weights(aggregation)]
    if aggregation.reduce == "max":
        return [aggregation.input]
    return list(vectors_of(vector_names(aggregation.adjacency).transposed))


def query_gradient_reads(aggregation: Aggregation, gradient: str) -> list[str]:
    """What the gradient of a query is pulled with, where ``gradient`` is what backward published."""
    return [gradient, *_weights(aggregation)]


def _weights(aggregation: Aggregation) -> list[str]:
    """The queries, where these hold weights that scores are made with."""
    assert aggregation.attention is not None
    assert aggregation.query is not None
    return [aggregation.query] if aggregation.attention.score == "dynamic" else []
