"""A test through the command line: training that spills to the backend gives the losses of training in memory."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flexgnn.core.errors import BudgetError, PluginError
from flexgnn.core.plugins import load_plugins
from flexgnn.launch import make_trainer
from flexgnn.options import run_config
from flexgnn.testing.graphs import random_graph
from flexgnn.testing.kit import Kit
from flexgnn.testing.processes import same_imports

_FLEXGNN = [sys.executable, "-c", "from flexgnn.cli import main; main()"]
_TRAINING: dict[str, Any] = {"epochs": 3, "hidden": 8}


@dataclass(frozen=True)
class _InMemory:
    """Training without a storage tier."""

    losses: list[float]
    smallest_bytes: int
    """Of the compute tier, the least that training works in; some of it is left to storage then."""


class TrainingTests(Kit):
    """Training, as users start it."""

    def test_training_over_the_tier_gives_the_losses_of_training_in_memory(self, location: str, tmp_path: Path) -> None:
        self._check_registered()
        expected = _trained_in_memory()
        output = tmp_path / "output"
        arguments = {
            **_TRAINING,
            "dataset": random_graph(tmp_path / "graph").path,
            "device-memory": 5 * expected.smallest_bytes // 4,  # more, for tiers that ask for aligned buffers
            "output": output,
        }
        options = [f"--{name}={value}" for name, value in arguments.items()] + self._tier_options(location)
        command = [*_FLEXGNN, "run", *options]
        ended = subprocess.run(command, env=same_imports(), capture_output=True, text=True, timeout=600)
        assert ended.returncode == 0, ended.stderr
        history = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
        assert history[-1]["peak_bytes"].get(self.backend.name, 0) > 0, "nothing was put on the tier"
        assert [record["loss"].hex() for record in history] == [loss.hex() for loss in expected.losses]

    def _check_registered(self) -> None:
        """Fail unless the command line finds this backend, and no other, under its name."""
        name = self.backend.name
        try:
            found = load_plugins().tier_backend(name)
        except PluginError as error:
            pytest.fail(f"{self.backend.__name__} is not registered by an entry point of the group flexgnn: {error}")
        assert found is self.backend, f"the name {name!r} stands for {found}, not for {self.backend}"

    def _tier_options(self, location: str) -> list[str]:
        """The tier as the command line takes it."""
        name = self.backend.name
        if self.backend.local and not self.settings:
            return ["--ssd-backend", name, "--ssd-path", location]
        settings = "".join(f",{key}={value}" for key, value in self.settings.items())
        return ["--tier", f"{name}={name}:{location}{settings}"]


@functools.cache
def _trained_in_memory() -> _InMemory:
    """What every tier is compared with; it is the same for all, so it is made once."""
    with tempfile.TemporaryDirectory(prefix="kit-") as folder:
        store = random_graph(Path(folder) / "graph")
        trainer = make_trainer(run_config(dataset=str(store.path), **_TRAINING), store)
        records = trainer.fit(_TRAINING["epochs"])
        in_use = {tier for tier, peak_bytes in records[-1].peak_bytes.items() if peak_bytes > 0}
        assert in_use == {trainer.plan.compute_tier}
        with pytest.raises(BudgetError) as refusal:
            make_trainer(run_config(dataset=str(store.path), device_memory="1B", **_TRAINING), store).plan  # noqa: B018
        return _InMemory([record.loss for record in records], refusal.value.smallest_bytes)
