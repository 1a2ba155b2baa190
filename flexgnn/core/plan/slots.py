"""From decisions to slots: which stretch of steps each tensor spends in the compute tier.

A step's own tensors are there during the step. With a lookahead of d, a load begins d steps before its use,
and a write ends at most d steps after the step that made the tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flexgnn.core.plan.decisions import Decisions
from flexgnn.core.plan.workload import Phase, Pull, Source, Workload
from flexgnn.core.tier import Array

Role = Literal["own", "whole", "halo", "pack", "partial", "cursor"]
CURSOR_BYTES = 16
"""Of each row: the edges at which this and the next pass begin."""
SETUP_STEP = -1
"""The step before the first: tensors kept for the whole run are filled then."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A tensor's stay in the compute tier, from the start of ``first_step`` to the end of ``last_step``."""

    role: Role
    """``own``: a field at a block's rows; ``whole``: at all rows; ``halo``: the rows a block needs of others;
    ``pack``: the rows others need of a block. Large halos and packs pass through a window of two parts. A halo in
    several passes comes with a ``cursor``, and in backward with ``partial`` sums, as has every pull without fusion."""
    field: str
    block: int
    """-1 for ``whole``."""
    size_bytes: int
    first_step: int
    last_step: int
    loaded: bool = False
    """Filled from a slower tier (or by the setup), else by a step."""
    spilled: bool = False
    """Written to the slower tier when the step that fills it ends."""


class SlotBuilder:
    """Derives the slots of one workload under one set of decisions."""

    def __init__(self, workload: Workload, decisions: Decisions) -> None:
        self._workload, self._decisions = workload, decisions
        self._ahead = decisions.lookahead
        self._count = workload.blocks.count
        self._last = len(workload.steps) - 1
        self.packed = frozenset(n for n in workload.published if decisions.access[n] == "packed")

    def build(self) -> list[Slot]:
        """All slots, in no particular order."""
        workload = self._workload
        reads = workload.own_reads(self.packed)
        producers = workload.producers()
        slots: list[Slot] = []
        for name, field in workload.fields.items():
            if field.source is Source.STEP and name in producers:
                slots += self._step_field(name, producers[name], reads.get(name, []))
            elif name in reads or name in workload.published:
                slots += self._constant(name, reads.get(name, []))
        for phase in workload.phases:
            slots += self._exchanges(phase)
        return slots

    def _steps(self, phases: list[Phase], block: int) -> list[int]:
        return [self._workload.step_index(phase, block) for phase in phases]

    def _pullers(self, name: str) -> list[Phase]:
        return [p for p in self._workload.phases if any(pull.field == name for pull in p.pulls)]

    def _step_field(self, name: str, producer: Phase, readers: list[Phase]) -> Iterator[Slot]:
        access = self._decisions.access.get(name)
        if access in (None, "packed"):
            for block in range(self._count):
                yield from self._own(name, block, self._workload.step_index(producer, block), readers)
            return
        last_phase = max([*self._pullers(name), *(readers if access == "held" else [])], key=lambda p: p.index)
        later = [p for p in readers if p.index > last_phase.index]
        field = self._workload.fields[name]
        last_step = self._workload.step_index(last_phase, self._count - 1)
        yield Slot(
            role="whole",
            field=name,
            block=-1,
            size_bytes=field.total_bytes,
            first_step=self._workload.step_index(producer, 0),
            last_step=last_step,
            spilled=bool(later),
        )
        for block in range(self._count):
            yield from self._loads(name, block, last_step, self._steps(later, block))

    def _own(self, name: str, block: int, made: int, readers: list[Phase]) -> Iterator[Slot]:
        """The stays of a tensor that a step makes: kept across some gaps, written out and loaded across others."""
        uses = self._steps(readers, block)
        kept = [(name, block, step) in self._decisions.kept for step in uses]
        end = made if all(kept) else min(made + self._ahead, self._last)
        size = self._workload.fields[name].size_bytes(block)
        stays: list[tuple[int, int]] = [(made, end)]
        for step, keep in zip(uses, kept, strict=True):
            begin, end = stays[-1]
            if keep or step - self._ahead <= end:
                stays[-1] = (begin, max(end, step))
            else:
                stays.append((step - self._ahead, step))
        for index, (begin, end) in enumerate(stays):
            yield Slot(
                role="own",
                field=name,
                block=block,
                size_bytes=size,
                first_step=begin,
                last_step=end,
                loaded=index > 0,
                spilled=index == 0 and len(stays) > 1,
            )

    def _loads(self, name: str, block: int, after: int, uses: list[int]) -> Iterator[Slot]:
        """Stays of a tensor that is loaded for each use, or for several that are close together."""
        size = self._workload.fields[name].size_bytes(block)
        stays: list[tuple[int, int]] = []
        for step in uses:
            begin = max(step - self._ahead, after + 1)
            if stays and begin <= stays[-1][1] + 1:
                stays[-1] = (stays[-1][0], step)
            else:
                stays.append((begin, step))
        for begin, end in stays:
            yield Slot(
                role="own", field=name, block=block, size_bytes=size, first_step=begin, last_step=end, loaded=True
            )

    def _constant(self, name: str, readers: list[Phase]) -> Iterator[Slot]:
        field = self._workload.fields[name]
        if name in self._workload.published and name not in self.packed:
            yield Slot(
                role="whole",
                field=name,
                block=-1,
                size_bytes=field.total_bytes,
                first_step=SETUP_STEP,
                last_step=self._last,
                loaded=True,
            )
            return
        for block in range(self._count):
            if (name, block, SETUP_STEP) in self._decisions.kept:
                yield Slot(
                    role="own",
                    field=name,
                    block=block,
                    size_bytes=field.size_bytes(block),
                    first_step=SETUP_STEP,
                    last_step=self._last,
                    loaded=True,
                )
            else:
                yield from self._loads(name, block, SETUP_STEP, self._steps(readers, block))

    def _exchanges(self, phase: Phase) -> Iterator[Slot]:
        """Halos that a phase pulls from, and packs that it writes."""
        fused = self._workload.program.fused
        for block in range(self._count):
            step = self._workload.step_index(phase, block)
            for pull in phase.pulled.values():
                if pull.field in self.packed:
                    yield from self._halo(phase, pull, block, step)
                elif not fused:
                    yield from self._partial(phase, pull, block, step)
            for name in phase.writes:
                if name in self.packed:
                    yield Slot(
                        role="pack",
                        field=name,
                        block=block,
                        size_bytes=self._workload.window_bytes(name, self._workload.pack_bytes(name, block)),
                        first_step=step,
                        last_step=min(step + self._ahead, self._last),
                        spilled=True,
                    )

    def _halo(self, phase: Phase, pull: Pull, block: int, step: int) -> Iterator[Slot]:
        workload, rows = self._workload, self._workload.blocks.rows(block)
        yield Slot(
            role="halo",
            field=pull.field,
            block=block,
            size_bytes=workload.window_bytes(pull.field, workload.halo_bytes(pull, block)),
            first_step=max(step - self._ahead, 0),
            last_step=step,
            loaded=True,
        )
        passes = len(workload.halo_passes(pull, block))
        if passes > 1:
            yield Slot(
                role="cursor",
                field=pull.field,
                block=block,
                size_bytes=rows * CURSOR_BYTES,
                first_step=step,
                last_step=step,
            )
        if passes > 1 or not workload.program.fused:
            yield from self._partial(phase, pull, block, step)

    def _partial(self, phase: Phase, pull: Pull, block: int, step: int) -> Iterator[Slot]:
        """Room for the sums of a block in backward, where they are not a field of their own."""
        if phase.kind == "backward":
            workload = self._workload
            size = workload.blocks.rows(block) * pull.width * np.dtype(workload.fields[pull.field].dtype).itemsize
            yield Slot(role="partial", field=pull.field, block=block, size_bytes=size, first_step=step, last_step=step)


def live_bytes(slots: list[Slot], num_steps: int) -> Array:
    """int64, 1 + ``num_steps``: bytes in slots during the setup, then during each step."""
    change = np.zeros(num_steps + 2, dtype=np.int64)
    for slot in slots:
        change[slot.first_step + 1] += slot.size_bytes
        change[slot.last_step + 2] -= slot.size_bytes
    live: Array = np.cumsum(change[:-1])
    return live
