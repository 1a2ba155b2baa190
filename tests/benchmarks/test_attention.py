"""The table of attention's memory, on a small graph."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.running import run, table_rows


@pytest.mark.slow
def test_adjacency_does_not_depend_on_heads(tmp_path: Path) -> None:
    output = tmp_path / "attention.md"
    run("attention.py", "--nodes", "1000", "--degrees", "8", "--epochs", "1", "--output", str(output))
    four, eight = table_rows(output.read_text())
    assert (four["heads"], eight["heads"]) == ("4 x 16", "8 x 8")
    edges = int(four["edges"].replace(",", ""))
    assert float(four["of it adjacency"].removesuffix(" KiB")) == pytest.approx((4 * edges + 8 * 1001) / 1024, rel=0.1)
    assert four["of it adjacency"] == eight["of it adjacency"]
    assert all(row["PyG's epoch"].endswith(" x)") for row in (four, eight))
