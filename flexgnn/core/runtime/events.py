"""What a run tells about itself, as it happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MeasurementStarted:
    """Something that plans need to know of this machine is not known: it is measured now, which takes a few seconds."""

    subject: str


@dataclass(frozen=True, kw_only=True)
class ProfileNotSaved:
    """What was measured can't be kept for later runs; this one uses it all the same."""

    message: str


@dataclass(frozen=True, kw_only=True)
class CompilationStarted:
    """Kernels were not found on disk: each is compiled when it is first needed, a few seconds in all."""

    location: str | None
    """The directory that they are kept in for later runs; None where no place can be written."""


@dataclass(frozen=True, kw_only=True)
class CompilationFinished:
    """What was to be done is done; this is what compiling took of it."""

    kernels: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RunPlanned:
    """A plan was made and the run is about to prepare."""

    num_blocks: int
    num_steps: int
    compute_tier: str
    budget_bytes: int
    projected_peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class ScratchRemoved:
    """The scratch directory of an earlier run, which had died, was found and removed."""

    path: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class FoldingStarted:
    """Aggregated features are being computed, to be read by this run and all later ones."""

    name: str
    size_bytes: int
    location: str
    """The directory that they are kept in."""


@dataclass(frozen=True, kw_only=True)
class FoldingSkipped:
    """Aggregated features can't be kept: they are computed again in every epoch."""

    reason: str
    """A sentence."""


@dataclass(frozen=True, kw_only=True)
class TierOpened:
    """A storage tier is ready."""

    name: str
    backend: str
    location: str
    notice: str | None
    """What the user should know of how it works there."""


@dataclass(frozen=True, kw_only=True)
class DamageFound:
    """What was read from a tier is not what was written: everything is prepared anew, and the epoch repeated."""

    epoch: int
    message: str


@dataclass(frozen=True, kw_only=True)
class SetupFinished:
    """Everything that steps read is in place."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class TransferFinished:
    """Bytes crossed between the compute tier and what lies below it, on a thread beside the computation."""

    channel: str
    """As in ``arrow write``: a tier, or the graph store, and a direction."""
    key: str
    size_bytes: int
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True, kw_only=True)
class StepFinished:
    """One phase at one block is done. Times count from the start of the run."""

    epoch: int
    step: int
    phase: str
    stage: int
    column_slice: int | None
    """Of a phase that pulls one slice of columns and does nothing else."""
    block: int
    wait_seconds: float
    """Until loads had arrived and earlier writes had ended."""
    start_seconds: float
    """Of the computation."""
    end_seconds: float
    live_bytes: int
    """In the compute tier during the step."""


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch. What is said of splits is of the parameters that it began with, unless an evaluation pass was run."""

    epoch: int
    """From 1."""
    loss: float
    """Of all training nodes, before the epoch's update; their mean, unless the loss is a sum."""
    train_accuracy: float | None = None
    """None for regression, where the epoch did not evaluate, or the graph has no such nodes."""
    val_accuracy: float | None = None
    test_accuracy: float | None = None
    train_mae: float | None = None
    """Mean absolute error: only for regression."""
    val_mae: float | None = None
    test_mae: float | None = None
    seconds: float
    """Of training, without evaluation."""
    peak_bytes: dict[str, int]
    """By tier."""
    moved_bytes: dict[str, int]
    """By channel, evaluation included."""


@dataclass(frozen=True, kw_only=True)
class BestWeightsRestored:
    """The model is again as the monitored score found it when it was best."""

    epoch: int
    """The epoch with that score."""
    monitor: str
    """Name of the score, as in :class:`EpochRecord`."""
    score: float
    stopped_after: int | None
    """The last epoch, if the fit was stopped since the score no longer improved."""


@dataclass(frozen=True, kw_only=True)
class PredictionsConverted:
    """So many rows of predictions, which are all computed, are in the format that was asked for."""

    rows: int
    num_rows: int


@dataclass(frozen=True, kw_only=True)
class PredictionsSaved:
    """Predictions are complete, in their place."""

    path: str
    num_rows: int
    width: int
    size_bytes: int
    """Of the values, four a number."""


Event = (
    MeasurementStarted
    | ProfileNotSaved
    | CompilationStarted
    | CompilationFinished
    | RunPlanned
    | FoldingStarted
    | FoldingSkipped
    | ScratchRemoved
    | TierOpened
    | SetupFinished
    | TransferFinished
    | StepFinished
    | DamageFound
    | EpochRecord
    | BestWeightsRestored
    | PredictionsConverted
    | PredictionsSaved
)
Listener = Callable[[Event], None]
"""Called on the main thread and on transfer threads; must be quick and must not raise."""
