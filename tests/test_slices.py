"""Pulled all at once or slice by slice of columns, results are the same bits, and memory is as projected."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
import torch
from torch_geometric.nn import GCN, GIN, GraphSAGE

from flexgnn.core.plan.decisions import Access, Decisions
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.ways import Way, spilling, workload_of
from flexgnn.core.planner import Planner
from tests.graphs import small_graph, store_of, train_with_flexgnn
from tests.test_halo_access import assert_same_bits
from tests.test_halo_access import spilling as spilling_run

MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "gcn": lambda: GCN(5, 40, 3, 3, dropout=0.3),
    "mean": lambda: GraphSAGE(5, 40, 3, 3),
    "max": lambda: GraphSAGE(5, 40, 3, 3, aggr="max"),
    "gin": lambda: GIN(5, 40, 3, 35),
    "jumping": lambda: GCN(5, 24, 3, 3, jk="cat"),
}


class Slicing(Planner):
    """Blocks of one chunk, of which nothing stays that could leave; slices take turns with ``accesses``."""

    name = "slicing"

    def __init__(self, slices: int, *accesses: Access, lookahead: int = 0, recompute: bool = False) -> None:
        self._slices, self._accesses = slices, accesses
        self._lookahead, self._recompute = lookahead, recompute

    def decide(self, problem: PlanningProblem) -> Decisions:
        blocks, way = problem.blocks(1), Way("ahead", 0, self._slices)
        recomputed = problem.recomputable()[-1 if self._recompute else 0]
        workload = workload_of(problem, blocks, recomputed, way)
        decisions = spilling(workload, self._lookahead, recomputed, way)
        turns = cycle(self._accesses)
        for name, access in decisions.access.items():
            if access in ("ahead", "resident"):
                decisions = decisions.with_access(name, next(turns))
        return decisions


@pytest.mark.parametrize("directed", [False, True], ids=["undirected", "directed"])
@pytest.mark.parametrize("name", MODELS)
def test_slices_change_no_bit(name: str, directed: bool, tmp_path: Path) -> None:
    data = small_graph(num_nodes=59, num_edges=240, directed=directed, weighted=name == "gcn")
    store = store_of(data, tmp_path / "graph", chunk_rows=12)
    torch.manual_seed(0)
    model = MODELS[name]()
    expected = train_with_flexgnn(model, store, 2)
    for planner in (
        Slicing(1, "loaded"),
        Slicing(4, "loaded"),
        Slicing(4, "ahead", lookahead=1, recompute=True),
        Slicing(2, "held", "loaded", "resident", "ahead", lookahead=1),
    ):
        outcome, trainer = spilling_run(model, store, planner)
        assert_same_bits(outcome, expected)
        plan = trainer.plan
        sliced = {p.column_slice for p in plan.workload.phases} != {None}
        assert sliced == (name != "max" and plan.decisions.column_slices > 1)
        packed = {slot.field for slot in plan.slots if slot.role in ("halo", "pack")}
        assert packed <= {"x"}, "nothing that steps make is packed"


def test_slices_need_less_memory_than_the_field_that_they_are_of(tmp_path: Path) -> None:
    store = store_of(small_graph(num_nodes=400, num_edges=1600), tmp_path / "graph", chunk_rows=16)
    model = GCN(5, 64, 3, 3)
    peaks = []
    for slices in (1, 2, 4):
        _, trainer = spilling_run(model, store, Slicing(slices, "loaded"))
        peaks.append(trainer.plan.projected_peak_bytes)
    whole = 400 * 64 * 4
    assert peaks[0] - peaks[1] > whole // 3
    assert peaks[1] - peaks[2] > whole // 6
