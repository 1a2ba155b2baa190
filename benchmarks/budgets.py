"""An epoch under smaller and smaller budgets, beside the same epoch with everything in memory.

Every budget runs in every round, so that the machine's drift reaches all of them. Losses must be the same bits.

    python benchmarks/budgets.py --nodes 200000 --edges 3000000
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from pathlib import Path

import torch
from torch_geometric.nn import GCN

from flexgnn import GraphStore, Trainer
from flexgnn.core.sizes import format_size
from flexgnn.datasets import generate

SHARES = (1, 2, 4, 8)
"""Divisors of what the run needs in memory."""


def make_trainer(model: GCN, store: GraphStore, budget_bytes: int | None) -> Trainer:
    """A trainer of a copy of ``model``."""
    model = copy.deepcopy(model)
    return Trainer(model, store, torch.optim.Adam(model.parameters(), lr=0.01), device_memory=budget_bytes)


def main() -> None:
    """Run all budgets, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--edges", type=int, default=3_000_000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="epochs a round, of which the first is not counted")
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as directory:
        store = generate(Path(directory) / "graph", num_nodes=options.nodes, num_edges=options.edges)
        model = GCN(store.info.num_features, options.hidden, 3, store.info.num_classes)
        needed = make_trainer(model, store, None).plan.projected_peak_bytes
        seconds: dict[int, list[float]] = {share: [] for share in SHARES}
        losses: set[tuple[float, ...]] = set()
        trainers: dict[int, Trainer] = {}
        for _ in range(options.rounds):
            for share in SHARES:
                trainers[share] = make_trainer(model, store, None if share == 1 else needed // share)
                records = trainers[share].fit(options.epochs)
                seconds[share] += [record.seconds for record in records[1:]]
                losses.add(tuple(record.loss for record in records))
        assert len(losses) == 1, losses
    print("| budget | of the need | blocks | peak | moved an epoch | epoch, against in memory |")
    print("|---|---|---|---|---|---|")
    for share in SHARES:
        plan, last = trainers[share].plan, trainers[share].history[-1]
        ratio = statistics.median(seconds[share]) / statistics.median(seconds[1])
        budget, peak = needed // share, last.peak_bytes[plan.compute_tier]
        moved = format_size(sum(last.moved_bytes.values()))
        name = "1" if share == 1 else f"1/{share}"
        print(f"| {format_size(budget)} | {name} | {plan.num_blocks} | {format_size(peak)} | {moved} | {ratio:.1f} x |")


if __name__ == "__main__":
    main()
