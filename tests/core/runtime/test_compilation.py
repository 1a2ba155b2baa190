"""First runs: kernels are compiled once, kept, and told of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import flexgnn
from flexgnn import GraphStore
from tests.graphs import small_graph, store_of

COMPILING, COMPILED, NOT_KEPT = "compiling kernels for this processor, once", "compiled ", "they can't be kept"

ON_PAPER = ("--machine", "laptop-nvme", "--graph-size", "nodes=1000,edges=9000,features=8,classes=3")
"""What to plan for, so that nothing is read or measured."""

TRAINING = """
import sys, torch, flexgnn
from flexgnn.models import build_model

store, heard = flexgnn.GraphStore.open(sys.argv[1]), []
model = build_model("gcn", store.info, layers=2, hidden=8, dropout=0.3)
optimizer = torch.optim.Adam(model.parameters())
flexgnn.Trainer(model, store, optimizer, listeners=[heard.append] if sys.argv[2] == "listening" else []).fit(1)
print(*[event for event in heard if "Compilation" in str(event)], sep="\\n")
"""


@pytest.fixture
def store(tmp_path: Path) -> GraphStore:
    return store_of(small_graph(), tmp_path / "graph")


def python(code: str, *arguments: object, path: Path = Path(flexgnn.__file__).parents[1], **environment: object) -> str:
    """What ``code`` prints in a process of its own, in which FlexGNN is imported from ``path``."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), *filter(None, sys.path)])}
    variables.update({name: str(value) for name, value in environment.items()})
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def command(*arguments: object, path: Path = Path(flexgnn.__file__).parents[1], **environment: object) -> str:
    """What a FlexGNN command prints."""
    return python("from flexgnn.cli import main; main()", *arguments, path=path, **environment)


@pytest.mark.slow
def test_a_first_run_says_that_it_compiles_and_the_second_finds_the_kernels(store: GraphStore, tmp_path: Path) -> None:
    arguments = ("run", "--dataset", store.path, "--epochs", 1, "--hidden", 8)
    first, second = (command(*arguments, NUMBA_CACHE_DIR=tmp_path / "kernels") for _ in range(2))
    assert first.count(COMPILING) == 1
    assert first.count(COMPILED) == 1
    assert COMPILING not in second
    assert COMPILED not in second


def test_listeners_hear_of_compilation(store: GraphStore, tmp_path: Path) -> None:
    shown = python(TRAINING, store.path, "listening", NUMBA_CACHE_DIR=tmp_path).splitlines()
    assert [line.partition("(")[0] for line in shown] == ["CompilationStarted", "CompilationFinished"]
    assert f"location='{tmp_path}" in shown[0]


@pytest.mark.slow
def test_without_listeners_nothing_is_printed(store: GraphStore, tmp_path: Path) -> None:
    assert not python(TRAINING, store.path, "deaf", NUMBA_CACHE_DIR=tmp_path).strip()


@contextmanager
def read_only_package(path: Path) -> Iterator[Path]:
    """A directory, made at ``path``, with FlexGNN in it, of which nothing can be written; skips where none can be."""
    package = path / "flexgnn"
    package.mkdir(parents=True)
    mounts = (["--bind", str(Path(flexgnn.__file__).parent)], ["-o", "remount,bind,ro"])
    try:
        for options in mounts:
            mount = subprocess.run(["mount", *options, str(package)], capture_output=True, text=True)
            if mount.returncode != 0:
                pytest.skip(f"a directory can't be mounted here: {mount.stderr.strip()}")
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(package)], capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
def test_kernels_of_a_read_only_package_go_to_the_cache_directory_if_there_is_one(kept: bool, tmp_path: Path) -> None:
    cache = tmp_path / "cache" if kept else Path("/proc/nowhere")
    places = {"FLEXGNN_CACHE": cache, "HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere", "NUMBA_CACHE_DIR": ""}
    with read_only_package(tmp_path / "installed") as path:
        shown = command("plan", *ON_PAPER, "-o", tmp_path / "plan.json", path=path, **places)
    assert (COMPILING in shown) == kept
    assert (NOT_KEPT in shown) != kept
    assert bool(list(cache.glob("kernels/*/*.nbc"))) == kept
