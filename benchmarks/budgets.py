"""An epoch under smaller and smaller budgets and several planners, beside the same epoch with everything in memory.

Every budget and planner runs in every round, in another order each time, so that the machine's drift reaches all of
them. Losses must be the same bits.

    python benchmarks/budgets.py --nodes 500000 --edges 10000000 --output docs/benchmarks/budgets.md
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import torch
from policies import LRUPlanner, ReadingAheadLRUPlanner, WholeBlocksPlanner
from reporting import markdown_table, publish
from rounds import run_in_rounds
from torch_geometric.nn import GCN

from flexgnn import GraphStore, Trainer
from flexgnn.core.planner import Planner
from flexgnn.core.sizes import format_size
from flexgnn.datasets import generate
from flexgnn.planners.greedy import GreedyPlanner
from flexgnn.planners.ilp import ILPPlanner
from flexgnn.planners.learned import LearnedPlanner

SHARES = (2, 4, 8, 16)
"""Divisors of what the run needs in memory."""
PLANNERS: tuple[type[Planner], ...] = (
    ILPPlanner,
    LearnedPlanner,
    GreedyPlanner,
    LRUPlanner,
    ReadingAheadLRUPlanner,
    WholeBlocksPlanner,
)
WHOLE_BLOCK_SHARES = (2, 4)
"""Below, an epoch over whole blocks takes minutes."""
Case = tuple[int, str]
"""Share and planner; the share 1 is in memory."""


def make_trainer(model: GCN, store: GraphStore, budget_bytes: int | None, planner: Planner, backend: str) -> Trainer:
    """A trainer of a copy of ``model``."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return Trainer(model, store, optimizer, device_memory=budget_bytes, planner=planner, ssd_backend=backend)


def plan_all(model: GCN, store: GraphStore, backend: str) -> tuple[dict[Case, Trainer], dict[Case, float]]:
    """Trainers with their plans made, and how long each plan took."""
    whole = make_trainer(model, store, None, GreedyPlanner(), backend)
    needed = whole.plan.projected_peak_bytes
    trainers, planning = {(1, "in memory"): whole}, {(1, "in memory"): 0.0}
    for share in SHARES:
        for planner in PLANNERS:
            if planner is WholeBlocksPlanner and share not in WHOLE_BLOCK_SHARES:
                continue
            trainer = make_trainer(model, store, needed // share, planner(), backend)
            began = time.perf_counter()
            trainer.plan  # noqa: B018
            planning[share, planner.name] = time.perf_counter() - began
            trainers[share, planner.name] = trainer
    return trainers, planning


def measure(trainers: dict[Case, Trainer], model: GCN, rounds: int, epochs: int) -> dict[Case, list[float]]:
    """Seconds of all epochs of each case but the first of a round."""
    seconds, losses = run_in_rounds(trainers, model, rounds, epochs)
    assert len(set.union(*losses.values())) == 1, losses
    return seconds


def table(trainers: dict[Case, Trainer], planning: dict[Case, float], seconds: dict[Case, list[float]]) -> str:
    """Markdown."""
    columns = ["budget", "of the need", "planner", "blocks", "peak", "moved an epoch", "epoch, against in memory"]
    columns += ["projected", "planning, in epochs"]
    lines = []
    memory = statistics.median(seconds[1, "in memory"])
    for (share, name), trainer in trainers.items():
        plan, last = trainer.plan, trainer.history[-1]
        median = statistics.median(seconds[share, name])
        cells = [
            format_size(plan.budget_bytes) if share > 1 else "-",
            f"1/{share}" if share > 1 else "1",
            name,
            str(plan.num_blocks),
            format_size(last.peak_bytes[plan.compute_tier]),
            format_size(sum(last.moved_bytes.values())),
            f"{median / memory:.2f} x",
            f"{plan.projected_epoch_seconds / median:.2f} of measured",
            f"{planning[share, name] / memory:.1f}",
        ]
        lines.append(cells)
    return markdown_table(columns, lines)


def main() -> None:
    """Plan everything, run everything in every round, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--edges", type=int, default=3_000_000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="epochs a round, of which the first is not counted")
    parser.add_argument("--backend", default="arrow")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as directory:
        store = generate(Path(directory) / "graph", num_nodes=options.nodes, num_edges=options.edges)
        model = GCN(store.info.num_features, options.hidden, 3, store.info.num_classes)
        trainers, planning = plan_all(model, store, options.backend)
        seconds = measure(trainers, model, options.rounds, options.epochs)
    title = (
        f"# Epochs under small budgets\n\nA 3-layer GCN of width {options.hidden} on a generated graph of "
        f"{options.nodes:,} nodes and {store.info.num_edges:,} edges, {options.backend} on an SSD, "
        f"{torch.get_num_threads()} threads; medians of {options.rounds} rounds of {options.epochs - 1} epochs. "
        "Made by `benchmarks/budgets.py`."
    )
    text = f"{title}\n\n{table(trainers, planning, seconds)}\n"
    publish(text, options.output)


if __name__ == "__main__":
    main()
