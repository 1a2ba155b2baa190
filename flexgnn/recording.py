"""Writes a run to a directory, as it happens: what ``flexgnn report`` and ``flexgnn predict`` read.

=====================  ==================================================================
``config.json``        what was asked
``plan.json``          the frozen plan
``history.jsonl``      a line an epoch
``events.jsonl``       a line a step and a line a transfer
``model.safetensors``  the trained ``state_dict``; written at the end, however that comes
=====================  ==================================================================
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
from safetensors.torch import save_model

from flexgnn.core.errors import ConfigError
from flexgnn.core.plan.plan import Plan
from flexgnn.core.runtime.events import BestWeightsRestored, EpochRecord, Event
from flexgnn.launch import RunConfig

CONFIG, PLAN, HISTORY, EVENTS = "config.json", "plan.json", "history.jsonl", "events.jsonl"
MODEL = "model.safetensors"


class RunDirectory:
    """A listener that records; a context manager that saves the model and closes its files.

    A run that is stopped, by an error or by the user, leaves the model as its last update left it, or as it was at its
    best where that was asked for.
    """

    def __init__(self, path: Path, config: RunConfig, model: torch.nn.Module) -> None:
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
        self._path, self._model = path, model
        self._finished_epochs = 0
        self._kept = "as the last update left it"
        self._lock = Lock()
        self._history: IO[str] = (path / HISTORY).open("w", encoding="utf-8")
        self._events: IO[str] = (path / EVENTS).open("w", encoding="utf-8")

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._finished_epochs:
                self._save_model()
                if error is not None:
                    error.add_note(f"The model {self._kept} is in {self._path / MODEL}.")
        except OSError as failure:
            if error is None:
                why = os.strerror(failure.errno or 0)
                raise ConfigError(
                    f"The model can't be saved to {self._path / MODEL} ({why}): free some space."
                ) from failure
            error.add_note(f"The model could not be saved to {self._path / MODEL}.")
        finally:
            self._close()

    def __call__(self, event: Event) -> None:
        """Record ``event``; transfers come from threads of their own."""
        line = json.dumps({"event": type(event).__name__, **asdict(event)})
        with self._lock:
            if isinstance(event, EpochRecord):
                self._history.write(line + "\n")
                self._history.flush()
                self._finished_epochs += 1
            else:
                if isinstance(event, BestWeightsRestored):
                    self._kept = f"of epoch {event.epoch}, the best so far,"
                self._events.write(line + "\n")

    def save_plan(self, plan: Plan) -> None:
        """Record the plan."""
        plan.save(self._path / PLAN)

    def _save_model(self) -> None:
        """Record the parameters, whole or not at all."""
        unfinished = self._path / f".{MODEL}"
        save_model(self._model, os.fspath(unfinished))
        os.replace(unfinished, self._path / MODEL)

    def _close(self) -> None:
        self._history.close()
        self._events.close()
