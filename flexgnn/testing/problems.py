"""Random planning problems, on paper: models, graphs, machines and budgets as they come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from flexgnn.core.errors import BudgetError
from flexgnn.core.graph.layout import MULTI_CLASS, GraphInfo, choose_chunk_rows
from flexgnn.core.plan.cost import Rates, TierRates
from flexgnn.core.plan.decisions import Access, Decisions
from flexgnn.core.plan.machines import load_machine, machine_names, stated_compute
from flexgnn.core.plan.paper import PaperGraph
from flexgnn.core.plan.placement import StorageTier
from flexgnn.core.plan.plan import freeze
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.search import smallest_decisions
from flexgnn.core.plan.sketch import Sketch
from flexgnn.core.program.lower import lower
from flexgnn.models import build_model

SHARES = (2, 3, 4, 6, 8, 12, 16, 20)
"""Divisors of the memory that a run needs if nothing moves."""


def random_problem(random: np.random.Generator) -> PlanningProblem:
    """A model of 2 to 5 layers, a graph of 30,000 to 3 million nodes, one storage tier, and a share of the memory.

    The budget always allows some plan: the share is enlarged until it does.
    """
    graph = _graph(random)
    torch.manual_seed(int(random.integers(2**31)))
    model = build_model(
        str(random.choice(["gcn", "gin", "sage"])),
        graph.info,
        layers=int(random.integers(2, 6)),
        hidden=int(random.choice([32, 64, 128, 256, 512])),
        dropout=float(random.choice([0.0, 0.5])),
    )
    program = lower(model, num_features=graph.info.num_features)
    compute = stated_compute(load_machine(str(random.choice(machine_names()))))
    problem = PlanningProblem(
        program=program,
        store=graph,
        budget_bytes=2**62,
        compute_tier="ram",
        storage_tiers=(StorageTier(name="ssd", rates=_tier_rates(random)),),
        threads=compute.threads,
        training=True,
        evaluation=program.evaluates_apart,
        rates=Rates(compute=compute, store=_tier_rates(random)),
    )
    needed = needed_bytes(problem)
    for share in SHARES[int(random.integers(len(SHARES))) :: -1]:
        shared = problem.with_budget(needed // share)
        if _works(shared):
            return shared
    return problem.with_budget(needed)


def needed_bytes(problem: PlanningProblem) -> int:
    """The budget under which nothing has to move: one block, and everything kept."""
    limitless, whole = problem.with_budget(2**62), problem.choices[0]
    workload = problem.workload(whole)
    access: dict[str, Access] = dict.fromkeys(workload.published, "held")
    sketch = Sketch(limitless, workload, Decisions(tiles_per_block=whole.tiles_per_block, lookahead=1, access=access))
    return freeze(limitless, sketch.decided(~sketch.nothing), "in memory").projected_peak_bytes


def _works(problem: PlanningProblem) -> bool:
    try:
        smallest_decisions(problem, problem.choices, "smallest")
    except BudgetError:
        return False
    return True


def _graph(random: np.random.Generator) -> PaperGraph:
    nodes = int(10 ** random.uniform(4.5, 6.5))
    degree = 10 ** random.uniform(0.6, 1.8)
    info = GraphInfo(
        name="on paper",
        num_nodes=nodes,
        num_edges=int(nodes * degree),
        num_features=int(random.choice([32, 100, 128, 256, 500, 602])),
        num_classes=int(random.choice([5, 16, 47, 172])),
        task=MULTI_CLASS,
        weighted=False,
        symmetric=True,
        chunk_rows=choose_chunk_rows(nodes, None),
        order="given",
        class_names=(),
    )
    graph = PaperGraph(info=info, halo=float(10 ** random.uniform(-0.5, 1.4)))
    # Few edges can't lead to many different nodes.
    while graph.far_share > 1:
        graph = replace(graph, halo=graph.halo / 2)
    return graph


def _tier_rates(random: np.random.Generator) -> TierRates:
    return TierRates(
        read_bytes_per_second=10 ** random.uniform(8.3, 9.9),
        write_bytes_per_second=10 ** random.uniform(8.0, 9.7),
        call_seconds=10 ** random.uniform(-5, -3),
        read_cpu_seconds_per_byte=10 ** random.uniform(-11, -9),
        write_cpu_seconds_per_byte=10 ** random.uniform(-11, -9),
    )
