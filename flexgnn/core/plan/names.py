"""Names of the fields of a workload."""

from __future__ import annotations

from flexgnn.core.program.adjacency import vector_names
from flexgnn.core.program.program import Aggregation, is_stored

LABELS = "labels"
SPLIT = "split"
"""Bit flags of the training (1), validation (2) and test (4) sets."""
KNOWN_EDGES = ("in/indptr", "in/indices")
"""What pairs are not drawn from that are to be without a link."""
EVALUATION = "eval:"
"""Prefix of the fields that the evaluation pass writes."""


def published_name(value: str, aggregation: Aggregation) -> str:
    """The field that blocks pull ``value`` from: itself, or its rows scaled as the adjacency wants."""
    neighbor = vector_names(aggregation.adjacency).neighbor
    return value if neighbor is None else f"{value}*{neighbor}"


def gradient_name(aggregation: Aggregation) -> str:
    """The field that blocks pull the gradient of an aggregation from."""
    return f"grad({aggregation.output})"


def pulled_gradient_name(aggregation: Aggregation) -> str:
    """The gradient that reaches the input of an aggregation, where it is pulled before the step that uses it."""
    return f"pulled {gradient_name(aggregation)}"


def ties_name(aggregation: Aggregation) -> str:
    """The field that counts the ties of a max aggregation."""
    return f"ties({aggregation.output})"


def softmax_name(aggregation: Aggregation) -> str:
    """The field of the greatest score of each head of an attention, and the inverse of its sum of exponentials."""
    return f"softmax({aggregation.output})"


def partial_gradient_name(value: str, stage: int) -> str:
    """The gradient that segment ``stage`` gives directly to a value of an earlier segment."""
    return f"grad({value} by segment {stage})"


def slice_name(name: str, columns: range) -> str:
    """Some columns of a field, where these are a field of their own."""
    return f"{name}[{columns.start}:{columns.stop}]"


def prefixed(name: str, prefix: str) -> str:
    """A field of the training or evaluation pass; stored values serve both."""
    return name if is_stored(name) else prefix + name
