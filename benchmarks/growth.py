"""Epochs of ever larger graphs of constant degree under one budget: seconds and memory, and seconds an edge.

A 3-layer GCN of width 128 on generated graphs, with values and gradients stored as float32 and as bfloat16. PyG over
CSR stands beside it for as long as it is asked to.

    python benchmarks/growth.py --nodes 100000 400000 1600000 --budget 1GiB --output docs/benchmarks
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from reporting import machine, markdown_table, write_json
from systems import FLEXGNN, Task, graph_path, run_one

from flexgnn.core.sizes import format_size, parse_size
from flexgnn.datasets import generate

PYG = "pyg csr"


def measure(
    nodes: int, degree: int, budget_bytes: int, epochs: int, *, with_pyg: bool, scratch: str
) -> dict[str, object]:
    """One row: a graph of ``nodes`` nodes, trained within the budget."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        began = time.perf_counter()
        store = generate(graph_path(directory), num_nodes=nodes, num_edges=nodes * degree)
        generated = time.perf_counter() - began
        task = Task(graph=graph_path(directory), model="gcn", budget_bytes=budget_bytes)
        found = run_one(FLEXGNN, task, epochs + 1)
        row = {
            "nodes": nodes,
            "edges": store.info.num_edges,
            "feature_bytes": 4 * nodes * store.info.num_features,
            "generated_seconds": generated,
            "first_epoch_seconds": found[0].seconds,
            "seconds": statistics.median(epoch.seconds for epoch in found[1:]),
            "process_bytes": max(epoch.peak_bytes for epoch in found[1:]),
            **found[-1].plan,
        }
        half = run_one(FLEXGNN, replace(task, storage_dtype="bfloat16"), epochs + 1)
        row["bfloat16_seconds"] = statistics.median(epoch.seconds for epoch in half[1:])
        row["bfloat16_moved_bytes"] = half[-1].plan["moved_bytes"]
        if with_pyg:
            other = run_one(PYG, task, epochs + 1)
            assert all(abs(a.loss - b.loss) < 1e-4 * abs(b.loss) for a, b in zip(found, other, strict=True))
            row["pyg_seconds"] = statistics.median(epoch.seconds for epoch in other[1:])
            row["pyg_process_bytes"] = max(epoch.peak_bytes for epoch in other[1:])
        return row


def table(rows: list[dict[str, float]]) -> str:
    """Markdown."""
    least = min(row["seconds"] / row["edges"] for row in rows)
    least_half = min(row["bfloat16_seconds"] / row["edges"] for row in rows)
    head = ["nodes", "edges", "features", "blocks", "peak of the tier", "process", "moved an epoch", "epoch"]
    head += ["time an edge, of the least", "as bfloat16: moved", "epoch", "time an edge, of the least"]
    head += [PYG, "its process"]
    lines = []
    for row in rows:
        lines.append(
            [
                f"{row['nodes']:,}",
                f"{row['edges']:,}",
                format_size(row["feature_bytes"]),
                str(row["blocks"]),
                format_size(row["peak_bytes"]),
                format_size(row["process_bytes"]),
                format_size(row["moved_bytes"]),
                f"{row['seconds']:.2f} s",
                f"{row['seconds'] / row['edges'] / least:.2f} x",
                format_size(row["bfloat16_moved_bytes"]),
                f"{row['bfloat16_seconds']:.2f} s",
                f"{row['bfloat16_seconds'] / row['edges'] / least_half:.2f} x",
                f"{row['pyg_seconds'] / row['seconds']:.1f} x" if "pyg_seconds" in row else "-",
                format_size(row["pyg_process_bytes"]) if "pyg_seconds" in row else "-",
            ]
        )
    return markdown_table(head, lines)


def main() -> None:
    """Measure every size, and write what was found after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10_000, 40_000])
    parser.add_argument("--degree", type=int, default=20)
    parser.add_argument("--budget", type=parse_size, default=parse_size("1GiB"))
    parser.add_argument("--epochs", type=int, default=3, help="counted epochs, after one that is not")
    parser.add_argument("--pyg-up-to", type=int, default=0, help="nodes of the largest graph that PyG trains on too")
    parser.add_argument("--scratch", help="directory for the graphs")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = []
    for nodes in options.nodes:
        with_pyg = nodes <= options.pyg_up_to
        row = measure(nodes, options.degree, options.budget, options.epochs, with_pyg=with_pyg, scratch=options.scratch)
        rows.append(row)
        text = (
            f"# Growth under a budget of {format_size(options.budget)}\n\n"
            f"A 3-layer GCN of width 128 on generated graphs of {options.degree} directed edges a node and 128 "
            f"features; medians of {options.epochs} epochs. "
            f"{PYG}: its epoch in FlexGNN's, losses agree. Process: anonymous memory, libraries included. "
            f"{machine().sentence} Made by `benchmarks/growth.py`.\n\n{table(rows)}\n"
        )
        print(text, flush=True)
        if options.output is not None:
            write_json(options.output / "growth.json", {"budget_bytes": options.budget, "rows": rows})
            (options.output / "growth.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
