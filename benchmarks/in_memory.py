"""An epoch with everything in memory, beside full-batch PyG over a ``torch.sparse`` CSR matrix: same model, same data.

Both train the same 3-layer GCN from the same parameters; their epochs alternate, so that the machine's drift cancels.
Losses are compared before any time is printed.

    python benchmarks/in_memory.py --nodes 200000 --edges 3000000
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch_geometric.nn import GCN
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from flexgnn import GraphStore, Trainer
from flexgnn.core.runtime.events import EpochRecord, Event
from flexgnn.datasets import generate


class PyGTraining:
    """Full-batch training with the adjacency normalised once, and stored as CSR: PyG's fastest way on a CPU."""

    def __init__(self, model: GCN, store: GraphStore) -> None:
        self.model = copy.deepcopy(model)
        for conv in self.model.convs:
            conv.normalize = False
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.data = store.to_pyg()
        index, weight = gcn_norm(self.data.edge_index, None, store.info.num_nodes, dtype=torch.float32)
        size = (store.info.num_nodes, store.info.num_nodes)
        self.adjacency = torch.sparse_coo_tensor(index.flip(0), weight, size).coalesce().to_sparse_csr()

    def epoch(self) -> tuple[float, float]:
        """Loss and seconds of one epoch."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        logits = self.model(self.data.x, self.adjacency)
        loss = cross_entropy(logits[self.data.train_mask], self.data.y[self.data.train_mask])
        loss.backward()
        self.optimizer.step()
        return float(loss.detach()), time.perf_counter() - start


def main() -> None:
    """Run both, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--edges", type=int, default=3_000_000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=5, help="counted epochs, after one that is not")
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as directory:
        store = generate(Path(directory) / "graph", num_nodes=options.nodes, num_edges=options.edges)
        model = GCN(store.info.num_features, options.hidden, 3, store.info.num_classes)
        pyg = PyGTraining(model, store)
        times: dict[str, list[float]] = {"flexgnn": [], "pyg": []}

        def alternate(event: Event) -> None:
            if isinstance(event, EpochRecord):
                loss, seconds = pyg.epoch()
                assert abs(event.loss - loss) < 1e-4 * abs(loss), (event.loss, loss)
                times["flexgnn"].append(event.seconds)
                times["pyg"].append(seconds)

        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        Trainer(model, store, optimizer, listeners=[alternate]).fit(options.epochs + 1)
    times = {name: seconds[1:] for name, seconds in times.items()}
    ratio = statistics.median(p / f for p, f in zip(times["pyg"], times["flexgnn"], strict=True))
    print(f"{store.info.num_nodes:,} nodes, {store.info.num_edges:,} edges, {torch.get_num_threads()} threads")
    for name, seconds in times.items():
        print(f"{name:8s} median {statistics.median(seconds):.2f} s an epoch (of {options.epochs})")
    print(f"FlexGNN is {ratio:.1f} x as fast; losses agree within 1e-4 in every epoch")


if __name__ == "__main__":
    main()
