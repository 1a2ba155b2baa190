"""Seconds of a workload's parts, from counts alone.

The rates are assumptions about an ordinary machine, good enough to rank decisions. Measured ones take the same place.
"""

from __future__ import annotations

from dataclasses import dataclass

from flexgnn.core.plan.workload import Phase, Workload


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Speeds of a machine."""

    gather_bytes_per_second: float = 8e9
    """Aggregation: bytes of neighbour rows read."""
    flops_per_second: float = 60e9
    """Dense layers of segments."""
    step_seconds: float = 1e-3
    """Fixed cost of a step."""
    read_bytes_per_second: float = 1.5e9
    """From the storage tier, and from the graph store."""
    write_bytes_per_second: float = 0.7e9
    """To the storage tier."""
    handling_seconds_per_byte: float = 0.3e-9
    """Processor time that moving a byte takes from the computation."""
    tier_call_seconds: float = 3e-4
    """Fixed cost of a read or write of the storage tier."""
    store_call_seconds: float = 1.5e-3
    """Fixed cost of a read of the graph store."""


ASSUMED_RATES = Rates()


def read_seconds(rates: Rates, size_bytes: int, *, stored: bool, calls: int = 1) -> float:
    """To read ``size_bytes`` in ``calls`` reads, from the graph store if ``stored``, else from the storage tier."""
    call = rates.store_call_seconds if stored else rates.tier_call_seconds
    return calls * call + size_bytes / rates.read_bytes_per_second


def write_seconds(rates: Rates, size_bytes: int, calls: int = 1) -> float:
    """To write ``size_bytes`` to the storage tier as ``calls`` blobs."""
    return calls * rates.tier_call_seconds + size_bytes / rates.write_bytes_per_second


def compute_seconds(rates: Rates, workload: Workload, phase: Phase) -> float:
    """To compute ``phase`` at all blocks, with every tensor at hand."""
    blocks = workload.blocks
    gathered = sum(
        sum(workload.halos[pull.topology].edges) * workload.fields[pull.field].row_bytes for pull in phase.pulls
    )
    return (
        blocks.count * rates.step_seconds
        + gathered / rates.gather_bytes_per_second
        + blocks.num_nodes * phase.flops_per_row / rates.flops_per_second
    )


@dataclass(frozen=True, kw_only=True)
class PhaseSeconds:
    """How long each channel is busy in one phase."""

    compute: float
    handling: float
    """Processor time for moving bytes, in competition with ``compute``."""
    read: float
    write: float
    overlapped: bool
    """Whether the channels work side by side (with a lookahead) or one after the other."""

    @property
    def total(self) -> float:
        if not self.overlapped:
            return self.compute + self.handling + self.read + self.write
        return max(self.compute + self.handling, self.read, self.write)
