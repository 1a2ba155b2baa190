"""What benchmarks say of the machine they ran on, and how they write what they found."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from flexgnn.core.sizes import format_size

_LIBRARIES = ("torch", "torch_geometric", "numba", "numpy")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Hardware and versions."""

    processor: str
    cores: int
    memory_bytes: int
    gpu: str | None
    """Of torch's current device; None where there is none."""
    python: str
    libraries: dict[str, str]
    commit: str
    """Of FlexGNN; with a plus where files were changed."""

    @property
    def sentence(self) -> str:
        libraries = ", ".join(f"{name} {number}" for name, number in self.libraries.items())
        return (
            f"{self.processor}, {self.cores} cores, {format_size(self.memory_bytes)}"
            f"{'' if self.gpu is None else f', {self.gpu}'}; Python {self.python}, "
            f"{libraries}; FlexGNN at {self.commit}."
        )


@cache
def machine(*libraries: str) -> Machine:
    """The one that this runs on, with the versions of ``libraries``, or of those that compute."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return Machine(
        processor=names[0] if names else platform.processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        python=platform.python_version(),
        libraries={name: version(name) for name in libraries or _LIBRARIES},
        commit=_commit(),
    )


def _commit() -> str:
    here = Path(__file__).parent
    found = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=here, capture_output=True, text=True)
    return found.stdout.strip() or "an unknown commit"


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Rows of cells under ``head``."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *lines])


def publish(text: str, output: Path | None) -> None:
    """Print ``text``, and write it to a file if there is to be one."""
    print(text, flush=True)
    if output is not None:
        output.write_text(text, encoding="utf-8")


def write_json(path: Path, found: Mapping[str, Any]) -> None:
    """Write what was found, with the machine."""
    path.write_text(json.dumps({"machine": asdict(machine()), **found}, indent=1) + "\n", encoding="utf-8")
