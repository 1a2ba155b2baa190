"""However a block gets at its halo, results are the same bits, and memory is as projected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch_geometric.nn import GCN, GraphSAGE

from flexgnn import GraphStore, Trainer
from flexgnn.core.plan.decisions import Decisions
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.slots import Role
from flexgnn.core.planner import Planner
from tests.graphs import Outcome, small_graph, store_of, train_with_flexgnn

MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "gcn": lambda: GCN(5, 8, 2, 3),
    "mean": lambda: GraphSAGE(5, 8, 2, 3),
    "max": lambda: GraphSAGE(5, 8, 2, 3, aggr="max"),
}


class Fixed(Planner):
    """Blocks of one chunk, of which nothing stays in memory that could leave, and one access to all halos."""

    name = "fixed"

    def __init__(self, **decisions: int) -> None:
        self._decisions = Decisions(chunks_per_block=1, lookahead=0, access={})
        self._decisions = replace(self._decisions, **decisions)  # type: ignore[arg-type]

    def decide(self, problem: PlanningProblem) -> Decisions:
        published = problem.workload(problem.blocks(1)).published
        return replace(self._decisions, access=dict.fromkeys(published, "packed"))


def assert_same_bits(outcome: Outcome, expected: Outcome) -> None:
    assert outcome.losses == expected.losses
    assert torch.equal(outcome.logits, expected.logits)
    for name, parameter in outcome.parameters.items():
        assert torch.equal(parameter, expected.parameters[name])


def spilling(model: torch.nn.Module, store: GraphStore, planner: Planner) -> tuple[Outcome, Trainer]:
    """Two epochs in exactly the memory that the plan projects."""
    trainers: list[Trainer] = []
    optimizer = torch.optim.Adam(model.parameters())
    budget = Trainer(model, store, optimizer, planner=planner).plan.projected_peak_bytes
    outcome = train_with_flexgnn(model, store, 2, device_memory=budget, planner=planner, inspect=trainers.append)
    for record in trainers[0].history:
        assert record.moved_bytes["arrow write"] > 0
        assert record.peak_bytes.keys() == trainers[0].plan.projected_peaks.keys()
        for tier, peak in record.peak_bytes.items():
            assert 0 < peak <= trainers[0].plan.projected_peaks[tier]
    return outcome, trainers[0]


def slot_bytes(trainer: Trainer) -> dict[Role, int]:
    sizes: dict[Role, int] = {}
    for slot in trainer.plan.slots:
        sizes[slot.role] = sizes.get(slot.role, 0) + slot.size_bytes
    return sizes


@pytest.mark.parametrize("directed", [False, True], ids=["undirected", "directed"])
@pytest.mark.parametrize(("name", "weighted"), [("gcn", False), ("gcn", True), ("mean", False), ("max", False)])
def test_resident_hubs_change_no_bit(name: str, directed: bool, weighted: bool, tmp_path: Path) -> None:
    data = small_graph(num_nodes=60, num_edges=240, directed=directed, weighted=weighted)
    store = store_of(data, tmp_path / "graph", chunk_rows=12)
    torch.manual_seed(0)
    model = MODELS[name]()
    expected = train_with_flexgnn(model, store, 2)
    moved, resident = [], []
    for hub_blocks, lookahead in ((0, 0), (4, 1), (2, 0)):
        outcome, trainer = spilling(model, store, Fixed(hub_blocks=hub_blocks, lookahead=lookahead))
        assert_same_bits(outcome, expected)
        sizes = slot_bytes(trainer)
        assert ("cursor" in sizes) == (hub_blocks != 2), "of several passes"
        moved.append(trainer.plan.traffic_bytes["arrow read"])
        resident.append(sizes.get("hubs", 0))
    assert resident == sorted(set(resident))
    assert moved == sorted(set(moved), reverse=True)
