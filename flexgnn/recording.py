"""Writes a run to a directory, as it happens: what ``flexgnn report`` and ``flexgnn predict`` read.

==================  =================================================
``config.json``     what was asked
``plan.json``       the frozen plan
``history.jsonl``   a line an epoch
``events.jsonl``    a line a step and a line a transfer
``model.pt``        the trained ``state_dict``; written at the end
==================  =================================================
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import IO

import torch

from flexgnn.core.errors import ConfigError
from flexgnn.core.plan.plan import Plan
from flexgnn.core.runtime.events import EpochRecord, Event
from flexgnn.launch import RunConfig

CONFIG, PLAN, HISTORY, EVENTS, MODEL = "config.json", "plan.json", "history.jsonl", "events.jsonl", "model.pt"


class RunDirectory:
    """A listener that records; a context manager that closes its files."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        """Make the directory.

        Raises:
            ConfigError: if it exists and has something in it, or can't be made.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise ConfigError(f"The output directory {path} is not empty; name a new one with --output.")
            (path / CONFIG).write_text(json.dumps(config.to_json(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise ConfigError(
                f"The output directory {path} can't be made ({why}); name another with --output."
            ) from error
        self._path = path
        self._lock = Lock()
        self._history: IO[str] = (path / HISTORY).open("w", encoding="utf-8")
        self._events: IO[str] = (path / EVENTS).open("w", encoding="utf-8")

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._history.close()
        self._events.close()

    def __call__(self, event: Event) -> None:
        """Record ``event``; transfers come from threads of their own."""
        line = json.dumps({"event": type(event).__name__, **asdict(event)})
        with self._lock:
            if isinstance(event, EpochRecord):
                self._history.write(line + "\n")
                self._history.flush()
            else:
                self._events.write(line + "\n")

    def save_plan(self, plan: Plan) -> None:
        """Record the plan."""
        plan.save(self._path / PLAN)

    def save_model(self, model: torch.nn.Module) -> None:
        """Record the parameters, as ``torch.load(..., weights_only=True)`` reads them."""
        torch.save(model.state_dict(), self._path / MODEL)
