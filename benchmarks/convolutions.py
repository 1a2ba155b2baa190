"""Convolutions that FlexGNN has no rule for and runs as they are on parts of the graph, beside full-batch PyG.

Models of one convolution each, with ReLU between layers, trained by FlexGNN in memory, by FlexGNN in half of that or in
the smallest budget that works, and by PyG, each in a process of its own. Epochs of all systems alternate; losses are
compared in every round, with PyG to 1e-4, between budgets to the bit.

    python benchmarks/convolutions.py --output docs/benchmarks/convolutions.md
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from compare import alternate, summary, table
from networks import CONVOLUTIONS
from reporting import machine, publish
from systems import FLEXGNN, PYG, System, Task, graph_path, needed_bytes, plan_of

from flexgnn.core.errors import BudgetError
from flexgnn.datasets import generate


def all_systems(task: Task) -> dict[str, System]:
    """By label."""
    needed = needed_bytes(task)
    half = replace(task, budget_bytes=needed // 2)
    label = f"{FLEXGNN} in 1/2"
    try:
        plan_of(half)
    except BudgetError as error:
        half = replace(task, budget_bytes=error.smallest_bytes)
        label = f"{FLEXGNN} in {error.smallest_bytes / needed:.2f}, the least"
    return {FLEXGNN: System(FLEXGNN, task), label: System(FLEXGNN, half)} | {name: System(name, task) for name in PYG}


def measure(task: Task, epochs: int) -> str:
    """Markdown of one convolution."""
    found, ended = alternate(all_systems(task), epochs, epochs)
    return "\n".join([f"\n## {task.model}\n", table(summary(found)), *(f"\n{line}" for line in ended), ""])


def main() -> None:
    """Measure each convolution, and print Markdown after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--convolutions", nargs="+", choices=list(CONVOLUTIONS), default=list(CONVOLUTIONS))
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--edges", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=3, help="counted epochs, after one that is not")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        store = generate(graph_path(directory), num_nodes=options.nodes, num_edges=options.edges)
        task = Task(graph=graph_path(directory), model="", hidden=64)
        text = (
            "# Convolutions without a rule\n\n"
            f"{task.size} on a generated graph of {store.info.num_nodes:,} nodes, {store.info.num_edges:,} directed "
            f"edges and {store.info.num_features} features. EdgeConv has an MLP of two layers. Epochs of all systems "
            "alternate in one run; losses agree in every round, those of FlexGNN to the bit. Seconds are medians, "
            "ratios medians over rounds. Process: peak of anonymous memory in an epoch, libraries and data included. "
            f"{machine().sentence} Made by `benchmarks/convolutions.py`.\n"
        )
        for name in options.convolutions:
            text += measure(replace(task, model=name), options.epochs)
            publish(text, options.output)


if __name__ == "__main__":
    main()
