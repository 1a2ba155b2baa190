"""Memory of attention: on graphs of as many nodes and ever more edges, with 4 heads and with 8 that share the width.

A GAT of 2 layers and a linear layer, trained by FlexGNN in memory and by full-batch PyG, each in a process of its own
whose epochs alternate; losses are compared in every round. The compute tier is what FlexGNN projects, and its adjacency
the part of it that has an entry an edge (4 bytes, and 8 a node): both come from the plan. Processes are measured:
anonymous memory at its peak in an epoch, libraries and data included.

    python benchmarks/attention.py --output docs/benchmarks/attention.md
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from compare import alternate, summary
from networks import GAT_AND_LINEAR
from reporting import machine, markdown_table, publish
from systems import FLEXGNN, System, Task, graph_path, plan_of

from flexgnn import GraphStore
from flexgnn.core.plan.plan import Plan
from flexgnn.core.sizes import format_size
from flexgnn.datasets import generate

PYG = "pyg edge_index"
HEADS = (4, 8)
WIDTH = 64


def adjacency_bytes(plan: Plan) -> int:
    """What the compute tier holds of the graph's edges, in a plan that keeps them for the whole run."""
    return sum(slot.size_bytes for slot in plan.slots if slot.field.startswith(("in/", "out/")))


def measure(store: GraphStore, degree: int, heads: int, epochs: int) -> list[str]:
    """A row of the table."""
    task = Task(graph=str(store.path), model=GAT_AND_LINEAR, layers=2, hidden=WIDTH, heads=heads)
    plan = plan_of(task)
    found, ended = alternate({name: System(name, task) for name in (FLEXGNN, PYG)}, epochs, epochs)
    rows = {row["system"]: row for row in summary(found)}
    ours, pyg = rows[FLEXGNN], rows.get(PYG)
    adjacency = adjacency_bytes(plan)
    return [
        str(degree),
        f"{store.info.num_edges:,}",
        f"{heads} x {WIDTH // heads}",
        format_size(plan.projected_peak_bytes),
        format_size(adjacency),
        format_size(plan.projected_peak_bytes - adjacency),
        format_size(ours["process_bytes"]),
        format_size(pyg["process_bytes"]) if pyg else " ".join(ended),
        f"{ours['seconds']:.2f} s",
        f"{pyg['seconds']:.2f} s ({pyg['of_flexgnn']:.1f} x)" if pyg else "-",
    ]


def main() -> None:
    """Measure every degree and number of heads, and print Markdown after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=50_000)
    parser.add_argument("--degrees", type=int, nargs="+", default=[5, 20, 100], help="edges a node")
    parser.add_argument("--epochs", type=int, default=5, help="counted epochs, after one that is not")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    head = ["edges a node", "edges", "heads", "compute tier", "of it adjacency", "all else", "FlexGNN's process"]
    head += ["PyG's process", "FlexGNN's epoch", "PyG's epoch"]
    lines = []
    for degree in options.degrees:
        with tempfile.TemporaryDirectory() as directory:
            nodes = options.nodes
            store = generate(graph_path(directory), num_nodes=nodes, num_edges=nodes * degree)
            for heads in HEADS:
                lines.append(measure(store, degree, heads, options.epochs))
                text = (
                    "# Memory of attention\n\n"
                    f"A GAT of 2 layers of width {WIDTH}, heads side by side, and a linear layer after them, on "
                    f"generated graphs of {nodes:,} nodes and {store.info.num_features} features; FlexGNN in memory "
                    f"beside full-batch PyG over `edge_index`. Adjacency is 4 bytes an edge and 8 a node, with any "
                    "number of heads; all else of the compute tier belongs to nodes. Compute tier: projected. Process: "
                    "peak of anonymous memory in an epoch, libraries and data included. Epochs of both alternate in "
                    f"one run, losses agree; medians of {options.epochs}, ratios medians over rounds. "
                    f"{machine().sentence} Made by `benchmarks/attention.py`.\n\n{markdown_table(head, lines)}\n"
                )
                publish(text, options.output)


if __name__ == "__main__":
    main()
