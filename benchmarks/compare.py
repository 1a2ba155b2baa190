"""FlexGNN beside full-batch PyG: epoch times and memory, on the same graph, from the same parameters.

Epochs of all systems alternate, so that the machine's drift reaches all of them; the first of each is not counted.
Losses are compared in every round before any time is printed: with PyG to 1e-4, between budgets to the bit. Budgets are
shares of what FlexGNN needs in memory.

    python benchmarks/compare.py --model gcn --nodes 500000 --edges 10000000 --output docs/benchmarks
    python benchmarks/compare.py --model gat --nodes 100000 --edges 2000000 --hidden 64 --output docs/benchmarks

PyG takes attention over ``torch.sparse`` CSR too, but has no product with a matrix for it: "pyg csr" is no more than
edges in order, with self loops added once.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from networks import MODELS
from reporting import machine, markdown_table, write_json
from systems import FLEXGNN, PYG, Epoch, System, SystemEndedError, Task, graph_path, needed_bytes

from flexgnn.core.sizes import format_size
from flexgnn.datasets import generate

SLOW = "pyg edge_index"
"""Takes minutes an epoch at the size of the published figures."""

LAYERS = 3

MEMORY = {
    "cpu": "Process: peak of anonymous memory in an epoch, libraries and data included.",
    "cuda": "Process: peak of what torch allocated on the GPU in an epoch, data included.",
}

Found = dict[str, list[Epoch]]


def all_systems(task: Task, shares: list[int], pyg: list[str]) -> dict[str, System]:
    """By label: FlexGNN in memory and under each share of what that needs, then PyG."""
    needed = needed_bytes(task)
    systems = {FLEXGNN: System(FLEXGNN, task)}
    for share in shares:
        systems[f"{FLEXGNN} in 1/{share}"] = System(FLEXGNN, replace(task, budget_bytes=needed // share))
    return systems | {name: System(name, task) for name in pyg}


def alternate(systems: dict[str, System], epochs: int, slow_epochs: int) -> tuple[Found, list[str]]:
    """Epochs of each system, one more than are counted, and what became of systems that ended early."""
    found: Found = {label: [] for label in systems}
    ended = []
    for number in range(epochs + 1):
        for label, system in list(systems.items()):
            if label == SLOW and number > slow_epochs:
                continue
            try:
                found[label].append(system.epoch())
            except SystemEndedError as error:
                ended.append(str(error))
                del systems[label]
        _check_losses(found, number)
    for system in systems.values():
        system.close()
    return {label: of_system for label, of_system in found.items() if len(of_system) > 1}, ended


def _check_losses(found: Found, number: int) -> None:
    losses = {label: of_system[number].loss for label, of_system in found.items() if len(of_system) > number}
    for label, loss in losses.items():
        allowed = 0.0 if label.startswith(FLEXGNN) else 1e-4 * abs(losses[FLEXGNN])
        assert abs(loss - losses[FLEXGNN]) <= allowed, (number, losses)


def summary(found: Found) -> list[dict[str, Any]]:
    """A row of plain data for each system. Ratios are medians over rounds, each of epochs that ran in turn."""
    rows = []
    for label, epochs in found.items():
        pairs = zip(epochs[1:], found[FLEXGNN][1:], strict=False)
        rows.append(
            {
                "system": label,
                "epochs": len(epochs) - 1,
                "seconds": statistics.median(epoch.seconds for epoch in epochs[1:]),
                "of_flexgnn": statistics.median(epoch.seconds / ours.seconds for epoch, ours in pairs),
                "process_bytes": max(epoch.peak_bytes for epoch in epochs),
                "loss": epochs[-1].loss,
                **{key: epochs[-1].plan.get(key) for key in ("blocks", "peak_bytes", "projected_bytes", "moved_bytes")},
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = ["system", "epochs", "epoch", "of FlexGNN's", "process", "blocks", "compute tier", "moved an epoch"]
    ours = rows[0]["process_bytes"]
    lines = []
    for row in rows:
        plan = row["blocks"] is not None
        lines.append(
            [
                row["system"],
                str(row["epochs"]),
                f"{row['seconds']:.2f} s",
                f"{row['of_flexgnn']:.1f} x",
                f"{format_size(row['process_bytes'])} ({row['process_bytes'] / ours:.2f} x)",
                str(row["blocks"]) if plan else "-",
                format_size(row["peak_bytes"]) if plan else "-",
                format_size(row["moved_bytes"]) if plan else "-",
            ]
        )
    return markdown_table(head, lines)


def main() -> None:
    """Run all systems, and print and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="gcn")
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--edges", type=int, default=200_000)
    parser.add_argument("--layers", type=int, default=LAYERS, help="named in files where it is another")
    parser.add_argument("--hidden", type=int, default=128, help="width; 4 heads share it in models of attention")
    parser.add_argument(
        "--shares", type=int, nargs="*", default=[2, 4, 8], help="of what is needed in memory: 1/2, ..."
    )
    parser.add_argument("--pyg", nargs="*", choices=list(PYG), default=list(PYG))
    parser.add_argument("--epochs", type=int, default=5, help="counted epochs, after one that is not")
    parser.add_argument("--slow-epochs", type=int, default=2, help=f"likewise, of {SLOW}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of all systems; named in files")
    parser.add_argument("--output", type=Path, help="directory for JSON and Markdown")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        store = generate(graph_path(directory), num_nodes=options.nodes, num_edges=options.edges)
        task = Task(
            graph=graph_path(directory),
            model=options.model,
            layers=options.layers,
            hidden=options.hidden,
            device=options.device,
        )
        systems = all_systems(task, options.shares, options.pyg)
        found, ended = alternate(systems, options.epochs, options.slow_epochs)
    rows = summary(found)
    text = (
        f"# {options.model}: FlexGNN beside PyG\n\n"
        f"{task.size} on a generated graph of {store.info.num_nodes:,} nodes, "
        f"{store.info.num_edges:,} directed edges and {store.info.num_features} features. Epochs of all systems "
        "alternate in one run; losses agree in every round, those of FlexGNN to the bit. Seconds are medians, ratios "
        f"medians over rounds. {MEMORY[options.device]} {machine().sentence} Made by `benchmarks/compare.py`.\n\n"
        f"{table(rows)}\n"
    )
    text += "".join(f"\n{line}\n" for line in ended)
    print(text)
    if options.output is not None:
        name = f"compare-{options.model}" + ("" if options.layers == LAYERS else f"-{options.layers}-layer")
        name += "" if options.device == "cpu" else f"-{options.device}"
        graph = {"nodes": store.info.num_nodes, "edges": store.info.num_edges, "features": store.info.num_features}
        epochs = {label: [asdict(epoch) for epoch in of_system] for label, of_system in found.items()}
        document = {"model": options.model, "graph": graph, "rows": rows, "ended": ended, "epochs": epochs}
        write_json(options.output / f"{name}.json", document)
        (options.output / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
