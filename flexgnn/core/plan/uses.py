"""Who uses the values of a program, and when."""

from __future__ import annotations

from flexgnn.core.program.program import Aggregation, Program, Segment


def local_consumers(program: Program, value: str, after: int) -> list[Segment]:
    """Segments later than ``after`` that read ``value`` at a node's own row."""
    return [s for s in program.segments if s.stage > after and value in s.inputs]


def consumers(program: Program, value: str) -> list[Aggregation]:
    """Aggregations of ``value``."""
    return [a for a in program.aggregations if a.input == value]


def queried(program: Program, value: str) -> list[Aggregation]:
    """Attentions that ``value`` is the query of."""
    return [a for a in program.aggregations if a.query == value]


def is_differentiated(program: Program, aggregation: Aggregation) -> bool:
    """Whether an input of ``aggregation`` needs a gradient."""
    return not program.needs_grad.isdisjoint((aggregation.input, aggregation.query))


def backward_stages(program: Program) -> list[int]:
    """Stages before the last whose segment has outputs that need a gradient, latest first."""
    return [s.stage for s in reversed(program.segments[:-1]) if any(v in program.needs_grad for v in s.outputs)]


def retaining(program: Program, stage: int, rounded: frozenset[str]) -> Segment | None:
    """Segment ``stage`` with its hidden values, if backward can read them instead of computing them again.

    Not if any is among ``rounded``, the fields that are stored in fewer bits: what is computed again is not rounded.
    """
    segment = program.segments[stage].retaining
    if segment is None or stage not in backward_stages(program) or rounded & segment.hidden.keys():
        return None
    return segment
