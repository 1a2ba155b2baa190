"""Node orders of graphs whose nodes are shuffled: how long they take, what halos they leave, and sums over neighbours.

python benchmarks/orders.py --nodes 30000 --edges 300000 --datasets wordnet --output docs/benchmarks/orders.md
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from reporting import markdown_table, publish

from flexgnn import GraphStore
from flexgnn.core.graph.csr import NO_WEIGHTS, Csr, csr_both_ways
from flexgnn.core.graph.order import ORDERS, neighbour_pattern, node_order
from flexgnn.core.graph.order_cost import GROUPINGS, order_cost
from flexgnn.core.program.kernels import pull_sum
from flexgnn.core.runtime.pull_calibration import NO_VECTORS, whole_pass
from flexgnn.core.tier import Array
from flexgnn.datasets import generate, load_dataset

WIDTH = 128
LEGEND = (
    "*given*: the nodes are shuffled; *stored*: as the store has them; *auto*: with the order that it chose. Seconds "
    "are those of making and counting an order, with *auto* of all that it compared. Halo rows are of all blocks of so "
    "many chunks, rows fetched those that a cache of 16 MiB lacks at width 128, both in multiples of the number of "
    "nodes. Expected: what of 100 epochs depends on the order, by the figures of `flexgnn/core/graph/order_cost.py`. "
    "Sums over neighbours are measured: width 128, one thread, orders taking turns."
)


def stored_edges(store: GraphStore) -> tuple[Array, Array]:
    """Sources and destinations, in positions of the store: int32 [E] each."""
    indptr = store.read("in/indptr", 0, store.info.num_nodes + 1)
    rows = np.repeat(np.arange(store.info.num_nodes, dtype=np.int32), np.diff(indptr))
    return store.read("in/indices", 0, store.info.num_edges), rows


def all_orders(source: Array, destination: Array, num_nodes: int, chunk_rows: int) -> dict[str, tuple[Array, float]]:
    """Every order that can be made, with the seconds that it took, by name."""
    found = {}
    for order in ORDERS:
        if order == "metis" and not find_spec("pymetis"):
            continue
        made = node_order(source, destination, num_nodes, chunk_rows=chunk_rows, order=order)
        found[f"auto: {made.name}" if order == "auto" else order] = made.node_ids, made.seconds
    return found


def reordered(source: Array, destination: Array, node_ids: Array) -> Csr:
    """The adjacency by destination, in positions."""
    positions = np.argsort(node_ids).astype(np.int32)
    return csr_both_ways(positions[source], positions[destination], NO_WEIGHTS, len(node_ids))[0]


def sum_seconds(graph: Csr, chunk_rows: int, rows: Array) -> float:
    """Of one sum over neighbours of ``rows`` (N x width), tile by tile."""
    out = np.empty((chunk_rows, rows.shape[1]), dtype=np.float32)
    began = time.perf_counter()
    for first in range(0, len(rows), chunk_rows):
        tile = out[: len(rows) - first]
        pull_sum(*whole_pass(rows), graph.indptr, graph.indices, *NO_VECTORS, 0, first, tile)
    return time.perf_counter() - began


def all_sums(graphs: dict[str, Csr], chunk_rows: int, rounds: int) -> dict[str, float]:
    """Median seconds of a sum over neighbours, by order; the first round is not counted."""
    num_nodes = len(graphs["given"].indptr) - 1
    rows = np.ones((num_nodes, WIDTH), dtype=np.float32)
    found: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(rounds + 1):
        for name, graph in graphs.items():
            found[name].append(sum_seconds(graph, chunk_rows, rows))
    return {name: statistics.median(seconds[1:]) for name, seconds in found.items()}


def compare(store: GraphStore, rounds: int) -> str:
    """A heading and a Markdown table, one line an order."""
    info = store.info
    shuffled = np.random.default_rng(0).permutation(info.num_nodes)
    source, destination = (shuffled[ends].astype(np.int32) for ends in stored_edges(store))
    orders = all_orders(source, destination, info.num_nodes, info.chunk_rows) | {"stored": (shuffled, 0.0)}
    graphs = {name: reordered(source, destination, node_ids) for name, (node_ids, _) in orders.items()}
    sums = all_sums(graphs, info.chunk_rows, rounds)
    pattern = neighbour_pattern(source, destination, info.num_nodes)
    halos = ", ".join(map(str, GROUPINGS))
    columns = ["order", "seconds", "edges between chunks", f"halo rows at {halos} chunks", "rows fetched"]
    columns += ["expected", "sum over neighbours, against given"]
    lines = []
    for name, (node_ids, seconds) in orders.items():
        cost = order_cost(pattern, node_ids, info.chunk_rows)
        cells = [
            name,
            f"{seconds:.2f}",
            f"{cost.between_chunks:.0%}",
            ", ".join(f"{rows / info.num_nodes:.2f}" for rows in cost.halo_rows),
            f"{cost.missed_rows / info.num_nodes:.2f}",
            f"{cost.seconds:.1f} s",
            f"{sums[name] / sums['given']:.2f} x",
        ]
        lines.append(cells)
    sizes = f"{info.num_nodes:,} nodes, {info.num_edges:,} edges, chunks of {info.chunk_rows:,}"
    return "\n".join([f"## {info.name}: {sizes}", "", markdown_table(columns, lines), ""])


def main() -> None:
    """Order each graph in every way, and print a Markdown table of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=30_000, help="of a generated graph")
    parser.add_argument("--edges", type=int, default=300_000)
    parser.add_argument("--datasets", nargs="*", default=[], help="data sets beside it")
    parser.add_argument("--rounds", type=int, default=7, help="of sums over neighbours")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    # What numba has not compiled yet would count as time of the first order.
    path = np.arange(99, dtype=np.int32)
    all_orders(path[1:], path[:-1], 99, 16)
    tables = ["# Node orders\n", LEGEND + " Made by `benchmarks/orders.py`.\n"]
    with tempfile.TemporaryDirectory() as directory:
        made = generate(Path(directory) / "generated", num_nodes=options.nodes, num_edges=options.edges, num_features=1)
        for store in [made, *(load_dataset(name) for name in options.datasets)]:
            tables.append(compare(store, options.rounds))
    publish("\n".join(tables), options.output)


if __name__ == "__main__":
    main()
