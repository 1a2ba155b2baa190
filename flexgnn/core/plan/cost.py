"""Seconds of a workload's parts, from counts alone.

Where nothing was measured, the rates are assumptions about an ordinary machine, good enough to rank decisions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flexgnn.core.plan.workload import Phase, Workload
from flexgnn.core.tier import Array


@dataclass(frozen=True, kw_only=True)
class TierRates:
    """Speeds of one storage tier."""

    read_bytes_per_second: float = 1.5e9
    write_bytes_per_second: float = 0.7e9
    call_seconds: float = 3e-4
    """Fixed cost of a read or write."""
    cpu_seconds_per_byte: float = 0.3e-9
    """Processor time that moving a byte takes from the computation."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Speeds of a machine, storage tiers excepted."""

    gather_bytes_per_second: float = 8e9
    """Aggregation: bytes of neighbour rows read."""
    flops_per_second: float = 60e9
    """Dense layers of segments."""
    step_seconds: float = 1e-3
    """Fixed cost of a step."""
    store: TierRates = TierRates(call_seconds=1.5e-3)  # frozen
    """Of the graph store."""


ASSUMED_RATES = Rates()
ASSUMED_TIER_RATES = TierRates()


def read_seconds(rates: TierRates, size_bytes: int, calls: int = 1) -> float:
    """To read ``size_bytes`` in ``calls`` reads."""
    return calls * rates.call_seconds + size_bytes / rates.read_bytes_per_second


def write_seconds(rates: TierRates, size_bytes: int, calls: int = 1) -> float:
    """To write ``size_bytes`` as ``calls`` blobs."""
    return calls * rates.call_seconds + size_bytes / rates.write_bytes_per_second


def compute_seconds(rates: Rates, workload: Workload, phase: Phase) -> float:
    """To compute ``phase`` at all blocks, with every tensor at hand."""
    return float(step_seconds(rates, workload, phase).sum())


def step_seconds(rates: Rates, workload: Workload, phase: Phase) -> Array:
    """float64, one a block: to compute ``phase`` at it, with every tensor at hand."""
    blocks = workload.blocks
    rows = np.array([blocks.rows(block) for block in range(blocks.count)])
    seconds: Array = rates.step_seconds + rows * phase.flops_per_row / rates.flops_per_second
    for pull in phase.pulls:
        row_bytes = workload.fields[pull.field].row_bytes
        seconds += np.array(workload.halos[pull.topology].edges) * row_bytes / rates.gather_bytes_per_second
    return seconds


@dataclass(frozen=True, kw_only=True)
class PhaseSeconds:
    """How long each channel is busy in one phase."""

    compute: float
    handling: float
    """Processor time for moving bytes, in competition with ``compute``."""
    channels: dict[str, float]
    """Seconds of each direction of each tier that is in use, as in ``arrow read``."""
    overlapped: bool
    """Whether the channels work side by side (with a lookahead) or one after the other."""

    @property
    def total(self) -> float:
        if not self.overlapped:
            return self.compute + self.handling + sum(self.channels.values())
        return max(self.compute + self.handling, *self.channels.values(), 0.0)

    def slowest(self, direction: str) -> float:
        """Seconds of the busiest channel that reads, or that writes."""
        return max((s for channel, s in self.channels.items() if channel.endswith(f" {direction}")), default=0.0)
