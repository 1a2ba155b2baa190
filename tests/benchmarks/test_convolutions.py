"""Convolutions without a rule beside PyG, on a small graph, and their losses agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.running import run, table_rows


@pytest.mark.slow
def test_systems_run_side_by_side(tmp_path: Path) -> None:
    output = tmp_path / "convolutions.md"
    sizes = ["--nodes", "2000", "--edges", "20000", "--epochs", "1"]
    run("convolutions.py", "--convolutions", "GraphConv", *sizes, "--output", str(output))
    rows = table_rows(output.read_text())
    ours, smaller, *pyg = rows
    assert ours["system"] == "flexgnn"
    assert smaller["system"].startswith("flexgnn in ")
    assert (ours["blocks"], ours["moved an epoch"]) == ("1", "0 B")
    assert smaller["moved an epoch"] != "0 B"
    assert [row["system"] for row in pyg] == ["pyg edge_index", "pyg csr", "pyg csr checkpointed"]
