"""How well transfers and computation overlap: epoch seconds over those of the busier of the two, from a run's events.

Both are counted within an epoch: computation from the start to the end of each step's work, transfers of each channel
from the start to the end of each. Without any overlap the ratio would be their sum over the larger one.

    python benchmarks/overlap.py --nodes 500000 --edges 10000000 --output docs/benchmarks/overlap.md
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from reporting import machine, markdown_table, publish
from systems import Task, graph_path, make_trainer, needed_bytes

from flexgnn import GraphStore
from flexgnn.core.runtime.events import EpochRecord, Event, StepFinished, TransferFinished
from flexgnn.core.sizes import format_size, parse_size
from flexgnn.datasets import generate


class Busy:
    """A listener that adds up busy seconds, epoch by epoch."""

    def __init__(self) -> None:
        self.epochs: list[tuple[float, dict[str, float]]] = []
        self._seconds: dict[str, float] = defaultdict(float)

    def __call__(self, event: Event) -> None:
        """Take a step, a transfer or the end of an epoch."""
        if isinstance(event, StepFinished):
            self._seconds["computation"] += event.end_seconds - event.start_seconds
        elif isinstance(event, TransferFinished):
            self._seconds[event.channel] += event.end_seconds - event.start_seconds
        elif isinstance(event, EpochRecord):
            self.epochs.append((event.seconds, dict(self._seconds)))
            self._seconds.clear()


def measure(store: GraphStore, task: Task, budget_bytes: int, epochs: int) -> list[str]:
    """A line of the table: one budget."""
    busy = Busy()
    trainer = make_trainer(replace(task, budget_bytes=budget_bytes), task.build(store), store, busy)
    moved = sum(trainer.fit(epochs + 1)[-1].moved_bytes.values())
    counted = busy.epochs[1:]
    seconds = statistics.median(seconds for seconds, _ in counted)
    channels = {name: statistics.median(found.get(name, 0.0) for _, found in counted) for name in counted[-1][1]}
    computation = channels.pop("computation")
    ratios = [seconds / max(found.values()) for seconds, found in counted]
    serial = [sum(found.values()) / max(found.values()) for _, found in counted]
    return [
        format_size(budget_bytes),
        str(trainer.plan.num_blocks),
        format_size(moved),
        f"{seconds:.2f} s",
        f"{computation:.2f} s",
        ", ".join(f"{name} {spent:.2f} s" for name, spent in sorted(channels.items())),
        f"{statistics.median(ratios):.2f}",
        f"{statistics.median(serial):.2f}",
    ]


def main() -> None:
    """Run each budget, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--edges", type=int, default=200_000)
    parser.add_argument(
        "--shares", type=int, nargs="+", default=[2, 4, 8], help="of what is needed in memory: 1/2, ..."
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--host-memory", type=parse_size, help="between a GPU's memory and storage, as in 2GiB")
    parser.add_argument("--epochs", type=int, default=4, help="counted epochs, after one that is not")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        store = generate(graph_path(directory), num_nodes=options.nodes, num_edges=options.edges)
        task = Task(
            graph=graph_path(directory),
            model="gcn",
            device=options.device,
            host_memory_bytes=options.host_memory,
        )
        needed = needed_bytes(task)
        lines = [measure(store, task, needed // share, options.epochs) for share in options.shares]
    head = ["budget", "blocks", "moved an epoch", "epoch", "computation", "transfers", "epoch / busiest"]
    text = (
        f"# Overlap of computation and transfers\n\nA 3-layer GCN of width 128 on a generated graph of "
        f"{store.info.num_nodes:,} nodes and {store.info.num_edges:,} edges; medians of {options.epochs} epochs. "
        f"{machine().sentence} Made by `benchmarks/overlap.py`.\n\n"
        f"{markdown_table([*head, 'without any overlap'], lines)}\n"
    )
    publish(text, options.output)


if __name__ == "__main__":
    main()
