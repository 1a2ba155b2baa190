"""Systems that train the same model from the same parameters on the same graph, each in a process of its own.

A process is asked for one epoch at a time, so that epochs of several systems can alternate and the machine's drift
reaches all of them; memory and thread pools are not shared. ``System`` is the parent's side; the child's side, which
this file is as well, reads a line of standard input for each epoch and answers with a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from networks import ATTENTION, build
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import add_self_loops, remove_self_loops

from flexgnn import GraphStore, Trainer
from flexgnn.core.plan.plan import Plan
from flexgnn.core.runtime.events import EpochRecord, Event, Listener
from flexgnn.testing.child import anonymous_bytes

_SAMPLE_SECONDS = 0.005


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What a system says of one epoch."""

    loss: float
    seconds: float
    peak_bytes: int
    """The most anonymous memory of the process at any time of the epoch, libraries and data included; on a GPU the most
    that torch allocated of its memory."""
    plan: dict[str, Any] = field(default_factory=dict)
    """Of FlexGNN: blocks, the peak of its compute tier and the projected one, bytes moved."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every system is given."""

    graph: str
    model: str
    layers: int = 3
    hidden: int = 128
    heads: int = 4
    """Of models of attention: they share the width."""
    dropout: float = 0.0
    learning_rate: float = 0.01
    seed: int = 0
    """Of parameters and dropout."""
    budget_bytes: int | None = None
    """Of FlexGNN's compute tier; None: what is free."""
    host_memory_bytes: int | None = None
    """Of the tier between a device's memory and storage; None: what is free."""
    storage_dtype: str = "float32"
    """Of what FlexGNN's steps leave for each other."""
    device: str = "cpu"
    """What all systems compute on."""

    @property
    def size(self) -> str:
        """In words."""
        layers = "1 layer" if self.layers == 1 else f"{self.layers} layers"
        return f"{layers} of width {self.hidden}" + (f", {self.heads} heads," if self.model in ATTENTION else "")

    def build(self, store: GraphStore) -> torch.nn.Module:
        """The model, with the same parameters in every process."""
        return build(
            self.model,
            store.info,
            layers=self.layers,
            hidden=self.hidden,
            heads=self.heads,
            dropout=self.dropout,
            seed=self.seed,
        )


class SystemEndedError(RuntimeError):
    """A system's process ended before it should."""


class System:
    """The parent's side of one system."""

    def __init__(self, name: str, task: Task) -> None:
        self.name, self.task = name, task
        command = [sys.executable, __file__, name, json.dumps(asdict(task))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def epoch(self) -> Epoch:
        """One more epoch.

        Raises:
            SystemEndedError: if the process has ended, for lack of memory for example.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("epoch\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SystemEndedError(
                f"{self.name} ended with exit code {self._process.wait()} before its epoch was done."
            )
        return Epoch(**json.loads(line))

    def close(self) -> None:
        """Let the process end, which gives its scratch files back: the end of its standard input tells it to."""
        self._process.communicate()


class Peak:
    """The most anonymous memory of this process while it is watched: not while others have their turn."""

    def __init__(self) -> None:
        self._bytes = 0
        self._watching = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while self._watching.wait():
            self._bytes = max(self._bytes, anonymous_bytes(os.getpid()))
            time.sleep(_SAMPLE_SECONDS)

    def begin(self) -> None:
        self._bytes = 0
        self._watching.set()

    def end(self) -> int:
        self._watching.clear()
        return self._bytes


class DevicePeak:
    """The most memory of a GPU that torch had allocated while it is watched."""

    def begin(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def end(self) -> int:
        return int(torch.cuda.max_memory_allocated())


def peak_on(device: str) -> Peak | DevicePeak:
    """Of the memory that is scarce there."""
    return Peak() if device == "cpu" else DevicePeak()


class PyG:
    """Full-batch training; how, is told by ``adjacency`` and ``forward``."""

    def __init__(self, task: Task) -> None:
        store = GraphStore.open(task.graph)
        self.model = task.build(store).to(task.device)
        self.data = store.to_pyg()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=task.learning_rate)
        self.adjacency = self.prepare(store, task.model).to(task.device)
        self.data.edge_index = None
        self.data.to(task.device)

    def prepare(self, store: GraphStore, model: str) -> Tensor:
        """What the model gets as ``edge_index``."""
        return self.data.edge_index

    def forward(self) -> Tensor:
        logits: Tensor = self.model(self.data.x, self.adjacency)
        return logits

    def epoch(self) -> float:
        self.optimizer.zero_grad()
        mask = self.data.train_mask
        loss = cross_entropy(self.forward()[mask], self.data.y[mask])
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


class PyGOverCSR(PyG):
    """Over a ``torch.sparse`` CSR matrix, normalised, or with its self loops, once where the model wants that.

    PyG's fastest way on a CPU, where it can multiply by the matrix. Attention can't: it takes the edges out again.
    """

    def prepare(self, store: GraphStore, model: str) -> Tensor:
        index, weight, size = self.data.edge_index, None, (store.info.num_nodes,) * 2
        if model == "gcn":
            index, weight = gcn_norm(index, None, store.info.num_nodes, dtype=torch.float32)
            for conv in self.model.convs:
                conv.normalize = False
        if model in ATTENTION:
            index, _ = add_self_loops(remove_self_loops(index)[0], num_nodes=store.info.num_nodes)
            for conv in self.model.convs:
                conv.add_self_loops = False
        weight = torch.ones(index.shape[1]) if weight is None else weight
        return torch.sparse_coo_tensor(index.flip(0), weight, size).coalesce().to_sparse_csr()


class PyGWithCheckpoints(PyGOverCSR):
    """Over CSR, keeping only the inputs of layers: the rest is computed again in backward."""

    def forward(self) -> Tensor:
        x, last = self.data.x, len(self.model.convs) - 1
        for number, conv in enumerate(self.model.convs):
            x = checkpoint(self._layer, conv, x, number < last, use_reentrant=False)
        return x

    def _layer(self, conv: torch.nn.Module, x: Tensor, activated: bool) -> Tensor:
        x = conv(x, self.adjacency)
        return x.relu() if activated else x


PYG: dict[str, type[PyG]] = {
    "pyg edge_index": PyG,
    "pyg csr": PyGOverCSR,
    "pyg csr checkpointed": PyGWithCheckpoints,
}
FLEXGNN = "flexgnn"


def serve_pyg(name: str, task: Task, wait: Callable[[], None], answer: Callable[[Epoch], None]) -> None:
    """Epochs of a PyG system, one for each ``wait``."""
    system, peak = PYG[name](task), peak_on(task.device)
    while True:
        wait()
        peak.begin()
        start = time.perf_counter()
        loss = system.epoch()
        answer(Epoch(loss=loss, seconds=time.perf_counter() - start, peak_bytes=peak.end()))


def make_trainer(task: Task, model: torch.nn.Module, store: GraphStore, *listeners: Listener) -> Trainer:
    """FlexGNN's, as the task says."""
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate)
    return Trainer(
        model,
        store,
        optimizer,
        device=task.device,
        device_memory=task.budget_bytes,
        host_memory=task.host_memory_bytes,
        storage_dtype=task.storage_dtype,
        seed=task.seed,
        listeners=listeners,
    )


def plan_of(task: Task) -> Plan:
    """What FlexGNN would do.

    Raises:
        BudgetError: if it can't within the task's budget.
    """
    store = GraphStore.open(task.graph)
    return make_trainer(task, task.build(store), store).plan


def needed_bytes(task: Task) -> int:
    """What FlexGNN plans to use of its compute tier."""
    return plan_of(task).projected_peak_bytes


def serve_flexgnn(task: Task, wait: Callable[[], None], answer: Callable[[Epoch], None]) -> None:
    """Epochs of FlexGNN, which stops between them where it reports the last one."""
    store = GraphStore.open(task.graph)
    model = task.build(store)
    peak = peak_on(task.device)

    def report(event: Event) -> None:
        if isinstance(event, EpochRecord):
            plan = {
                "blocks": trainer.plan.num_blocks,
                "peak_bytes": event.peak_bytes[trainer.plan.compute_tier],
                "projected_bytes": trainer.plan.projected_peak_bytes,
                "moved_bytes": sum(event.moved_bytes.values()),
            }
            answer(Epoch(loss=event.loss, seconds=event.seconds, peak_bytes=peak.end(), plan=plan))
            wait()
            peak.begin()

    trainer = make_trainer(task, model, store, report)
    wait()
    peak.begin()
    trainer.fit(1_000_000)


def main() -> None:
    """The child: ``systems.py NAME TASK``."""
    warnings.filterwarnings("ignore", message="Sparse")  # of torch, about CSR matrices
    answers = sys.stdout
    sys.stdout = sys.stderr

    def wait() -> None:
        if not sys.stdin.readline():
            sys.exit()

    def answer(epoch: Epoch) -> None:
        print(json.dumps(asdict(epoch)), file=answers, flush=True)

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=[FLEXGNN, *PYG])
    parser.add_argument("task", type=lambda text: Task(**json.loads(text)))
    options = parser.parse_args()
    if options.name == FLEXGNN:
        serve_flexgnn(options.task, wait, answer)
    else:
        serve_pyg(options.name, options.task, wait, answer)


def run_one(name: str, task: Task, epochs: int) -> list[Epoch]:
    """``epochs`` epochs of one system by itself."""
    system = System(name, task)
    try:
        return [system.epoch() for _ in range(epochs)]
    finally:
        system.close()


def graph_path(directory: str | Path) -> str:
    """Where benchmarks put their graph in ``directory``."""
    return str(Path(directory) / "graph")


if __name__ == "__main__":
    main()
