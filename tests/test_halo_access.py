"""However a block gets at its halo, results are the same bits, and memory is as projected."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
import torch
from torch_geometric.nn import GCN, GraphSAGE

from flexgnn import GraphStore, Trainer
from flexgnn.console import placements
from flexgnn.core.plan.decisions import Access, Decisions
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
    """Blocks of one chunk, of which nothing stays in memory that could leave; fields take turns with ``accesses``."""

    name = "fixed"

    def __init__(self, *accesses: Access, lookahead: int = 0, hub_blocks: int = 0) -> None:
        self._accesses, self._lookahead, self._hub_blocks = accesses, lookahead, hub_blocks

    def decide(self, problem: PlanningProblem) -> Decisions:
        published = problem.workload(problem.blocks(1)).published
        return Decisions(
            tiles_per_block=1,
            lookahead=self._lookahead,
            access=dict(zip(published, cycle(self._accesses), strict=False)),
            hub_blocks=self._hub_blocks,
        )


def assert_same_bits(outcome: Outcome, expected: Outcome) -> None:
    assert outcome.losses == expected.losses
    assert torch.equal(outcome.logits, expected.logits)
    for name, parameter in outcome.parameters.items():
        assert torch.equal(parameter, expected.parameters[name])


def spilling(
    model: torch.nn.Module, store: GraphStore, planner: Planner, storage_dtype: str = "float32"
) -> tuple[Outcome, Trainer]:
    """Two epochs in exactly the memory that the plan projects."""
    trainers: list[Trainer] = []
    optimizer = torch.optim.Adam(model.parameters())
    plan = Trainer(model, store, optimizer, planner=planner, storage_dtype=storage_dtype).plan
    outcome = train_with_flexgnn(
        model,
        store,
        2,
        device_memory=plan.projected_peak_bytes,
        planner=planner,
        storage_dtype=storage_dtype,
        inspect=trainers.append,
    )
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
        outcome, trainer = spilling(model, store, Fixed("packed", hub_blocks=hub_blocks, lookahead=lookahead))
        assert_same_bits(outcome, expected)
        sizes = slot_bytes(trainer)
        assert any("hubs in ram" in place for place in placements(trainer.plan).values()) == (hub_blocks > 0)
        assert ("cursor" in sizes) == (hub_blocks != 2), "of several passes"
        moved.append(trainer.plan.traffic_bytes["arrow read"])
        resident.append(sizes.get("hubs", 0))
    assert resident == sorted(set(resident))
    assert moved == sorted(set(moved), reverse=True)


@pytest.mark.parametrize(("name", "directed"), [("gcn", True), ("mean", False), ("max", True)])
def test_halos_of_whole_blocks_change_no_bit(name: str, directed: bool, tmp_path: Path) -> None:
    data = small_graph(num_nodes=59, num_edges=240, directed=directed, weighted=True)
    store = store_of(data, tmp_path / "graph", chunk_rows=12)
    torch.manual_seed(0)
    model = MODELS[name]()
    expected = train_with_flexgnn(model, store, 2)
    for lookahead in (0, 1):
        outcome, trainer = spilling(model, store, Fixed("blocks", lookahead=lookahead))
        assert_same_bits(outcome, expected)
        sizes = slot_bytes(trainer)
        assert "pack" not in sizes
        assert sizes["cursor"] > 0, "of several passes"
    mixed, trainer = spilling(model, store, Fixed("packed", "blocks", hub_blocks=4))
    assert_same_bits(mixed, expected)
    assert {"pack", "hubs"} <= slot_bytes(trainer).keys()
