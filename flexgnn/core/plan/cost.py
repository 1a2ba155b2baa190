"""Seconds of a workload's parts, from counts and rates alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from flexgnn.core.compiling import compiled
from flexgnn.core.plan.rates import ComputeRates
from flexgnn.core.plan.workload import Phase, Pull, Workload
from flexgnn.core.tier import Array


@dataclass(frozen=True, kw_only=True)
class TierRates:
    """Speeds of one storage tier; unless measured, those of an ordinary SSD."""

    read_bytes_per_second: float = 1.5e9
    write_bytes_per_second: float = 0.7e9
    call_seconds: float = 3e-4
    """Fixed cost of a read or write."""
    read_cpu_seconds_per_byte: float = 0.2e-9
    """Processor time that it takes from the computation, as the next."""
    write_cpu_seconds_per_byte: float = 0.4e-9


@dataclass(frozen=True, kw_only=True)
class CopySpeeds:
    """Of copies between the memory of the host and a compute tier that is apart from it."""

    in_bytes_per_second: float
    out_bytes_per_second: float
    call_seconds: float
    """Of a copy, whatever its size."""

    def of_host_memory(self) -> TierRates:
        """Of a tier that is copied from and to where it is."""
        return TierRates(
            read_bytes_per_second=self.in_bytes_per_second,
            write_bytes_per_second=self.out_bytes_per_second,
            call_seconds=self.call_seconds,
            read_cpu_seconds_per_byte=0.0,
            write_cpu_seconds_per_byte=0.0,
        )

    def through_host_memory(self, tier: TierRates) -> TierRates:
        """Of a tier behind host memory: reads go on while pieces are copied, writes begin when all was copied.

        What the host's processor does of it, it does beside the computation.
        """
        write_seconds = 1 / tier.write_bytes_per_second + 1 / self.out_bytes_per_second
        return TierRates(
            read_bytes_per_second=min(tier.read_bytes_per_second, self.in_bytes_per_second),
            write_bytes_per_second=1 / write_seconds,
            call_seconds=tier.call_seconds + self.call_seconds,
            read_cpu_seconds_per_byte=0.0,
            write_cpu_seconds_per_byte=0.0,
        )


Number = TypeVar("Number", float, Array)

ATTENTION_SECONDS = 1e-8
"""Of one thread, for an edge and head of attention, beside the sum: a stated figure, not a measured one."""
TRANSFER_SECONDS = 6e-5
"""Of the processor for each read and write, whatever its size: handing it to a thread, and Python's part of it."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Speeds of a machine, its storage tiers excepted."""

    compute: ComputeRates
    store: TierRates = TierRates(call_seconds=1.5e-3)  # frozen
    """Of the graph store."""


ASSUMED_TIER_RATES = TierRates()


def read_seconds(rates: TierRates, size_bytes: Number, calls: Number | int = 1) -> Number:
    """To read ``size_bytes`` in ``calls`` reads, or several pairs of these."""
    return calls * rates.call_seconds + size_bytes / rates.read_bytes_per_second


def write_seconds(rates: TierRates, size_bytes: Number, calls: Number | int = 1) -> Number:
    """To write ``size_bytes`` as ``calls`` blobs, or several pairs of these."""
    return calls * rates.call_seconds + size_bytes / rates.write_bytes_per_second


_known: WeakKeyDictionary[Workload, tuple[ComputeRates, list[Array]]] = WeakKeyDictionary()
"""Planners ask for the same again and again."""


def compute_seconds(rates: ComputeRates, workload: Workload, phase: Phase) -> float:
    """To compute ``phase`` at all blocks, with every tensor at hand."""
    return float(step_seconds(rates, workload, phase).sum())


def step_seconds(rates: ComputeRates, workload: Workload, phase: Phase) -> Array:
    """To compute ``phase`` at each block (float64), with every tensor at hand."""
    known = _known.get(workload)
    if known is None or known[0] is not rates:
        known = rates, [_step_seconds(rates, workload, phase) for phase in workload.phases]
        _known[workload] = known
    return known[1][phase.index]


def _step_seconds(rates: ComputeRates, workload: Workload, phase: Phase) -> Array:
    """To compute ``phase`` at each block (float64), with every tensor at hand.

    Tiles go in order to the threads as these become free; Python's part of them is done by one thread at a time.
    """
    blocks, calls = workload.blocks, phase.work.calls
    rows = np.minimum(blocks.tile_rows, blocks.num_nodes - np.arange(0, blocks.num_nodes, blocks.tile_rows))
    tiles = rows * _row_seconds(rates, workload, phase) + calls * rates.single("call")
    tiles += max(1, len(phase.pulls)) * rates.single("tile")
    for pull in phase.pulls:
        tiles += workload.localities[pull.topology].tile_edges * _edge_seconds(rates, workload, pull)
    seconds = np.zeros(blocks.count)
    schedule(tiles, blocks.tiles_per_block, rates.threads, seconds)
    tiles_of_block = np.diff(np.append(np.arange(0, len(tiles), blocks.tiles_per_block), len(tiles)))
    return rates.single("step") + np.maximum(seconds, tiles_of_block * calls * rates.single("serial"))


def pass_seconds(rates: ComputeRates, workload: Workload, pull: Pull) -> Array:
    """To go over each block (float64) once more, because its halo comes in one more part.

    The sums so far are read and written, and the position in each row's edges.
    """
    blocks, width = workload.blocks, workload.fields[pull.field].width or 1
    rows = np.minimum(blocks.rows_per_block, blocks.num_nodes - np.arange(blocks.count) * blocks.rows_per_block)
    per_row = rates.row_seconds(width) + 2 * 4 * (width + 1) * rates.single("stream")
    seconds: Array = rows * per_row + blocks.tiles_per_block * rates.single("tile")
    return rates.single("step") + seconds / rates.threads


def gather_seconds(rates: ComputeRates, size_bytes: Array) -> Array:
    """To copy rows of ``size_bytes`` each in all from where they lie to where they go together, on all threads."""
    seconds: Array = size_bytes * rates.single("gather") / rates.threads
    return seconds


def disturbance(rates: ComputeRates) -> float:
    """Seconds of one thread that each byte costs which moves meanwhile: it is read from memory, and written to it."""
    return 2 * rates.single("stream")


def _row_seconds(rates: ComputeRates, workload: Workload, phase: Phase) -> float:
    """Of one thread, for a row of a tile, its edges and the calls of operators excepted."""
    blocks, work = workload.blocks, phase.work
    seconds = rates.work_seconds(work) / min(blocks.tile_rows, blocks.num_nodes)
    if work.loss is not None:
        seconds += rates.loss_seconds(work.loss.columns, multi_label=work.loss.multi_label)
    # What is read goes into products, which are measured on rows from memory.
    seconds += sum(workload.fields[name].row_bytes for name in phase.writes) * rates.single("stream")
    return seconds + sum(rates.row_seconds(pull.width) for pull in phase.pulls)


def _edge_seconds(rates: ComputeRates, workload: Workload, pull: Pull) -> Array:
    """Of one thread, for an edge of ``pull`` in each tile."""
    field, reach = workload.fields[pull.field], workload.localities[pull.topology].reach
    width, as_wide = field.width or 1, -(-field.row_bytes // 4)
    seconds = rates.edge_seconds(width, reach)
    if as_wide < width:
        # Rows of bfloat16 come from memory like rows of half the columns, and are added up like rows of all.
        seconds = (seconds + rates.edge_seconds(as_wide, reach)) / 2
    if pull.attention is not None:
        return seconds + pull.attention.heads * ATTENTION_SECONDS
    return seconds * rates.single("maximum") if pull.reduce == "max" else seconds


@compiled()
def schedule(tiles: Array, tiles_per_block: int, threads: int, seconds: Array) -> None:
    """Fill ``seconds``, one a block, with the time from the start of its first tile to the end of its last.

    Each tile of a block, in order, goes to the thread that is free first.
    """
    free = np.empty(threads)
    for block in range(seconds.shape[0]):
        free[:] = 0.0
        end = 0.0
        for tile in range(block * tiles_per_block, min((block + 1) * tiles_per_block, tiles.shape[0])):
            # Written out: compiling NumPy's functions takes longer than all of this.
            earliest = 0
            for thread in range(1, threads):
                if free[thread] < free[earliest]:
                    earliest = thread
            free[earliest] += tiles[tile]
            end = max(end, free[earliest])
        seconds[block] = end


@dataclass(frozen=True, kw_only=True)
class PhaseSeconds:
    """How long each channel is busy in one phase."""

    compute: float
    handling: float
    """What moving bytes takes from the computation: its processor time, shared by the threads, and packing."""
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
