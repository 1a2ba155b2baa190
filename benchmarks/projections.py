"""Projected epochs beside measured ones: several models, budgets and backends, each a real run.

python benchmarks/projections.py --output docs/benchmarks/projections.md
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from reporting import publish
from torch_geometric.nn import GCN, GIN, GraphSAGE

from flexgnn import GraphStore, Trainer
from flexgnn.core.sizes import format_size
from flexgnn.datasets import generate

MODELS = {"gcn": GCN, "sage": GraphSAGE, "gin": GIN}
CASES = [
    *(("gcn", share, backend) for backend in ("arrow", "zarr", "lmdb") for share in (2, 8)),
    *(("gcn", share, "arrow") for share in (1, 4, 16)),
    *(("sage", share, "arrow") for share in (1, 2, 4, 8)),
    *(("gin", share, "arrow") for share in (1, 4, 8)),
]
"""Model, divisor of what it needs in memory, and backend."""


def trainer_of(model_name: str, store: GraphStore, budget_bytes: int | None, backend: str) -> Trainer:
    """A trainer of a new model."""
    torch.manual_seed(0)
    model = MODELS[model_name](store.info.num_features, 128, 3, store.info.num_classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return Trainer(model, store, optimizer, device_memory=budget_bytes, ssd_backend=backend)


def main() -> None:
    """Run every case, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--edges", type=int, default=4_000_000)
    parser.add_argument("--epochs", type=int, default=6, help="of which the first is not counted")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lines = [
        "| model | budget of need | backend | projected | measured | ratio | peak of projected |",
        "|" + "---|" * 7,
    ]
    errors = []
    with tempfile.TemporaryDirectory() as directory:
        store = generate(Path(directory) / "graph", num_nodes=options.nodes, num_edges=options.edges)
        needed = {name: trainer_of(name, store, None, "arrow").plan.projected_peak_bytes for name in MODELS}
        for name, share, backend in CASES:
            trainer = trainer_of(name, store, None if share == 1 else needed[name] // share, backend)
            records = trainer.fit(options.epochs)
            measured = statistics.median(record.seconds for record in records[1:])
            projected, plan = trainer.plan.projected_epoch_seconds, trainer.plan
            errors.append(abs(projected / measured - 1))
            peaks = [peak / plan.projected_peaks[tier] for tier, peak in records[-1].peak_bytes.items() if peak]
            assert max(peaks) <= 1
            budget = "1" if share == 1 else f"1/{share} ({format_size(needed[name] // share)})"
            cells = [name, budget, backend, f"{projected:.2f} s", f"{measured:.2f} s", f"{projected / measured:.2f}"]
            lines.append(f"| {' | '.join([*cells, f'{max(peaks):.1%}'])} |")
            print(lines[-1], flush=True)
    about = (
        f"3-layer models of width 128, {options.nodes:,} nodes, {options.edges:,} edges, {torch.get_num_threads()} "
        f"threads. Error: {statistics.median(errors):.0%} in median, {max(errors):.0%} at worst. Made by "
        "`benchmarks/projections.py`."
    )
    text = "\n".join(["# Projected and measured epochs", "", about, "", *lines, ""])
    publish(text, options.output)


if __name__ == "__main__":
    main()
