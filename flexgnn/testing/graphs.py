"""A small graph to train on."""

from __future__ import annotations

from pathlib import Path

import torch
from torch_geometric.data import Data

from flexgnn.core.graph.store import GraphStore


def random_graph(path: Path, *, num_nodes: int = 600, num_edges: int = 3000, chunk_rows: int = 64) -> GraphStore:
    """A random directed graph with 5 features and 3 classes, the same in every call."""
    generator = torch.Generator().manual_seed(11)
    place = torch.arange(num_nodes) % 5
    data = Data(
        x=torch.randn(num_nodes, 5, generator=generator),
        edge_index=torch.randint(0, num_nodes, (2, num_edges), generator=generator),
        y=torch.arange(num_nodes) % 3,
        train_mask=place < 3,
        val_mask=place == 3,
        test_mask=place == 4,
    )
    return GraphStore.from_pyg(data, path, chunk_rows=chunk_rows)
