"""Planners side by side on problems that none of them has seen: how far above the bound, and how long to make.

python benchmarks/planners.py --problems 32 --output docs/benchmarks/planners.md
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from reporting import publish

from flexgnn.core.plan.bound import LowerBound, find_lower_bound
from flexgnn.core.plan.plan import freeze
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.planner import Planner
from flexgnn.core.sizes import format_size
from flexgnn.planners.greedy import GreedyPlanner
from flexgnn.planners.ilp import ILPPlanner
from flexgnn.planners.learned import LearnedPlanner
from flexgnn.testing.problems import needed_bytes, random_problem

PLANNERS: tuple[type[Planner], ...] = (GreedyPlanner, ILPPlanner, LearnedPlanner)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One planner on one problem."""

    seconds: float
    """Of an epoch, with perfect overlap in each phase."""
    moved_bytes: int
    made_in: float
    """Seconds that the planner took."""


def outcome_of(planner: type[Planner], problem: PlanningProblem) -> Outcome:
    """Plan once, with everything counted beforehand."""
    began = time.perf_counter()
    decisions = planner().decide(problem)
    made_in = time.perf_counter() - began
    plan = freeze(problem, decisions, planner.name)
    return Outcome(seconds=plan.overlapped_seconds, moved_bytes=sum(plan.traffic_bytes.values()), made_in=made_in)


def row(number: int, problem: PlanningProblem, bound: LowerBound, outcomes: dict[str, Outcome]) -> str:
    """A problem as a line of Markdown."""
    info, program = problem.store.info, problem.program
    cells = [
        str(number),
        f"{info.num_nodes:,}",
        f"{info.num_edges / info.num_nodes:.0f}",
        str(len(program.segments)),
        f"1/{round(needed_bytes(problem) / problem.budget_bytes)}",
        f"{bound.seconds:.2f} s",
        *(f"{outcome.seconds / bound.seconds - 1:.1%}" for outcome in outcomes.values()),
        *(f"{outcome.made_in:.1f}" for outcome in outcomes.values()),
        f"{format_size(outcomes['ilp'].moved_bytes)} / {format_size(bound.moved_bytes)}",
    ]
    return f"| {' | '.join(cells)} |"


def summary(found: list[tuple[LowerBound, dict[str, Outcome]]]) -> str:
    """Medians and worst cases."""
    lines = []
    for planner in PLANNERS:
        above = [outcomes[planner.name].seconds / bound.seconds - 1 for bound, outcomes in found]
        lines.append(
            f"- {planner.name}: {statistics.median(above):.1%} above the bound in median, {max(above):.1%} at worst"
        )
    beside = [outcomes["learned"].seconds / outcomes["ilp"].seconds - 1 for _, outcomes in found]
    faster = [outcomes["ilp"].made_in / outcomes["learned"].made_in for _, outcomes in found]
    lines.append(
        f"- learned beside ilp: {statistics.median(beside):+.1%} in median, {max(beside):+.1%} at worst; "
        f"made {statistics.median(faster):.0f} x as fast in median, {min(faster):.0f} x at least"
    )
    return "\n".join(lines)


def main() -> None:
    """Plan every problem with every planner, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=32)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    names = [planner.name for planner in PLANNERS]
    columns = ["problem", "nodes", "degree", "segments", "budget of need", "bound"]
    columns += [f"{name} above" for name in names] + [f"{name} made in s" for name in names] + ["ilp moves / least"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    found = []
    for number in range(options.problems):
        problem = random_problem(np.random.default_rng(number))
        bound = find_lower_bound(problem)
        outcomes = {planner.name: outcome_of(planner, problem) for planner in PLANNERS}
        found.append((bound, outcomes))
        lines.append(row(number, problem, bound, outcomes))
        print(lines[-1], flush=True)
    text = "\n".join(["# Planners beside the lower bound\n", summary(found), "", *lines, ""])
    publish(text, options.output)


if __name__ == "__main__":
    main()
