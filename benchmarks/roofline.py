"""Kernels beside the limits of the machine: bytes and floating-point operations a second, on all threads.

The limits are measured in the same run: bandwidth by ``a + b`` over arrays that fit in no cache, arithmetic by a large
matrix product. Bytes of a kernel are counted twice. *Needed*: each row read once, plus indices and results, as with a
cache for everything. *Touched*: every edge reads its row; above the bandwidth, caches helped.

    python benchmarks/roofline.py --nodes 500000 --edges 10000000 --output docs/benchmarks/roofline.md
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from reporting import machine, markdown_table, publish
from systems import graph_path

from flexgnn import GraphStore
from flexgnn.core.program.kernels import NO_VECTOR, pull_max, pull_sum
from flexgnn.core.runtime.pull_calibration import whole_pass
from flexgnn.core.tier import Array
from flexgnn.datasets import generate

WIDTHS = (16, 47, 64, 128, 256)
PRODUCTS = ((128, 128), (128, 47))
LARGE_FLOATS, LARGE_PRODUCT = 2**26, 3072


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel over all rows of a graph."""

    name: str
    run: Callable[[int, int], object]
    """On the rows from the first on to the second."""
    needed_bytes: int
    touched_bytes: int
    flops: int


def pulls(store: GraphStore) -> Iterator[Kernel]:
    """Sums and maxima over the neighbours of a generated graph, in its order."""
    nodes, edges = store.info.num_nodes, store.info.num_edges
    indptr, indices = store.read("in/indptr", 0, nodes + 1), store.read("in/indices", 0, edges)
    for width in WIDTHS:
        rows, out, ties = (np.ones((nodes, width), dtype=np.float32) for _ in range(3))

        def total(first: int, stop: int, rows: Array = rows, out: Array = out) -> None:
            adjacency = indptr, indices, NO_VECTOR, NO_VECTOR, NO_VECTOR
            pull_sum(*whole_pass(rows), *adjacency, 0, first, out[first:stop])

        def maximum(first: int, stop: int, rows: Array = rows, out: Array = out, ties: Array = ties) -> None:
            pull_max(*whole_pass(rows), indptr, indices, first, out[first:stop], ties[first:stop])

        row, index = 4 * width, indptr.nbytes + indices.nbytes
        sizes = {"needed_bytes": 2 * nodes * row + index, "touched_bytes": (edges + nodes) * row + index}
        yield Kernel(name=f"sum over neighbours, width {width}", run=total, flops=edges * width, **sizes)
        if width == 128:
            sizes = {name: size + nodes * row for name, size in sizes.items()}
            yield Kernel(name=f"maximum and ties, width {width}", run=maximum, flops=edges * width, **sizes)


def products(nodes: int) -> Iterator[Kernel]:
    """Matrix products of tiles, one thread each, and an element-wise function."""
    for inner, columns in PRODUCTS:
        x, weight, out = torch.ones(nodes, inner), torch.ones(inner, columns), torch.ones(nodes, columns)

        def product(
            first: int, stop: int, x: torch.Tensor = x, weight: torch.Tensor = weight, out: torch.Tensor = out
        ) -> None:
            torch.mm(x[first:stop], weight, out=out[first:stop])

        size = 4 * nodes * (inner + columns)
        flops = 2 * nodes * inner * columns
        name = f"tiles times {inner} x {columns}"
        yield Kernel(name=name, run=product, needed_bytes=size, touched_bytes=size, flops=flops)
    x, out = torch.ones(nodes, 128), torch.ones(nodes, 128)

    def scale(first: int, stop: int) -> None:
        torch.mul(x[first:stop], 2.0, out=out[first:stop])

    size = 2 * 4 * x.numel()
    yield Kernel(name="tiles scaled, width 128", run=scale, needed_bytes=size, touched_bytes=size, flops=x.numel())


def seconds_of(run: Callable[[], object], repeats: int) -> float:
    """The median."""
    run()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def limits(repeats: int) -> tuple[float, float]:
    """Bytes a second that a large addition reads and writes, and operations a second of a large product."""
    a, b, c = (torch.ones(LARGE_FLOATS) for _ in range(3))
    bandwidth = 3 * 4 * LARGE_FLOATS / seconds_of(lambda: torch.add(a, b, out=c), repeats)
    x = torch.ones(LARGE_PRODUCT, LARGE_PRODUCT)
    return bandwidth, 2 * LARGE_PRODUCT**3 / seconds_of(lambda: x @ x, repeats)


def measure(store: GraphStore, tile_rows: int, repeats: int) -> str:
    """Markdown."""
    nodes, threads = store.info.num_nodes, torch.get_num_threads()
    bandwidth, arithmetic = limits(repeats)
    starts = range(0, nodes, tile_rows)
    lines = []
    torch.set_num_threads(1)  # one tile a thread, as in a run
    with ThreadPoolExecutor(threads) as pool:
        for kernel in [*pulls(store), *products(nodes)]:

            def on_all(kernel: Kernel = kernel) -> None:
                list(pool.map(kernel.run, starts, (min(first + tile_rows, nodes) for first in starts)))

            seconds = seconds_of(on_all, repeats)
            rates = kernel.needed_bytes / seconds, kernel.touched_bytes / seconds
            shares = rates[0] / bandwidth, kernel.flops / seconds / arithmetic
            cells = [f"{seconds * 1e3:.0f} ms", *(f"{rate / 1e9:.1f}" for rate in rates)]
            cells += [f"{rates[1] / bandwidth:.0%}", f"{kernel.flops / seconds / 1e9:.1f}", f"{shares[1]:.0%}"]
            lines.append([kernel.name, *cells, "memory" if shares[0] > shares[1] else "arithmetic"])
    head = ["kernel", "all rows", "needed GB/s", "touched GB/s", "of the bandwidth", "GFLOP/s", "of the peak"]
    limit = f"Limits: {bandwidth / 1e9:.1f} GB/s, {arithmetic / 1e9:.0f} GFLOP/s, {threads} threads."
    return f"{limit}\n\n{markdown_table([*head, 'nearer to the limit of'], lines)}"


def main() -> None:
    """Measure the limits and every kernel, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=50_000)
    parser.add_argument("--edges", type=int, default=500_000)
    parser.add_argument("--tile-rows", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        store = generate(graph_path(directory), num_nodes=options.nodes, num_edges=options.edges, num_features=1)
        found = measure(store, options.tile_rows, options.repeats)
        sizes = f"{store.info.num_nodes:,} nodes and {store.info.num_edges:,} directed edges"
    text = (
        f"# Kernels and the limits of the machine\n\nA generated graph of {sizes}, tiles of {options.tile_rows} rows; "
        "medians. Needed: bytes with a cache for everything. Touched: every edge reads its row; more than the "
        f"bandwidth means that caches helped. {machine().sentence} Made by `benchmarks/roofline.py`.\n\n{found}\n"
    )
    publish(text, options.output)


if __name__ == "__main__":
    main()
