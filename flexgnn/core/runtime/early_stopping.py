"""Stopping once a score no longer improves, and keeping the weights that reached the best."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from flexgnn.core.errors import ConfigError
from flexgnn.core.graph.layout import LINKS, REGRESSION
from flexgnn.core.runtime.callbacks import Callback
from flexgnn.core.runtime.events import BestWeightsRestored, EpochRecord

if TYPE_CHECKING:
    from flexgnn.core.runtime.trainer import Trainer

_SPLITS = {"train": "training", "val": "validation", "test": "test"}

Weights = dict[str, Any]
"""A ``state_dict``."""


class EarlyStopping(Callback):
    """Ends a fit once the monitored score did not improve for ``patience`` evaluations, and keeps the best weights.

    However the fit ends, early, after its last epoch, or by an error or Ctrl-C, the model is left with the parameters
    and buffers that reached the best score; if nothing was scored, as it is. They are the exact ones that the score is
    of: those after the epoch's update where an evaluation pass scored them (with dropout or batch norms), those before
    it where the training pass did, and for ``loss``. Every fit begins anew. Beside the budget this takes up to two
    copies of the weights. Name it before callbacks that change weights at the end of an epoch.
    """

    def __init__(self, *, patience: int, monitor: str | None = None) -> None:
        """Nothing is looked at before the fit starts, which refuses a score that it does not have.

        Args:
            patience: evaluations without a better score until the fit is stopped, at least 1. Where they are passes of
                their own, ``eval_every`` says how many epochs there are to one.
            monitor: a score of :class:`EpochRecord` by name: ``"loss"``, ``"val_accuracy"`` or, for regression,
                ``"val_mae"``; or of the splits ``train`` and ``test``. Accuracies are better when higher, others when
                lower. None: that of the validation nodes.

        Raises:
            ConfigError: if ``patience`` is less than 1.
        """
        if patience < 1:
            raise ConfigError(
                f"The patience {patience} is not accepted: give the number of evaluations to wait for a better score, "
                "at least 1."
            )
        self._patience, self._monitor = patience, monitor
        self.best: EpochRecord | None = None
        """The epoch whose score is the best of this fit; None where nothing was scored yet."""
        self._weights: Weights | None = None
        self._before_update: Weights | None = None
        self._waited, self._stopped = 0, False

    def on_fit_start(self, trainer: Trainer) -> None:
        """Forget earlier fits.

        Raises:
            ConfigError: if what is to be monitored is unknown, or there are no nodes that it could be of.
        """
        self._name = _checked_monitor(trainer, self._monitor)
        self.best = self._weights = self._before_update = None
        self._waited, self._stopped = 0, False

    def on_before_optimizer_step(self, trainer: Trainer) -> None:
        if self._scored_before_update(trainer):
            self._before_update = _weights_of(trainer)

    def on_epoch_end(self, trainer: Trainer, record: EpochRecord) -> None:
        before = self._scored_before_update(trainer)
        weights, self._before_update = self._before_update, None
        score = getattr(record, self._name)
        # Without a copy: the update was made by an earlier fit, which was ended before it was recorded.
        if score is None or (before and weights is None):
            return
        if self._is_better(score):
            self._weights = weights if before else _weights_of(trainer)
            self.best, self._waited = record, 0
        else:
            self._waited += 1
        if self._waited >= self._patience:
            self._stopped = True
            trainer.stop()

    def on_fit_end(self, trainer: Trainer) -> None:
        if self.best is None or self._weights is None:
            return
        trainer.modules.load_state_dict(self._weights)
        self._weights = self._before_update = None
        trainer.emit(
            BestWeightsRestored(
                epoch=self.best.epoch,
                monitor=self._name,
                score=getattr(self.best, self._name),
                stopped_after=len(trainer.history) if self._stopped else None,
            )
        )

    def _scored_before_update(self, trainer: Trainer) -> bool:
        return self._name == "loss" or not trainer.evaluates_apart

    def _is_better(self, score: float) -> bool:
        """Never of what is not a number."""
        if self.best is None:
            return not math.isnan(score)
        best: float = getattr(self.best, self._name)
        return score > best if self._name.endswith("accuracy") else score < best


def _weights_of(trainer: Trainer) -> Weights:
    """A copy that no later update changes."""
    return copy.deepcopy(trainer.modules.state_dict())


def _checked_monitor(trainer: Trainer, monitor: str | None) -> str:
    """The name of a score that epochs on the trainer's graph have."""
    kind = "mae" if trainer.store.info.task == REGRESSION else "accuracy"
    accepted = ["loss", *(f"{split}_{kind}" for split in _SPLITS)]
    name = f"val_{kind}" if monitor is None else monitor
    if name not in accepted:
        raise ConfigError(f"Epochs on this graph have no score {name!r} to monitor; there are: {', '.join(accepted)}.")
    if name != "loss":
        split, of_pairs = _SPLITS[name.split("_")[0]], trainer.store.info.task == LINKS
        if getattr(trainer.split_sizes, split) == 0:
            what, mended = ("pairs", "Give it these") if of_pairs else ("nodes", "Set their mask")
            raise ConfigError(
                f"Early stopping can't monitor {name!r}: the graph has no {split} {what}. {mended} and import it "
                "again, or monitor another score."
            )
    return name
