"""Test accuracy of a model that full-batch PyG and FlexGNN train from the same parameters with the same settings.

Both train on the whole graph with Adam, seed by seed, and evaluate after every epoch; what is told is the test accuracy
at the epoch of the best validation accuracy. Dropout masks of the two differ, as they would between seeds of PyG, so
accuracies differ a little.

    python benchmarks/accuracy.py --model gat --output docs/benchmarks/accuracy-gat.md
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from networks import MODELS
from reporting import machine, markdown_table, publish
from systems import FLEXGNN, PyG, Task, make_trainer

from flexgnn import GraphStore, load_dataset

Accuracies = list[tuple[float, float]]
"""Of validation and test nodes, after each epoch."""


def train_with_pyg(task: Task, epochs: int) -> Accuracies:
    """In this process."""
    system = PyG(task)
    return [_epoch(system) for _ in range(epochs)]


def _epoch(system: PyG) -> tuple[float, float]:
    data = system.data
    system.epoch()
    system.model.eval()
    with torch.no_grad():
        right = (system.forward().argmax(dim=1) == data.y).float()
    system.model.train()
    return float(right[data.val_mask].mean()), float(right[data.test_mask].mean())


def train_with_flexgnn(task: Task, epochs: int) -> Accuracies:
    """In this process, in memory."""
    store = GraphStore.open(task.graph)
    records = make_trainer(task, task.build(store), store).fit(epochs)
    return [(record.val_accuracy, record.test_accuracy) for record in records]


TRAINED_BY: dict[str, Callable[[Task, int], Accuracies]] = {"pyg": train_with_pyg, FLEXGNN: train_with_flexgnn}


def best(name: str, task: Task, epochs: int) -> float:
    """Test accuracy at the first epoch of the best validation accuracy."""
    _, test = max(TRAINED_BY[name](task, epochs), key=lambda accuracies: accuracies[0])
    print(f"{name}, seed {task.seed}: {test:.4f}", flush=True)
    return test


def table(found: dict[str, list[float]], seeds: list[int]) -> str:
    """Markdown."""
    lines = [
        [str(seed), *(f"{of_seed:.4f}" for of_seed in row)] for seed, *row in zip(seeds, *found.values(), strict=True)
    ]
    lines.append(["mean", *(f"{statistics.mean(of_system):.4f}" for of_system in found.values())])
    return markdown_table(["seed", *found], lines)


def main() -> None:
    """Train with every seed, and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="gat")
    parser.add_argument("--dataset", default="wordnet")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=0.005)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    store = load_dataset(options.dataset)
    task = Task(
        graph=str(store.path),
        model=options.model,
        layers=2,
        heads=8,
        dropout=0.3,
        learning_rate=options.learning_rate,
    )
    found: dict[str, list[float]] = {name: [] for name in TRAINED_BY}
    for seed in options.seeds:
        for name, of_system in found.items():
            of_system.append(best(name, replace(task, seed=seed), options.epochs))
    text = (
        f"# {options.model}: test accuracy\n\n"
        f"{task.size} with dropout {task.dropout}, {options.epochs} epochs of Adam (learning rate "
        f"{task.learning_rate}) on {options.dataset} ({store.info.num_nodes:,} nodes, {store.info.num_edges:,} "
        "edges), full-batch in both, from the same parameters. Test accuracy at the epoch of the best validation "
        f"accuracy; dropout masks differ. {machine().sentence} Made by `benchmarks/accuracy.py`.\n\n"
        f"{table(found, options.seeds)}\n"
    )
    publish(text, options.output)


if __name__ == "__main__":
    main()
