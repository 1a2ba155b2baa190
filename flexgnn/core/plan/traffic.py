"""What a set of slots moves between tiers, and how long that keeps each channel busy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from flexgnn.core.plan.cost import PhaseSeconds, Rates, compute_seconds, read_seconds, write_seconds
from flexgnn.core.plan.slots import SETUP_STEP, Slot
from flexgnn.core.plan.workload import Source, Workload

Channel = Literal["store read", "tier read", "tier write"]


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Bytes that cross between the compute tier and what lies below it, on behalf of one step."""

    channel: Channel
    step: int
    """The step that needs what is read, or made what is written."""
    size_bytes: int
    calls: int


def transfers(workload: Workload, slots: list[Slot]) -> Iterator[Transfer]:
    """Every transfer of an epoch. What the setup loads is not among them."""
    producers = workload.producers()
    for slot in slots:
        if slot.role == "halo":
            pull = workload.published[slot.field]
            yield Transfer(
                channel="tier read",
                step=slot.last_step,
                size_bytes=workload.halo_bytes(pull, slot.block),
                calls=int((workload.halos[pull.topology].needed[slot.block] > 0).sum()),
            )
        elif slot.role == "pack":
            yield Transfer(
                channel="tier write",
                step=slot.first_step,
                size_bytes=workload.pack_bytes(slot.field, slot.block),
                calls=len(workload.pack_groups(slot.field, slot.block)),
            )
        elif slot.loaded and slot.first_step != SETUP_STEP:
            stored = workload.fields[slot.field].source is Source.STORE
            channel: Channel = "store read" if stored else "tier read"
            yield Transfer(channel=channel, step=slot.last_step, size_bytes=slot.size_bytes, calls=1)
        if slot.spilled and slot.role in ("own", "whole"):
            yield Transfer(
                channel="tier write",
                step=workload.step_index(producers[slot.field], max(slot.block, 0)),
                size_bytes=slot.size_bytes,
                calls=workload.blocks.count if slot.role == "whole" else 1,
            )


def phase_seconds(rates: Rates, workload: Workload, slots: list[Slot], *, overlapped: bool) -> list[PhaseSeconds]:
    """Busy seconds of each channel, phase by phase."""
    reads = [0.0] * len(workload.phases)
    writes = [0.0] * len(workload.phases)
    handling = [0.0] * len(workload.phases)
    for move in transfers(workload, slots):
        phase = move.step // workload.blocks.count
        handling[phase] += move.size_bytes * rates.handling_seconds_per_byte
        if move.channel == "tier write":
            writes[phase] += write_seconds(rates, move.size_bytes, move.calls)
        else:
            stored = move.channel == "store read"
            reads[phase] += read_seconds(rates, move.size_bytes, stored=stored, calls=move.calls)
    return [
        PhaseSeconds(
            compute=compute_seconds(rates, workload, phase),
            handling=handling[phase.index],
            read=reads[phase.index],
            write=writes[phase.index],
            overlapped=overlapped,
        )
        for phase in workload.phases
    ]


def traffic_bytes(workload: Workload, slots: list[Slot]) -> dict[str, int]:
    """Bytes that an epoch moves, by channel."""
    moved: dict[str, int] = {"store read": 0, "tier read": 0, "tier write": 0}
    for move in transfers(workload, slots):
        moved[move.channel] += move.size_bytes
    return moved
