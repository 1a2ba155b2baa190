"""Projected seconds of computation beside measured ones, fully in memory, for several models.

The machine is measured before and after each model, and the models run in between, so that drift reaches both. Beside
wall seconds stand processor seconds, divided by the threads: other processes disturb them less.

    python benchmarks/compute_costs.py --nodes 100000 --edges 2000000
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from flexgnn import GraphStore, Trainer
from flexgnn.core.plan.cost import compute_seconds
from flexgnn.core.plan.plan import describe
from flexgnn.core.plan.rates import ComputeRates, Figure
from flexgnn.core.runtime.compute_calibration import measure_compute
from flexgnn.core.runtime.events import EpochRecord, Event, StepFinished
from flexgnn.datasets import generate
from flexgnn.models import MODELS, build_model

HIDDEN = (64, 128, 256)
DROPOUT = (0.0, 0.3)


class Measured:
    """A listener that adds up the seconds of each phase, epoch by epoch."""

    def __init__(self) -> None:
        self.phases: dict[tuple[str, int], dict[int, float]] = defaultdict(lambda: defaultdict(float))
        self.processor: dict[tuple[str, int], dict[int, float]] = defaultdict(lambda: defaultdict(float))
        self.epochs: list[float] = []
        self._last, self._threads = 0.0, torch.get_num_threads()

    def __call__(self, event: Event) -> None:
        """Take a step or an epoch."""
        now = time.process_time()
        self._last, since = now, now - self._last
        if isinstance(event, StepFinished) and event.phase != "evaluate":
            self.processor[event.phase, event.stage][event.epoch] += since / self._threads
            self.phases[event.phase, event.stage][event.epoch] += event.end_seconds - event.start_seconds
        elif isinstance(event, EpochRecord):
            self.epochs.append(event.seconds)

    def phase_seconds(self, kind: str, stage: int) -> tuple[float, float]:
        """Of wall and processor: the median over the epochs but the first."""
        wall, processor = (list(found[kind, stage].values())[1:] for found in (self.phases, self.processor))
        return statistics.median(wall), statistics.median(processor)


def mean_rates(first: ComputeRates, second: ComputeRates) -> ComputeRates:
    """Figure by figure, the mean of two measurements."""
    figures = [
        Figure(kind=a.kind, at=a.at, value=(a.value + b.value) / 2, low=min(a.low, b.low), high=max(a.high, b.high))
        for a, b in zip(first.figures, second.figures, strict=True)
    ]
    return ComputeRates(threads=first.threads, figures=tuple(figures))


def cases(store: GraphStore, models: list[str], layers: int) -> Iterator[tuple[str, torch.nn.Module]]:
    """Names and models."""
    for name in models:
        for hidden in HIDDEN:
            for dropout in DROPOUT:
                torch.manual_seed(0)
                yield (
                    f"{name} {hidden} dropout {dropout}",
                    build_model(name, store.info, layers=layers, hidden=hidden, dropout=dropout),
                )


def main() -> None:
    """Run all models, and print a line for each model and phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", type=Path, help="a graph store, instead of a generated one")
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--edges", type=int, default=2_000_000)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each model, of which the first is not counted")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        made = (
            options.graph or generate(Path(directory) / "graph", num_nodes=options.nodes, num_edges=options.edges).path
        )
        store = GraphStore.open(made)
        threads = torch.get_num_threads()
        measure_compute(threads)  # compiles
        print("seconds: projected, wall, processor; projected by wall, by processor")
        before, errors = measure_compute(threads), []
        for name, model in cases(store, options.models, options.layers):
            measured = Measured()
            optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
            trainer = Trainer(model, store, optimizer, listeners=[measured], device_memory="8GiB")
            trainer.fit(options.epochs, eval_every=options.epochs)
            after = measure_compute(threads)
            errors.append(report(name, trainer, mean_rates(before, after), measured))
            before = after
    for kind, values in zip(("wall", "processor"), np.array(errors).T, strict=True):
        print(f"error of {kind} seconds: median {np.median(values):.0%}, largest {values.max():.0%}")


def report(name: str, trainer: Trainer, rates: ComputeRates, measured: Measured) -> tuple[float, float]:
    """Print a model: its errors, of wall and processor."""
    workload = trainer.plan.workload
    projected = {phase: compute_seconds(rates, workload, phase) for phase in workload.phases if phase.training}
    found = {phase: measured.phase_seconds(phase.kind, phase.stage) for phase in projected}
    epoch, total = statistics.median(measured.epochs[1:]), sum(projected.values())
    processor = sum(seconds for _, seconds in found.values())
    print(f"{name:24s} {total:.3f} {epoch:.3f} {processor:.3f}   {total / epoch:.2f} {total / processor:.2f}")
    for phase, seconds in projected.items():
        wall, busy = found[phase]
        print(
            f"    {describe(phase):20s} {seconds:.3f} {wall:.3f} {busy:.3f}   {seconds / wall:.2f} {seconds / busy:.2f}"
        )
    return abs(total / epoch - 1), abs(total / processor - 1)


if __name__ == "__main__":
    main()
