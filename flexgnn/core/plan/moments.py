"""Moments in a workload: which phases make them, and what that takes."""

from __future__ import annotations

from flexgnn.core.plan.work import Work
from flexgnn.core.plan.workload import PhaseKind
from flexgnn.core.program.program import Moment, Program


def moments_made(program: Program, stage: int, kind: PhaseKind) -> list[Moment]:
    """The moments that a phase adds up."""
    if kind not in ("forward", "evaluate"):
        return []
    return [m for m in program.moments if m.stage == stage and (m.in_evaluation or kind == "forward")]


def differentiated_moments(program: Program, value: str) -> list[Moment]:
    """The moments of ``value`` through which gradients reach it."""
    return [m for m in program.moments if m.value == value and m.name in program.needs_grad]


def moments_work(program: Program, stage: int, kind: PhaseKind, rows: int) -> Work:
    """Of the moments that a phase makes, on a tile of ``rows``: each is read twice."""
    sizes = tuple(2 * 4 * rows * moment.width for moment in moments_made(program, stage, kind))
    return Work(elementwise_bytes=sizes, calls=len(sizes))
