"""Draws an epoch: what computes and what moves at each moment, from a run's events.

A line for the computation, coloured by phase, and one for each channel.

    pip install -e '.[benchmark]'
    python benchmarks/timeline.py --nodes 200000 --edges 4000000 --share 8 --output docs/benchmarks/timeline.png
    python benchmarks/timeline.py --device cuda --host-memory 2GiB --output docs/benchmarks/timeline-cuda.png
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
from reporting import machine
from systems import Task, graph_path, make_trainer, needed_bytes

from flexgnn.core.runtime.events import EpochRecord, Event, StepFinished, TransferFinished
from flexgnn.core.sizes import format_size, parse_size
from flexgnn.datasets import generate

Bars = dict[str, list[tuple[float, float]]]
"""By phase or channel: start and length, in seconds."""


class Recorder:
    """A listener that keeps the bars of the last epoch that ended."""

    def __init__(self) -> None:
        self.computed: Bars = {}
        self.moved: Bars = {}
        self._computed: Bars = defaultdict(list)
        self._moved: Bars = defaultdict(list)

    def __call__(self, event: Event) -> None:
        """Take a step, a transfer or the end of an epoch."""
        if isinstance(event, StepFinished):
            bar = event.start_seconds, event.end_seconds - event.start_seconds
            self._computed[f"{event.phase} {event.stage}"].append(bar)
        elif isinstance(event, TransferFinished):
            self._moved[event.channel].append((event.start_seconds, event.end_seconds - event.start_seconds))
        elif isinstance(event, EpochRecord):
            self.computed, self.moved = dict(self._computed), dict(self._moved)
            self._computed, self._moved = defaultdict(list), defaultdict(list)


def draw(recorder: Recorder, title: str, path: Path) -> None:
    """One line for the computation, coloured by phase, and one for each channel."""
    channels = sorted(recorder.moved)
    figure, axes = plt.subplots(figsize=(11, 1.6 + 0.45 * len(channels)), layout="constrained")
    begin = min(start for bars in recorder.computed.values() for start, _ in bars)
    colors = plt.get_cmap("tab10").colors
    for color, (phase, bars) in zip(colors, recorder.computed.items(), strict=False):
        axes.broken_barh(_from(begin, bars), (-0.4, 0.8), color=color, label=phase)
    for line, channel in enumerate(channels, start=1):
        axes.broken_barh(_from(begin, recorder.moved[channel]), (line - 0.3, 0.6), color="0.45")
    axes.set_yticks(range(len(channels) + 1), ["computation", *channels])
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7, ncols=6, loc="upper center", bbox_to_anchor=(0.5, -0.22 - 0.35 / (len(channels) + 1)))
    figure.savefig(path)


def _from(begin: float, bars: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(start - begin, length) for start, length in bars]


def main() -> None:
    """Train a few epochs, and draw the last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--edges", type=int, default=200_000)
    parser.add_argument("--share", type=int, default=8, help="the budget is this part of what is needed in memory")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--host-memory", type=parse_size, help="between a GPU's memory and storage, as in 2GiB")
    parser.add_argument("--output", type=Path, default=Path("timeline.svg"))
    options = parser.parse_args()
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as directory:
        store = generate(graph_path(directory), num_nodes=options.nodes, num_edges=options.edges)
        task = Task(
            graph=graph_path(directory), model="gcn", device=options.device, host_memory_bytes=options.host_memory
        )
        budget = needed_bytes(task) // options.share
        trainer = make_trainer(replace(task, budget_bytes=budget), task.build(store), store, recorder)
        trainer.fit(3)
    title = (
        f"GCN, {task.size}, {store.info.num_nodes:,} nodes, {store.info.num_edges:,} edges, in {format_size(budget)} "
        f"of {trainer.plan.compute_tier} (1/{options.share}), {trainer.plan.num_blocks} blocks\n{machine().sentence}"
    )
    draw(recorder, title, options.output)


if __name__ == "__main__":
    main()
