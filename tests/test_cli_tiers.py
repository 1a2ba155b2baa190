"""Storage tiers on the command line, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flexgnn.core.plan.profile import as_json, load_profile, read_profile
from tests.graphs import small_graph, store_of
from tests.processes import running, wait_until

FLEXGNN = [sys.executable, "-c", "from flexgnn.cli import main; main()"]
SPILLING = ["--hidden", "8", "--device-memory", "16KB"]
"""Too little for the small graph and 8 hidden channels to stay in memory."""

BROKEN_PLUGINS = {
    "absent": "import a_module_that_is_not_there",
    "taken": """
from flexgnn.backends.arrow import ArrowBackend
from flexgnn.core.hookspecs import hookimpl

class Impostor(ArrowBackend):
    "Another arrow."
    contract_version = 1

@hookimpl
def flexgnn_list_tier_backends():
    return [Impostor]
""",
}


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return store_of(small_graph(), tmp_path / "graph").path


def flexgnn(*arguments: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*FLEXGNN, *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "160", **environment}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert finished.returncode == code, finished
    return finished


def keep_compute_rates(cache: Path) -> None:
    """Have ``cache`` know how fast this machine computes, but no storage tier."""
    cache.mkdir()
    known = replace(load_profile(), tiers=())
    (cache / "machine.json").write_text(as_json(known))


def losses(output: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (output / "history.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_tiers_of_several_backends_side_by_side(graph: Path, tmp_path: Path) -> None:
    for name in ("nvme", "hdd"):
        (tmp_path / name).mkdir()
    common = ["run", "--dataset", graph, "--epochs", 3, "--output"]
    flexgnn(*common, tmp_path / "in-memory", "--hidden", 8)
    tiers = [
        *("--tier", f"fast=arrow:{tmp_path / 'nvme'},capacity=6KiB"),
        *("--tier", f"bulk=zarr:{tmp_path / 'hdd'},compression=zstd", "--tier", "db=lmdb"),
        *("--place", "topology=db", "--place", "halos=bulk", "--verify"),
    ]
    shown = flexgnn(*common, tmp_path / "mixed", *SPILLING, *tiers).stdout
    assert losses(tmp_path / "mixed") == losses(tmp_path / "in-memory")
    for part in ("fast write", "bulk read", "db read", "6.0 KiB"):
        assert part in shown
    assert "fast" in flexgnn("report", tmp_path / "mixed").stdout
    flexgnn("predict", tmp_path / "mixed", "-o", tmp_path / "logits.npy")
    assert not list((tmp_path / "nvme").iterdir()) + list((tmp_path / "hdd").iterdir())


@pytest.mark.slow
def test_what_a_killed_run_left_is_removed_by_the_next_one(graph: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    arguments = ["run", "--dataset", str(graph), *SPILLING, "--ssd-path", str(scratch), "--epochs"]
    with running([*FLEXGNN, *arguments, 100_000]) as process:
        wait_until(lambda: list(scratch.glob("flexgnn-*/tier/*")), process)
        process.send_signal(signal.SIGKILL)
    (left,) = scratch.iterdir()
    shown = flexgnn(*arguments, 1).stdout
    assert f"removed {left}" in shown
    assert "had died" in shown
    assert not list(scratch.iterdir())


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, str]:
    """An environment with distributions whose plug-ins can't be used."""
    for name, source in BROKEN_PLUGINS.items():
        info = tmp_path / "site" / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[flexgnn]\n{name} = {name}_plugin\n")
        (tmp_path / "site" / f"{name}_plugin.py").write_text(source)
    return {"PYTHONPATH": str(tmp_path / "site")}


def test_broken_plug_ins_are_told_of_and_stop_no_other(graph: Path, broken: dict[str, str]) -> None:
    run = flexgnn("run", "--dataset", graph, "--epochs", 1, *SPILLING, **broken)
    assert "test accuracy" in run.stdout
    warnings = [line for line in run.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2, run.stderr
    assert "'absent' of absent 1.2 can't be used: it needs the module 'a_module_that_is_not_there'" in run.stderr
    assert "'arrow' of taken 1.2 can't be used: flexgnn brings one of that name already" in run.stderr
    chosen = flexgnn("run", "--dataset", graph, "--ssd-backend", "absent", code=2, **broken)
    assert "error: The plug-in 'absent' of absent can't be used: it needs the module" in chosen.stderr


@pytest.mark.slow
def test_calibration_is_kept_for_planning(graph: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shown = flexgnn("calibrate", "--tier", f"t=arrow:{tmp_path}", FLEXGNN_CACHE=str(cache)).stdout
    for part in ("64.0 MiB", "third quartile", f"saved to {cache / 'machine.json'}"):
        assert part in shown
    profile = read_profile(cache / "machine.json")
    (tier,) = profile.tiers
    assert tier.backend == "arrow"
    assert {m.block_bytes for m in tier.measurements} == {2**20, 2**24, 2**26}
    assert profile.compute is not None
    assert all(0 < f.low <= f.value <= f.high for f in profile.compute.rates.figures)
    run = ["run", "--dataset", graph, "--epochs", 1]
    assert "measuring" not in flexgnn(*run, *SPILLING, "--ssd-path", tmp_path, FLEXGNN_CACHE=str(cache)).stdout


@pytest.mark.slow
def test_what_is_not_known_is_measured_once_and_said_to_be(graph: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    keep_compute_rates(cache)
    run = ["run", "--dataset", graph, "--epochs", 1]
    assert "measuring" not in flexgnn(*run, "--hidden", 8, FLEXGNN_CACHE=str(cache)).stdout
    assert "measuring the storage tier arrow, once" in flexgnn(*run, *SPILLING, FLEXGNN_CACHE=str(cache)).stdout
    assert "measuring" not in flexgnn(*run, *SPILLING, FLEXGNN_CACHE=str(cache)).stdout


@pytest.mark.slow
def test_a_cache_that_can_not_be_written_stops_no_run(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = flexgnn("run", "--dataset", graph, "--epochs", 1, FLEXGNN_CACHE=str(tmp_path / "file"))
    assert "measuring this machine's computation, once" in run.stdout
    assert "set the environment variable FLEXGNN_CACHE" in run.stdout
    assert "test accuracy" in run.stdout


def test_a_disk_that_fills_up_ends_with_one_sentence_and_the_model(
    graph: Path, tmp_path: Path, small_disk: Path
) -> None:
    output = tmp_path / "out"
    # Arrow writes over its own files, for which a full disk still has the room.
    tier = ["--ssd-backend", "zarr", "--ssd-path", small_disk]
    arguments = ["run", "--dataset", graph, *SPILLING, *tier, "--epochs", 100_000]
    with running([*FLEXGNN, *arguments, "--output", output]) as process:
        wait_until(lambda: (output / "history.jsonl").exists() and len(losses(output)) >= 2, process)
        with pytest.raises(OSError, match="No space"):
            (small_disk / "other").write_bytes(bytes(2**20))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    first, note = errors.strip().splitlines()
    assert "No space left on device" in first
    assert "free some space, or choose a larger disk with --ssd-path" in first
    assert note == f"The model as the last update left it is in {output / 'model.safetensors'}."
    flexgnn("predict", output, "-o", tmp_path / "logits.npy")
