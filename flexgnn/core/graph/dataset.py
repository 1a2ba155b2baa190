"""What a data set is to FlexGNN: the contract that plug-ins fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flexgnn.core.graph.store import GraphStore


@dataclass(frozen=True)
class Dataset:
    """A graph that users select by name."""

    name: str
    """The name: lower-case letters, digits and hyphens."""
    summary: str
    """What it is, in half a line."""
    load: Callable[[Path], GraphStore]
    """Builds the graph's store at a path where nothing or an empty directory is. Every call builds the same graph."""
    version: int = 1
    """To be raised when ``load`` builds another graph than before, so that cached stores are not used any more."""
