"""Bytes in every tier stay within budget and projection, and the operating system agrees."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch_geometric.nn import GCN, GraphSAGE

from flexgnn import GraphStore, Trainer
from flexgnn.core.errors import BudgetError
from flexgnn.core.runtime.events import Event, StepFinished
from flexgnn.core.runtime.trainer import FIXED_MEMORY_BYTES
from flexgnn.datasets import generate
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import small_graph, smallest_budget, store_of

MEASURED_RUN = """
import gc, json, sys, threading, time
import torch
from flexgnn import GraphStore, Trainer
from torch_geometric.nn import GCN, GraphSAGE

def anonymous_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

store = GraphStore.open(sys.argv[1])
name, _, norm = sys.argv[2].partition(" ")
model = {"gcn": GCN, "sage": GraphSAGE}[name](128, 128, 3, store.info.num_classes, norm=norm or None)
trainer = Trainer(model, store, torch.optim.Adam(model.parameters()), device_memory=int(sys.argv[3]))
gc.collect()
before = peak = anonymous_bytes()
done = threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous_bytes())

watcher = threading.Thread(target=watch)
watcher.start()
records = trainer.fit(2)
done.set()
watcher.join()
print(json.dumps({"growth": peak - before, "loss": records[-1].loss, "moved": records[-1].moved_bytes}))
"""


@pytest.fixture(scope="module")
def large_store(tmp_path_factory: pytest.TempPathFactory) -> GraphStore:
    """A graph whose training takes about a gigabyte in memory."""
    path = tmp_path_factory.mktemp("large") / "graph"
    return generate(path, num_nodes=300_000, num_edges=3_000_000, num_features=128, num_classes=20)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from /proc")
@pytest.mark.parametrize(
    "name", ["gcn", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sage", "gcn batch_norm"))]
)
def test_anonymous_memory_grows_by_no_more_than_budget_and_fixed_cost(name: str, large_store: GraphStore) -> None:
    model_name, _, norm = name.partition(" ")
    classes = large_store.info.num_classes
    model = {"gcn": GCN, "sage": GraphSAGE}[model_name](128, 128, 3, classes, norm=norm or None)
    in_memory = Trainer(model, large_store, torch.optim.Adam(model.parameters())).plan.projected_peak_bytes
    budget = in_memory // 8
    arguments = [str(large_store.path), name, str(budget)]
    run = subprocess.run([sys.executable, "-c", MEASURED_RUN, *arguments], capture_output=True, text=True, check=True)
    measured = json.loads(run.stdout)
    assert measured["moved"]["arrow write"] > budget
    assert measured["growth"] <= 1.2 * budget + FIXED_MEMORY_BYTES


@pytest.mark.parametrize("extra", [1.0, 1.3, 2.0, 4.0])
@pytest.mark.parametrize("num_blocks", [1, 4, 9])
def test_no_tier_holds_more_than_projected_and_budgeted(num_blocks: int, extra: float, tmp_path: Path) -> None:
    store = store_of(small_graph(num_nodes=70, num_edges=400), tmp_path / "graph")
    model = GraphSAGE(5, 8, 3, 3, dropout=0.2)
    planner = GreedyPlanner(num_blocks)
    budget = int(extra * smallest_budget(model, store, planner))
    live: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepFinished):
            live.append(event.live_bytes)

    optimizer = torch.optim.Adam(model.parameters())
    trainer = Trainer(model, store, optimizer, device_memory=budget, planner=planner, listeners=[listen])
    peaks = trainer.fit(2)[-1].peak_bytes
    assert peaks.keys() == trainer.plan.projected_peaks.keys()
    for tier, projected in trainer.plan.projected_peaks.items():
        assert 0 < peaks[tier] <= projected
    assert peaks["ram"] <= trainer.plan.projected_peak_bytes <= budget
    assert max(live) == peaks["ram"]


def test_the_smallest_budget_works_and_one_byte_less_does_not(tmp_path: Path) -> None:
    store = store_of(small_graph(), tmp_path / "graph")
    model = GCN(5, 8, 3, 3)
    budget = smallest_budget(model, store, GreedyPlanner())
    optimizer = torch.optim.Adam(model.parameters())
    Trainer(model, store, optimizer, device_memory=budget).fit(1)
    with pytest.raises(BudgetError, match=f"smallest that works is {budget} bytes"):
        Trainer(model, store, optimizer, device_memory=budget - 1).fit(1)
