"""What a set of slots moves between tiers, and how long that keeps each channel busy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from flexgnn.core.plan.cost import PhaseSeconds, Rates, TierRates, compute_seconds, read_seconds, write_seconds
from flexgnn.core.plan.decisions import Decisions
from flexgnn.core.plan.placement import StorageTier, pack_part
from flexgnn.core.plan.slots import SETUP_STEP, Slot
from flexgnn.core.plan.workload import Source, Workload
from flexgnn.core.tier import Array

Direction = Literal["read", "write"]
STORE = "store"
"""The graph store, among the names of storage tiers."""


def channel(tier: str, direction: str) -> str:
    """What one direction of a tier is called: ``store read``, ``arrow write``."""
    return f"{tier} {direction}"


PROCESSOR = 0
"""The first of :attr:`Traffic.channels`: computation, and the handling of transfers."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Bytes that cross between the compute tier and a storage tier, on behalf of one step."""

    tier: str
    direction: Direction
    step: int
    """The step that needs what is read, or made what is written."""
    begin: int
    """The step at whose start it is asked for."""
    end: int
    """The step by whose end it has to have happened."""
    part: str
    """What it is of, as in ``placement.py``."""
    size_bytes: int
    calls: int
    parts: int = 1
    """Passes of a halo or groups of a pack: of more than two, two at a time have room in the compute tier."""


@dataclass(frozen=True, kw_only=True)
class TransferCost:
    """What a transfer keeps busy."""

    phase: int
    channel: int
    """Index into :attr:`Traffic.channels`."""
    seconds: float
    handling_seconds: float
    """Of the processor."""


class Traffic:
    """The transfers of an epoch. What the setup loads and writes is not among them."""

    def __init__(
        self, workload: Workload, slots: Sequence[Slot], tiers: Sequence[StorageTier], decisions: Decisions
    ) -> None:
        self._workload, self._tiers = workload, tiers
        self._placed, self._lookahead = decisions.placed, decisions.lookahead
        self._producers = workload.producers()
        moving = [channel(tier.name, direction) for tier in tiers for direction in ("read", "write")]
        self.channels = ["processor", channel(STORE, "read"), *moving]
        self._column = {name: index for index, name in enumerate(self.channels)}
        self.transfers = [move for slot in slots for move in (*self.reads(slot), *self.writes(slot))]

    def bytes_by_channel(self) -> dict[str, int]:
        """Bytes that an epoch moves."""
        moved = dict.fromkeys(self.channels[1:], 0)
        for move in self.transfers:
            moved[channel(move.tier, move.direction)] += move.size_bytes
        return moved

    def cost(self, move: Transfer, rates: Rates) -> TransferCost:
        """What ``move`` keeps busy, and for how long."""
        own = rates.store if move.tier == STORE else self._rates[move.tier]
        seconds = read_seconds if move.direction == "read" else write_seconds
        return TransferCost(
            phase=move.step // self._workload.blocks.count,
            channel=self._column[channel(move.tier, move.direction)],
            seconds=seconds(own, move.size_bytes, move.calls),
            handling_seconds=move.size_bytes * own.cpu_seconds_per_byte,
        )

    def busy_seconds(self, rates: Rates) -> Array:
        """float64, phases x channels: how long each is busy."""
        busy = np.zeros((len(self._workload.phases), len(self.channels)))
        busy[:, PROCESSOR] = [compute_seconds(rates, self._workload, phase) for phase in self._workload.phases]
        for move in self.transfers:
            cost = self.cost(move, rates)
            busy[cost.phase, cost.channel] += cost.seconds
            busy[cost.phase, PROCESSOR] += cost.handling_seconds
        return busy

    def phase_seconds(self, rates: Rates, *, overlapped: bool) -> list[PhaseSeconds]:
        """Busy seconds of each channel, phase by phase."""
        busy = self.busy_seconds(rates)
        found = []
        for phase, row in zip(self._workload.phases, busy.tolist(), strict=True):
            compute = compute_seconds(rates, self._workload, phase)
            moving = {name: s for name, s in zip(self.channels[1:], row[1:], strict=True) if s > 0}
            found.append(
                PhaseSeconds(compute=compute, handling=row[PROCESSOR] - compute, channels=moving, overlapped=overlapped)
            )
        return found

    @cached_property
    def _rates(self) -> dict[str, TierRates]:
        return {tier.name: tier.rates for tier in self._tiers}

    def _tier(self, part: str, block: int) -> str:
        return self._placed[part][block] if part in self._placed else self._tiers[0].name

    def needed_at(self, slot: Slot) -> int:
        """The first step that uses the loaded ``slot``."""
        return min(slot.first_step + self._lookahead, slot.last_step)

    def reads(self, slot: Slot) -> Iterator[Transfer]:
        """What is read to fill ``slot``."""
        if not slot.loaded or slot.first_step == SETUP_STEP:
            return
        if slot.role == "halo":
            yield from self._halo(slot)
            return
        stored = self._workload.fields[slot.field].source is Source.STORE
        yield Transfer(
            tier=STORE if stored else self._tier(slot.field, slot.block),
            direction="read",
            step=self.needed_at(slot),
            begin=slot.first_step,
            end=self.needed_at(slot),
            part=slot.field,
            size_bytes=slot.size_bytes,
            calls=1,
        )

    def writes(self, slot: Slot) -> Iterator[Transfer]:
        """What is written from ``slot``."""
        if slot.role == "pack":
            groups = len(self._workload.pack_groups(slot.field, slot.block))
            yield Transfer(
                tier=self._tier(pack_part(slot.field), slot.block),
                direction="write",
                step=slot.first_step,
                begin=slot.first_step,
                end=slot.last_step,
                part=pack_part(slot.field),
                size_bytes=self._workload.pack_bytes(slot.field, slot.block),
                calls=groups,
                parts=groups,
            )
        elif slot.spilled:
            yield from self._spills(slot)

    def _halo(self, slot: Slot) -> Iterator[Transfer]:
        """The rows of a halo, by the tiers that hold the packs, or whole blocks, of their owners."""
        pull = self._workload.published[slot.field]
        needed = self._workload.halo_counts(pull).needed[slot.block]
        row_bytes = self._workload.fields[slot.field].row_bytes
        placed = self._placed.get(slot.field if pull.whole_blocks else pack_part(slot.field))
        stored = pull.whole_blocks and self._workload.fields[slot.field].source is Source.STORE
        first = STORE if stored else self._tiers[0].name
        owners = {first: slice(None)} if placed is None else _by_tier(placed)
        for tier, chosen in owners.items():
            rows = needed[chosen]
            yield Transfer(
                tier=tier,
                direction="read",
                step=slot.last_step,
                begin=slot.first_step,
                end=slot.last_step,
                part=pack_part(slot.field),
                size_bytes=int(rows.sum()) * row_bytes,
                calls=int((rows > 0).sum()),
                parts=len(self._workload.halo_passes(pull, slot.block)),
            )

    def _spills(self, slot: Slot) -> Iterator[Transfer]:
        workload, producer = self._workload, self._producers[slot.field]
        for block in range(workload.blocks.count) if slot.role == "whole" else [slot.block]:
            step = workload.step_index(producer, block)
            yield Transfer(
                tier=self._tier(slot.field, block),
                direction="write",
                step=step,
                begin=step,
                end=slot.last_step,
                part=slot.field,
                size_bytes=workload.fields[slot.field].size_bytes(block),
                calls=1,
            )


def _by_tier(placed: Sequence[str]) -> dict[str, Array]:
    names = np.array(placed)
    return {name: np.flatnonzero(names == name) for name in dict.fromkeys(placed)}
