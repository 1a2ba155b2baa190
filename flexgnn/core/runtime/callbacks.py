"""What users have done in the course of training: callbacks of :meth:`Trainer.fit`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flexgnn.core.errors import ConfigError
from flexgnn.core.runtime.events import EpochRecord

if TYPE_CHECKING:
    from flexgnn.core.runtime.trainer import Trainer


class Callback:
    """Something to do in the course of ``Trainer.fit``: override the methods that you need; each does nothing.

    They are called on the thread of ``fit``, which waits for them. ``trainer.stop()`` ends the fit after the epoch in
    work. The fit's memory is in use between its start and its end: ``fit`` and ``predict`` are refused there.
    """

    def on_fit_start(self, trainer: Trainer) -> None:
        """Before the first epoch; an error that is raised here stops the fit before anything is computed."""

    def on_before_optimizer_step(self, trainer: Trainer) -> None:
        """Once an epoch: gradients are complete; parameters and buffers are still as the epoch began with them.

        Gradients are those of the whole graph, in ``grad`` of the parameters of ``trainer.modules``; what is done to
        them, as clipping does, is what ``trainer.optimizer`` sees.
        """

    def on_epoch_end(self, trainer: Trainer, record: EpochRecord) -> None:
        """After an epoch: its update is made, and ``record`` is the last of ``trainer.history``."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last epoch, or when an error or Ctrl-C ended the fit; the fit's memory is free again."""


CallbackLike = Callback | Callable[["Trainer", EpochRecord], object]
"""A callback, or a function to be called as ``on_epoch_end``; what it returns is ignored."""


class CallbackList:
    """All callbacks of a fit, called one after the other, in the order they were given in."""

    def __init__(self, trainer: Trainer, callbacks: Sequence[CallbackLike]) -> None:
        """Look at ``callbacks``; none is called yet.

        Raises:
            ConfigError: if one is neither a callback nor a function.
        """
        self._trainer = trainer
        self._callbacks = [_as_callback(given) for given in callbacks]

    @contextmanager
    def during_fit(self) -> Iterator[None]:
        """Start all; end those that were started, however what is done within ends, and whichever end fails."""
        started: list[Callback] = []
        try:
            for callback in self._callbacks:
                callback.on_fit_start(self._trainer)
                started.append(callback)
            yield
        finally:
            self._end(started)

    def _end(self, started: Sequence[Callback]) -> None:
        """End all of ``started``, in their order, whichever end fails."""
        if started:
            try:
                started[0].on_fit_end(self._trainer)
            finally:
                self._end(started[1:])

    def before_optimizer_step(self) -> None:
        """Gradients are complete."""
        for callback in self._callbacks:
            callback.on_before_optimizer_step(self._trainer)

    def epoch_ended(self, record: EpochRecord) -> None:
        """``record`` is in the history."""
        for callback in self._callbacks:
            callback.on_epoch_end(self._trainer, record)


class _Function(Callback):
    """A function in the form of a callback."""

    def __init__(self, function: Callable[[Trainer, EpochRecord], object]) -> None:
        self._function = function

    def on_epoch_end(self, trainer: Trainer, record: EpochRecord) -> None:
        self._function(trainer, record)


def _as_callback(given: CallbackLike) -> Callback:
    if isinstance(given, Callback):
        return given
    if callable(given) and not isinstance(given, type):
        return _Function(given)
    what = f"the class {given.__name__}" if isinstance(given, type) else f"an object of {type(given).__name__}"
    raise ConfigError(
        f"{what[0].upper()}{what[1:]} is no callback: give objects of subclasses of flexgnn.Callback, or functions "
        "that take the trainer and the record of an epoch."
    )
