"""A recorded run as tables. Reads the run directory's files only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from flexgnn.console import kept_line, peak_table, phase_times_table, score_line, traffic_table
from flexgnn.core.errors import ConfigError
from flexgnn.core.runtime.events import BestWeightsRestored
from flexgnn.core.runtime.phase_times import PhaseTimes


def read_run(path: Path, name: str) -> Any:
    """A JSON file of a run directory.

    Raises:
        ConfigError: if it is not there or damaged.
    """
    try:
        return json.loads((path / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not the output of a finished run: {name} can't be read ({error}).") from error


def read_lines(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """The lines of a JSON-lines file of a run directory; a last line that was cut off is left out."""
    try:
        with (path / name).open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not the output of a run: {name} can't be read ({error}).") from error


def report(path: Path) -> RenderableType:
    """Settings, epochs, memory, traffic and time by phase of the run recorded in ``path``."""
    config, plan = read_run(path, "config.json"), read_run(path, "plan.json")
    history = list(read_lines(path, "history.jsonl"))
    if not history:
        raise ConfigError(f"The run in {path} did not finish an epoch.")
    settings = ", ".join(f"{key} {value}" for key, value in config.items() if value is not None)
    last = history[-1]
    projected = plan["projected"]["peak_bytes"]
    times, kept = _events(path)
    return Group(
        settings,
        f"{len(history)} epochs; loss {history[0]['loss']:.4f} to {last['loss']:.4f}",
        score_line(history),
        *kept,
        peak_table(last["peak_bytes"], plan["capacity_bytes"], projected),
        traffic_table([record["moved_bytes"] for record in history]),
        _phase_table(times, plan),
    )


def _events(path: Path) -> tuple[PhaseTimes, list[str]]:
    """How long phases took; and a line on the weights that were kept, where they are not the last."""
    times, kept = PhaseTimes(), list[str]()
    for event in read_lines(path, "events.jsonl"):
        kind = event.pop("event")
        if kind == "StepFinished":
            seconds = (event[name] for name in ("start_seconds", "end_seconds", "wait_seconds"))
            phase = event["phase"], event["stage"], event["column_slice"]
            times.step(phase, event["epoch"], *seconds)
        elif kind == BestWeightsRestored.__name__:
            kept.append(kept_line(BestWeightsRestored(**event)))
    return times, kept


def _phase_table(times: PhaseTimes, plan: dict[str, Any]) -> Table:
    """Seconds an epoch of each phase: projected, and measured."""
    projected = [
        ((phase["kind"], phase["stage"], phase["column_slice"]), phase["seconds"])
        for phase in plan["projected"]["phases"]
    ]
    return phase_times_table(projected, times.medians())
