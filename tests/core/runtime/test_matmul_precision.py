"""How exactly products are made does not depend on what a process is set to."""

from __future__ import annotations

from pathlib import Path

import torch
from torch_geometric.nn import GCN

from flexgnn import Trainer
from flexgnn.core.runtime.events import Event, StepFinished
from tests.graphs import small_graph, store_of


def test_products_are_of_float32_while_a_plan_runs_and_as_before_afterwards(tmp_path: Path) -> None:
    found = set()

    def note(event: Event) -> None:
        if isinstance(event, StepFinished):
            found.add(torch.get_float32_matmul_precision())

    model = GCN(5, 8, num_layers=2, out_channels=3)
    store = store_of(small_graph(), tmp_path / "graph")
    torch.set_float32_matmul_precision("medium")
    try:
        Trainer(model, store, torch.optim.Adam(model.parameters()), listeners=[note]).fit(1)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found == {"highest"}
