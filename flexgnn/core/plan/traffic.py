"""What a set of slots moves between tiers, and how long that keeps each channel busy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from flexgnn.core.plan.cost import (
    TRANSFER_SECONDS,
    PhaseSeconds,
    Rates,
    compute_seconds,
    disturbance,
    gather_seconds,
    pass_seconds,
)
from flexgnn.core.plan.decisions import Decisions
from flexgnn.core.plan.placement import StorageTier, pack_part
from flexgnn.core.plan.slots import SETUP_STEP, SlotGroup
from flexgnn.core.plan.workload import Pull, Source, Workload
from flexgnn.core.tier import Array

Direction = Literal["read", "write"]
STORE = "store"
"""The graph store, among the names of storage tiers."""


def channel(tier: str, direction: str) -> str:
    """What one direction of a tier is called: ``store read``, ``arrow write``."""
    return f"{tier} {direction}"


WINDOW_PARTS = 2
"""Passes of a halo, or groups of a pack, that have room at the same time."""
PROCESSOR = 0
"""The first of :attr:`Traffic.channels`: computation, and the handling of transfers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Transfers:
    """Transfers between the compute tier and storage tiers, on behalf of the slots of one group, as arrays [n]."""

    part: str
    """What they are of, as in ``placement.py``."""
    direction: Direction
    slot: Array
    """int64: index into the group."""
    channel: Array
    """int64: index into :attr:`Traffic.channels`."""
    step: Array
    """int64: the step that needs what is read, or made what is written."""
    begin: Array
    """int64: the step at whose start it is asked for."""
    end: Array
    """int64: the step by whose end it has to have happened."""
    size_bytes: Array
    calls: Array
    parts: Array
    """int64: passes of a halo or groups of a pack: of more than two, two at a time have room in the compute tier."""
    known: dict[Any, Any] = field(default_factory=dict)
    """What they cost, by tiers and rates."""
    gathered: bool = False
    """Whether the step puts the rows next to each other first."""
    awaited: bool = False
    """Whether the computation stands still meanwhile."""
    further: tuple[Pull, Array] | None = None
    """The passes (int64) over the block of each step that it adds to a pull, beyond the first."""

    @property
    def awaited_share(self) -> Array:
        """float64: the share that a step without a lookahead waits for; the rest goes beside its computation."""
        share: Array = np.minimum(WINDOW_PARTS / np.maximum(self.parts, 1), 1.0)
        return share


@dataclass(frozen=True, kw_only=True, eq=False)
class Costs:
    """What transfers keep busy, as arrays [n]."""

    phase: Array
    channel: Array
    seconds: Array
    """float64: of the channel."""
    handling: Array
    """float64: seconds of the processor."""


class Traffic:
    """The transfers of an epoch. What the setup loads and writes is not among them."""

    def __init__(
        self, workload: Workload, groups: Sequence[SlotGroup], tiers: Sequence[StorageTier], decisions: Decisions
    ) -> None:
        self._workload, self._tiers = workload, tuple(tiers)
        self._placed, self._lookahead = decisions.placed, decisions.lookahead
        self._ahead = {name for name, access in decisions.access.items() if access == "ahead"}
        self._producers = workload.producers()
        moving = [channel(tier.name, direction) for tier in tiers for direction in ("read", "write")]
        self.channels = ["processor", channel(STORE, "read"), *moving]
        self._column = {name: index for index, name in enumerate(self.channels)}
        self._of_group = {id(group): self._listed(group) for group in groups}
        self.groups = groups
        self.transfers = [moves for found in self._of_group.values() for listed in found for moves in listed]

    def bytes_by_channel(self) -> dict[str, int]:
        """Bytes that an epoch moves."""
        moved = np.zeros(len(self.channels), dtype=np.int64)
        for moves in self.transfers:
            np.add.at(moved, moves.channel, moves.size_bytes)
        return dict(zip(self.channels[1:], moved[1:].tolist(), strict=True))

    def costs(self, moves: Transfers, rates: Rates) -> Costs:
        """What ``moves``, of :attr:`transfers`, keep busy, and for how long."""
        key = self._tiers, id(rates)
        if key not in moves.known:
            moves.known[key] = self._costs_of(moves, rates), rates
        found: Costs = moves.known[key][0]
        return found

    def _costs_of(self, moves: Transfers, rates: Rates) -> Costs:
        # As channels are, the processor excepted: the store is read alone, other tiers are read and written.
        own = [rates.store, *(tier.rates for tier in self._tiers for _ in range(2))]
        reads = np.array([True, *([True, False] * len(self._tiers))])
        speeds = [(r.read_bytes_per_second, r.write_bytes_per_second) for r in own]
        processor = [(r.read_cpu_seconds_per_byte, r.write_cpu_seconds_per_byte) for r in own]
        which = moves.channel - 1
        either = np.where(reads[which], 0, 1)
        calls = moves.calls * np.array([r.call_seconds for r in own])[which]
        # What is awaited takes nothing from a computation that stands still.
        per_byte = 0 if moves.awaited else np.array(processor)[which, either] + disturbance(rates.compute)
        handling = moves.size_bytes * per_byte / rates.compute.threads
        handling += moves.calls * TRANSFER_SECONDS
        if moves.gathered:
            handling += gather_seconds(rates.compute, moves.size_bytes)
        if moves.further is not None:
            pull, passes = moves.further
            blocks = moves.step % self._workload.blocks.count
            handling += passes * pass_seconds(rates.compute, self._workload, pull)[blocks]
        return Costs(
            phase=moves.begin // self._workload.blocks.count,
            channel=moves.channel,
            seconds=calls + moves.size_bytes / np.array(speeds)[which, either],
            handling=handling,
        )

    def busy_seconds(self, rates: Rates) -> Array:
        """float64, phases x channels: how long each is busy; without a lookahead, how long steps wait for it."""
        busy = np.zeros((len(self._workload.phases), len(self.channels)))
        busy[:, PROCESSOR] = [compute_seconds(rates.compute, self._workload, phase) for phase in self._workload.phases]
        for group in self.groups:
            if self.reads(group) or self.writes(group):
                busy += self.once(group, "busy", rates, lambda: self._busy_with(group, rates))  # noqa: B023
        return busy

    def _busy_with(self, group: SlotGroup, rates: Rates) -> Array:
        """Likewise, with the transfers of ``group`` alone."""
        busy = np.zeros((len(self._workload.phases), len(self.channels)))
        for moves in (*self.reads(group), *self.writes(group)):
            costs = self.costs(moves, rates)
            # Without a lookahead, what goes beside the computation of its step is taken to be hidden by it.
            shown = costs.seconds if self._lookahead else costs.seconds * moves.awaited_share
            np.add.at(busy, (costs.phase, costs.channel), shown)
            np.add.at(busy[:, PROCESSOR], costs.phase, costs.handling + costs.seconds * moves.awaited)
        return busy

    def once(self, group: SlotGroup, what: str, rates: Rates | None, make: Callable[[], Any]) -> Any:
        """What ``make`` derives from ``group``, made once for all decisions under which it is the same."""
        if self._placed:
            return make()
        key = what, self._tiers, self._lookahead, group.field in self._ahead, id(rates)
        if key not in group.known:
            group.known[key] = make(), rates  # which must not be freed, since its identity is in the key
        return group.known[key][0]

    def _listed(self, group: SlotGroup) -> tuple[list[Transfers], list[Transfers]]:
        """Reads and writes on behalf of ``group``."""

        def listed() -> tuple[list[Transfers], list[Transfers]]:
            return list(self._list_reads(group)), list(self._list_writes(group))

        found: tuple[list[Transfers], list[Transfers]] = self.once(group, "transfers", None, listed)
        return found

    def phase_seconds(self, rates: Rates, *, overlapped: bool) -> list[PhaseSeconds]:
        """Busy seconds of each channel, phase by phase."""
        busy = self.busy_seconds(rates)
        found = []
        for phase, row in zip(self._workload.phases, busy.tolist(), strict=True):
            compute = compute_seconds(rates.compute, self._workload, phase)
            moving = {name: s for name, s in zip(self.channels[1:], row[1:], strict=True) if s > 0}
            found.append(
                PhaseSeconds(compute=compute, handling=row[PROCESSOR] - compute, channels=moving, overlapped=overlapped)
            )
        return found

    # Slots to transfers

    def needed_at(self, group: SlotGroup) -> Array:
        """int64: the first step that uses each loaded slot."""
        needed: Array = np.minimum(group.first_step + self._lookahead, group.last_step)
        return needed

    def reads(self, group: SlotGroup) -> list[Transfers]:
        """What is read to fill the slots of ``group``."""
        return self._of_group[id(group)][0]

    def writes(self, group: SlotGroup) -> list[Transfers]:
        """What is written from the slots of ``group``."""
        return self._of_group[id(group)][1]

    def _list_reads(self, group: SlotGroup) -> Iterator[Transfers]:
        if group.role == "halo":
            yield from self._halo(group)
        elif group.role == "whole" and group.loaded.any():
            yield from self._filled(group)
        elif group.role == "own":
            slot = np.flatnonzero(group.loaded & (group.first_step != SETUP_STEP))
            needed = self.needed_at(group)[slot]
            stored = self._workload.fields[group.field].source is Source.STORE
            yield Transfers(
                part=group.field,
                direction="read",
                slot=slot,
                channel=self._channels(group.field, group.block[slot], "read", stored=stored),
                step=needed,
                begin=group.first_step[slot],
                end=needed,
                size_bytes=group.size_bytes[slot],
                calls=np.ones_like(slot),
                parts=np.ones_like(slot),
            )

    def _filled(self, group: SlotGroup) -> Iterator[Transfers]:
        """The blocks of a field that phases want whole."""
        workload, blocks = self._workload, np.arange(self._workload.blocks.count)
        stored = workload.fields[group.field].source is Source.STORE
        for slot in np.flatnonzero(group.first_step != SETUP_STEP).tolist():
            ahead = group.field in self._ahead
            phase = workload.loading_phase(group.field, int(group.first_step[slot]), ahead=ahead)
            first, ones = np.full_like(blocks, workload.first_step(phase)), np.ones_like(blocks)
            yield Transfers(
                part=group.field,
                direction="read",
                slot=slot * ones,
                channel=self._channels(group.field, blocks, "read", stored=stored),
                step=first,
                begin=workload.steps_of_loads(phase, ahead=ahead),
                end=first,
                size_bytes=workload.fields[group.field].sizes,
                calls=ones,
                parts=ones,
                awaited=not ahead,
            )

    def _list_writes(self, group: SlotGroup) -> Iterator[Transfers]:
        if group.role == "pack":
            sizes, parts = self._workload.pack_sizes(group.field), self._workload.pack_group_counts(group.field)
            yield self._written(pack_part(group.field), np.arange(len(group)), group, sizes, parts, gathered=True)
        elif group.role == "own":
            slot = np.flatnonzero(group.spilled)
            yield self._written(group.field, slot, group, group.size_bytes[slot], np.ones_like(slot))
        elif group.role == "whole" and group.spilled.any():
            yield self._spilled(group)

    def _written(
        self, part: str, slot: Array, group: SlotGroup, size_bytes: Array, parts: Array, *, gathered: bool = False
    ) -> Transfers:
        return Transfers(
            part=part,
            direction="write",
            slot=slot,
            channel=self._channels(part, group.block[slot], "write"),
            step=group.first_step[slot],
            begin=group.first_step[slot],
            end=group.last_step[slot],
            size_bytes=size_bytes,
            calls=parts,
            parts=parts,
            gathered=gathered,
        )

    def _spilled(self, group: SlotGroup) -> Transfers:
        """The parts of a whole field, each written when it is made."""
        workload, name = self._workload, group.field
        blocks = np.arange(workload.blocks.count)
        steps, ones = workload.steps_of(self._producers[name]), np.ones_like(blocks)
        return Transfers(
            part=name,
            direction="write",
            slot=0 * ones,
            channel=self._channels(name, blocks, "write"),
            step=steps,
            begin=steps,
            end=group.last_step[0] * ones,
            size_bytes=workload.fields[name].sizes,
            calls=ones,
            parts=ones,
        )

    def _halo(self, group: SlotGroup) -> Iterator[Transfers]:
        """The rows of halos, by the tiers that hold the packs, or whole blocks, of their owners."""
        workload = self._workload
        pull, field = workload.published[group.field], workload.fields[group.field]
        part = group.field if pull.whole_blocks else pack_part(group.field)
        needed = workload.halo_counts(pull).needed
        stored = pull.whole_blocks and field.source is Source.STORE
        owners = self._channels(part, np.arange(len(needed)), "read", stored=stored)
        parts = workload.halo_pass_counts(pull)[group.block]
        further = parts - 1
        for column in np.unique(owners):
            rows = needed[np.ix_(group.block, np.flatnonzero(owners == column))]
            yield Transfers(
                part=part,
                direction="read",
                slot=np.arange(len(group)),
                channel=np.full(len(group), column),
                step=group.last_step,
                begin=group.first_step,
                end=group.last_step,
                size_bytes=rows.sum(axis=1) * field.row_bytes,
                calls=(rows > 0).sum(axis=1),
                parts=parts,
                further=(pull, further),
            )
            # They are the same passes, whichever tiers they wait for.
            further = np.zeros_like(parts)

    def _channels(self, part: str, blocks: Array, direction: Direction, *, stored: bool = False) -> Array:
        """int64: the channel to the tier of ``part`` at each of ``blocks``."""
        if stored:
            return np.full(len(blocks), self._column[channel(STORE, direction)])
        tiers = self._placed.get(part)
        if tiers is None:
            return np.full(len(blocks), self._column[channel(self._tiers[0].name, direction)])
        return np.array([self._column[channel(tiers[block], direction)] for block in blocks.tolist()], dtype=np.int64)
