"""Draws what ``compare.py`` and ``growth.py`` wrote: time against budget, time and memory against graph size.

pip install -e '.[benchmark]'
python benchmarks/plots.py docs/benchmarks
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

GIB = 2**30


def time_against_budget(found: dict[str, Any], axes: Axes) -> None:
    """Epoch seconds of FlexGNN against the peak of its compute tier, with the other systems as lines."""
    ours = sorted((r for r in found["rows"] if r["peak_bytes"]), key=lambda row: float(row["peak_bytes"]))
    axes.plot([row["peak_bytes"] / GIB for row in ours], [row["seconds"] for row in ours], "o-", label="FlexGNN")
    others = (row for row in found["rows"] if not row["peak_bytes"])
    for number, row in enumerate(others, start=1):
        axes.axhline(row["seconds"], color=f"C{number}", linestyle="--", label=row["system"])
    axes.set(xscale="log", yscale="log", xlabel="compute tier [GiB]", ylabel="epoch [s]", title=found["model"])
    axes.legend()


def against_size(found: dict[str, Any], keys: tuple[str, str], scale: float, label: str, axes: Axes) -> None:
    """A figure of FlexGNN, and of PyG where it was measured, against the number of edges."""
    rows = found["rows"]
    for name, key in zip(("FlexGNN", "pyg csr"), keys, strict=True):
        there = [row for row in rows if key in row]
        axes.plot([row["edges"] for row in there], [row[key] / scale for row in there], "o-", label=name)
    axes.set(xscale="log", yscale="log", xlabel="directed edges", ylabel=label)
    axes.legend()


def main() -> None:
    """Draw one SVG for each JSON file that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    plt.rcParams["svg.hashsalt"] = "flexgnn"  # the same file for the same figures
    for path in sorted(directory.glob("compare-*.json")):
        figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        time_against_budget(json.loads(path.read_text()), axes)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    growth = directory / "growth.json"
    if growth.exists():
        found = json.loads(growth.read_text())
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
        against_size(found, ("seconds", "pyg_seconds"), 1, "epoch [s]", left)
        against_size(found, ("process_bytes", "pyg_process_bytes"), GIB, "memory of the process [GiB]", right)
        right.axhline(found["budget_bytes"] / GIB, color="grey", linestyle=":", label="budget of the compute tier")
        right.legend()
        figure.savefig(growth.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
