"""Every error FlexGNN raises on purpose.

A message says what was given, what is accepted, and the flag or call that mends it. The command line
prints the message alone and exits with :attr:`FlexGNNError.exit_code`.
"""

from __future__ import annotations

from typing import ClassVar


class FlexGNNError(Exception):
    """Base of all deliberate errors."""

    exit_code: ClassVar[int] = 2


class ConfigError(FlexGNNError):
    """A setting has a value that is not accepted."""


class PluginError(FlexGNNError):
    """A backend, planner or data set is unknown, or its plug-in can't be used."""


class GraphError(FlexGNNError):
    """A graph handed to FlexGNN can't be trained on as it is."""


class StoreError(FlexGNNError):
    """A graph store is missing, damaged, or of another version."""


class LoweringError(FlexGNNError):
    """A model can't be run block by block without changing its result."""


class BudgetError(FlexGNNError):
    """A plan needs more memory than the budget of a tier."""

    def __init__(self, message: str, smallest_bytes: int = 0) -> None:
        """``smallest_bytes``: the smallest budget that works, where it is known."""
        super().__init__(message)
        self.smallest_bytes = smallest_bytes


class PlanError(FlexGNNError):
    """A plan is malformed, or was made for another model, graph or machine."""


class TierError(FlexGNNError):
    """A storage tier failed: read-only, missing, out of reach."""


class TierFullError(TierError):
    """A storage tier, or the disk below it, has no room for a tensor."""


class DamagedBlobError(TierError):
    """What a storage tier holds under a key is not what was put there."""


class DeviceError(FlexGNNError):
    """A device that computes failed, or has too little memory beside the budget."""


class TrainingError(FlexGNNError):
    """Training can't go on: the loss is no longer a finite number."""
