"""The comparison with PyG runs, on a small graph, and its losses agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks.running import run


@pytest.mark.slow
def test_systems_run_side_by_side(tmp_path: Path) -> None:
    sizes = ["--nodes", "3000", "--edges", "30000", "--hidden", "16", "--shares", "2", "--epochs", "1"]
    printed = run("compare.py", "--model", "sage", *sizes, "--output", str(tmp_path))
    found = json.loads((tmp_path / "compare-sage.json").read_text())
    rows = {row["system"]: row for row in found["rows"]}
    assert list(rows) == ["flexgnn", "flexgnn in 1/2", "pyg edge_index", "pyg csr", "pyg csr checkpointed"]
    assert found["ended"] == []
    assert rows["flexgnn"]["moved_bytes"] == 0
    assert rows["flexgnn in 1/2"]["moved_bytes"] > 0
    assert rows["flexgnn in 1/2"]["peak_bytes"] <= rows["flexgnn"]["projected_bytes"] / 2
    for row in rows.values():
        assert row["process_bytes"] > 2**26, "libraries alone take more"
        assert f"| {row['system']} |" in printed
