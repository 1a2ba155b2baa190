"""Accuracies of PyG and FlexGNN after the same training, on the smaller of the embedded graphs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.running import run, table_rows


@pytest.mark.slow
def test_both_systems_learn(tmp_path: Path) -> None:
    output = tmp_path / "accuracy.md"
    run("accuracy.py", "--dataset", "wordnet-verbs", "--seeds", "0", "--epochs", "4", "--output", str(output))
    rows = table_rows(output.read_text())
    assert [row["seed"] for row in rows] == ["0", "mean"]
    for row in rows:
        assert float(row["pyg"]) > 0.2, "15 classes"
        assert float(row["flexgnn"]) == pytest.approx(float(row["pyg"]), abs=0.1)
