"""What a set of slots moves between tiers, and how long that keeps each channel busy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flexgnn.core.plan.cost import (
    PhaseSeconds,
    Rates,
    TierRates,
    compute_seconds,
    gather_seconds,
    read_seconds,
    write_seconds,
)
from flexgnn.core.plan.placement import Placement, StorageTier, pack_part
from flexgnn.core.plan.slots import SETUP_STEP, Slot
from flexgnn.core.plan.workload import Source, Workload

Direction = Literal["read", "write"]
STORE = "store"
"""The graph store, among the names of storage tiers."""


def channel(tier: str, direction: str) -> str:
    """What one direction of a tier is called: ``store read``, ``arrow write``."""
    return f"{tier} {direction}"


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Bytes that cross between the compute tier and a storage tier, on behalf of one step."""

    tier: str
    direction: Direction
    step: int
    """The step that needs what is read, or made what is written."""
    size_bytes: int
    calls: int
    packed: bool = False
    """Whether the step puts the rows next to each other first."""


class Traffic:
    """The transfers of an epoch. What the setup loads and writes is not among them."""

    def __init__(
        self, workload: Workload, slots: Sequence[Slot], tiers: Sequence[StorageTier], placed: Placement
    ) -> None:
        self._workload, self._tiers, self._placed = workload, tiers, placed
        self._producers = workload.producers()
        self.transfers = list(self._list(slots))

    def bytes_by_channel(self) -> dict[str, int]:
        """Bytes that an epoch moves."""
        moved = {channel(STORE, "read"): 0}
        for tier in self._tiers:
            moved |= {channel(tier.name, "read"): 0, channel(tier.name, "write"): 0}
        for move in self.transfers:
            moved[channel(move.tier, move.direction)] += move.size_bytes
        return moved

    def phase_seconds(self, rates: Rates, *, overlapped: bool) -> list[PhaseSeconds]:
        """Busy seconds of each channel, phase by phase."""
        workload = self._workload
        tier_rates: dict[str, TierRates] = {STORE: rates.store, **{tier.name: tier.rates for tier in self._tiers}}
        channels: list[dict[str, float]] = [{} for _ in workload.phases]
        handling = [0.0] * len(workload.phases)
        for move in self.transfers:
            phase = move.step // workload.blocks.count
            own = tier_rates[move.tier]
            cost = read_seconds if move.direction == "read" else write_seconds
            name = channel(move.tier, move.direction)
            channels[phase][name] = channels[phase].get(name, 0.0) + cost(own, move.size_bytes, move.calls)
            handling[phase] += move.size_bytes * own.cpu_seconds_per_byte / rates.compute.threads
            if move.packed:
                handling[phase] += gather_seconds(rates.compute, move.size_bytes)
        return [
            PhaseSeconds(
                compute=compute_seconds(rates.compute, workload, phase),
                handling=handling[phase.index],
                channels=channels[phase.index],
                overlapped=overlapped,
            )
            for phase in workload.phases
        ]

    def _tier(self, part: str, block: int) -> str:
        return self._placed[part][block] if part in self._placed else self._tiers[0].name

    def _list(self, slots: Sequence[Slot]) -> Iterator[Transfer]:
        for slot in slots:
            if slot.role == "halo":
                yield from self._halo(slot)
            elif slot.role == "pack":
                yield Transfer(
                    tier=self._tier(pack_part(slot.field), slot.block),
                    direction="write",
                    step=slot.first_step,
                    size_bytes=self._workload.pack_bytes(slot.field, slot.block),
                    calls=len(self._workload.pack_groups(slot.field, slot.block)),
                    packed=True,
                )
            elif slot.loaded and slot.first_step != SETUP_STEP:
                stored = self._workload.fields[slot.field].source is Source.STORE
                tier = STORE if stored else self._tier(slot.field, slot.block)
                yield Transfer(tier=tier, direction="read", step=slot.last_step, size_bytes=slot.size_bytes, calls=1)
            if slot.spilled and slot.role in ("own", "whole"):
                yield from self._spills(slot)

    def _halo(self, slot: Slot) -> Iterator[Transfer]:
        """The rows of a halo, by the tiers that hold the packs of their owners."""
        pull = self._workload.published[slot.field]
        needed = self._workload.halos[pull.topology].needed[slot.block]
        row_bytes = self._workload.fields[slot.field].row_bytes
        placed = self._placed.get(pack_part(slot.field))
        owners = {self._tiers[0].name: slice(None)} if placed is None else _by_tier(placed)
        for tier, chosen in owners.items():
            rows = needed[chosen]
            yield Transfer(
                tier=tier,
                direction="read",
                step=slot.last_step,
                size_bytes=int(rows.sum()) * row_bytes,
                calls=int((rows > 0).sum()),
            )

    def _spills(self, slot: Slot) -> Iterator[Transfer]:
        workload, producer = self._workload, self._producers[slot.field]
        for block in range(workload.blocks.count) if slot.role == "whole" else [slot.block]:
            yield Transfer(
                tier=self._tier(slot.field, block),
                direction="write",
                step=workload.step_index(producer, block),
                size_bytes=workload.fields[slot.field].size_bytes(block),
                calls=1,
            )


def _by_tier(placed: Sequence[str]) -> dict[str, np.ndarray]:
    names = np.array(placed)
    return {name: np.flatnonzero(names == name) for name in dict.fromkeys(placed)}
