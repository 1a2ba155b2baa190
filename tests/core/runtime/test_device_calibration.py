"""What is measured of a device: every figure that planners ask for. Of a stand-in, it is what the host computes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch_geometric.nn import GCN

from flexgnn import Trainer
from flexgnn.core.plan.machines import load_machine, stated_compute
from flexgnn.core.runtime.device_calibration import measure_device
from flexgnn.core.runtime.events import Event, MeasurementStarted
from tests.graphs import small_graph, store_of
from tests.stand_in import StandInBackend


@pytest.mark.slow
def test_a_device_is_measured_once_and_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXGNN_CACHE", str(tmp_path / "cache"))
    stated = {figure.kind for figure in stated_compute(load_machine("laptop-nvme")).figures}
    rates = measure_device(StandInBackend())
    assert {figure.kind for figure in rates.figures} == stated
    for figure in rates.figures:
        assert math.isfinite(figure.value)
        assert 0 < figure.low <= figure.value <= figure.high, figure
    store = store_of(small_graph(), tmp_path / "graph")
    measured: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, MeasurementStarted):
            measured.append(event.subject)

    for _ in range(2):
        model = GCN(5, 8, num_layers=2, out_channels=3)
        optimizer = torch.optim.Adam(model.parameters())
        trainer = Trainer(model, store, optimizer, device=StandInBackend(), listeners=[listen])
        assert trainer.plan.projected_epoch_seconds > 0
    assert measured == ["computation of stand-in"]
