"""Values and gradients stored as bfloat16 beside float32: test accuracy, epochs under small budgets, bytes moved.

Accuracies are of GraphSAGE on WordNet, seed by seed. Epochs are of a GCN on a generated graph, under the same budgets
for both dtypes: shares of what float32 needs in memory. Every case runs in every round, in another order each time, so
that the machine's drift reaches all of them; losses of a dtype must be the same bits under each budget.

    python benchmarks/storage_dtype.py --nodes 500000 --edges 10000000 --output docs/benchmarks/storage_dtype.md
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from pathlib import Path

import torch
from reporting import markdown_table, publish
from rounds import run_in_rounds
from torch_geometric.nn import GCN

from flexgnn import GraphStore, Trainer, load_dataset
from flexgnn.core.plan.stored_types import STORAGE_DTYPES
from flexgnn.core.sizes import format_size
from flexgnn.datasets import generate
from flexgnn.models import build_model

SHARES = (1, 4, 8)
"""Divisors of what a run in float32 needs in memory."""
Case = tuple[int, str]
"""Share and storage dtype."""


def accuracy(dtype: str, seed: int, epochs: int) -> float:
    """Of the test nodes of WordNet, after the last epoch."""
    store = load_dataset("wordnet")
    torch.manual_seed(seed)
    model = build_model("sage", store.info, layers=3, hidden=128, dropout=0.3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    trainer = Trainer(model, store, optimizer, seed=seed, storage_dtype=dtype)
    found = trainer.fit(epochs, eval_every=epochs)[-1].test_accuracy
    assert found is not None
    print(f"{dtype}, seed {seed}: {found:.4f}", flush=True)
    return found


def accuracy_table(seeds: int, epochs: int) -> str:
    """Markdown."""
    found = {dtype: [accuracy(dtype, seed, epochs) for seed in range(seeds)] for dtype in STORAGE_DTYPES}
    lines = [[str(seed), *(f"{found[dtype][seed]:.4f}" for dtype in STORAGE_DTYPES)] for seed in range(seeds)]
    lines.append(["mean", *(f"{statistics.mean(found[dtype]):.4f}" for dtype in STORAGE_DTYPES)])
    return markdown_table(["seed", *STORAGE_DTYPES], lines)


def make_trainers(model: GCN, store: GraphStore, planner: str) -> dict[Case, Trainer]:
    """Trainers of copies of ``model`` for every case, with their plans made."""
    trainers: dict[Case, Trainer] = {}
    needed = 0
    for share in SHARES:
        for dtype in STORAGE_DTYPES:
            own = copy.deepcopy(model)
            optimizer = torch.optim.Adam(own.parameters(), lr=0.01)
            budget = None if share == 1 else needed // share
            trainer = Trainer(own, store, optimizer, device_memory=budget, planner=planner, storage_dtype=dtype)
            needed = needed or trainer.plan.projected_peak_bytes
            trainers[share, dtype] = trainer
            trainer.plan  # noqa: B018
    return trainers


def measure(trainers: dict[Case, Trainer], model: GCN, rounds: int, epochs: int) -> dict[Case, list[float]]:
    """Seconds of all epochs of each case but the first of a round."""
    seconds, losses = run_in_rounds(trainers, model, rounds, epochs)
    for dtype in STORAGE_DTYPES:
        of_dtype = set.union(*(found for case, found in losses.items() if case[1] == dtype))
        assert len(of_dtype) == 1, of_dtype
    return seconds


def epoch_table(trainers: dict[Case, Trainer], seconds: dict[Case, list[float]]) -> str:
    """Markdown."""
    columns = ["budget", "of the need", "dtype", "blocks", "peak", "moved an epoch", "epoch s", "against float32"]
    columns.append("projected")
    lines = []
    for (share, dtype), trainer in trainers.items():
        plan, last = trainer.plan, trainer.history[-1]
        median = statistics.median(seconds[share, dtype])
        cells = [
            format_size(plan.budget_bytes) if share > 1 else "-",
            f"1/{share}" if share > 1 else "1",
            dtype,
            str(plan.num_blocks),
            format_size(last.peak_bytes[plan.compute_tier]),
            format_size(sum(last.moved_bytes.values())),
            f"{median:.2f}",
            f"{median / statistics.median(seconds[share, STORAGE_DTYPES[0]]):.2f} x",
            f"{plan.projected_epoch_seconds / median:.2f} of measured",
        ]
        lines.append(cells)
    return markdown_table(columns, lines)


def main() -> None:
    """Run everything, and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--edges", type=int, default=3_000_000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="epochs a round, of which the first is not counted")
    parser.add_argument("--planner", default="greedy")
    parser.add_argument("--seeds", type=int, default=3, help="of models on WordNet")
    parser.add_argument("--wordnet-epochs", type=int, default=60)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    accuracies = accuracy_table(options.seeds, options.wordnet_epochs)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as directory:
        store = generate(Path(directory) / "graph", num_nodes=options.nodes, num_edges=options.edges)
        model = GCN(store.info.num_features, options.hidden, 3, store.info.num_classes)
        trainers = make_trainers(model, store, options.planner)
        seconds = measure(trainers, model, options.rounds, options.epochs)
        epochs = epoch_table(trainers, seconds)
    text = (
        "# Values and gradients stored as bfloat16\n\nMade by `benchmarks/storage_dtype.py`.\n\n"
        f"Test accuracy of a 3-layer GraphSAGE of width 128 on WordNet after {options.wordnet_epochs} epochs:\n\n"
        f"{accuracies}\n\n"
        f"Epochs of a 3-layer GCN of width {options.hidden} on a generated graph of {options.nodes:,} nodes and "
        f"{store.info.num_edges:,} edges, planner {options.planner}, arrow on an SSD, {torch.get_num_threads()} "
        f"threads; medians of {options.rounds} rounds of {options.epochs - 1} epochs:\n\n{epochs}\n"
    )
    publish(text, options.output)


if __name__ == "__main__":
    main()
