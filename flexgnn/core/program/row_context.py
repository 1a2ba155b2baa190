"""Which rows a function of rows is run on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RowContext:
    """Which rows a segment is run on, and what its random operators need to know."""

    start: int
    """Position in the node order of the first row."""
    seed: int
    epoch: int
    training: bool
    """False turns dropout off."""
