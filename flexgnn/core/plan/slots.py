"""From decisions to slots: which stretch of steps each tensor spends in the compute tier.

A step's own tensors are there during the step. With a lookahead of d, a load begins d steps before its use,
and a write ends at most d steps after the step that made the tensor. Slots come in groups, a role of a field each, as
arrays: planners derive them again and again.

Shape legend: P blocks, n slots of a group.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from flexgnn.core.plan.decisions import BY_HALOS, WHOLE_FOR_A_PHASE, Decisions
from flexgnn.core.plan.packing import aligned
from flexgnn.core.plan.workload import Phase, Pull, Source, Workload
from flexgnn.core.tier import Array

Role = Literal["own", "whole", "hubs", "halo", "pack", "partial", "cursor"]
CURSOR_BYTES = 16
"""Of each row: the edges at which this and the next pass begin."""
SUM_BYTES = 4
"""Of each element of sums in several passes: float32, whatever is summed."""
SETUP_STEP = -1
"""The step before the first: tensors kept for the whole run are filled then."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A tensor's stay in the compute tier, from the start of ``first_step`` to the end of ``last_step``."""

    role: Role
    """``own``: a field at a block's rows; ``whole``: at all rows; ``hubs``: a packed field at the hubs of all blocks;
    ``halo``: the rows a block needs of others; ``pack``: the rows others need of a block. Large halos and packs pass
    through a window of two parts. A halo in several passes comes with a ``cursor``, and in backward with ``partial``
    sums, as has every pull without fusion; forward, where sums are rounded."""
    field: str
    block: int
    """-1 for ``whole`` and ``hubs``."""
    size_bytes: int
    first_step: int
    last_step: int
    loaded: bool = False
    """Filled from a slower tier (or by the setup), else by a step."""
    spilled: bool = False
    """Written to the slower tier when the step that fills it ends."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotGroup:
    """Slots of one role of one field, those of a block in order of their steps. Arrays are as in :class:`Slot` [n]."""

    role: Role
    field: str
    block: Array
    size_bytes: Array
    first_step: Array
    last_step: Array
    loaded: Array
    spilled: Array
    known: dict[Any, Any] = dataclasses.field(default_factory=dict)
    """What planners derive from it again and again."""

    def __len__(self) -> int:
        return len(self.block)

    def slots(self) -> Iterator[Slot]:
        """The same, one by one."""
        columns = (self.block, self.size_bytes, self.first_step, self.last_step, self.loaded, self.spilled)
        for block, size, first, last, loaded, spilled in zip(*(column.tolist() for column in columns), strict=True):
            yield Slot(
                role=self.role,
                field=self.field,
                block=block,
                size_bytes=size,
                first_step=first,
                last_step=last,
                loaded=loaded,
                spilled=spilled,
            )


def _group(
    role: Role,
    name: str,
    block: Array,
    size_bytes: Array,
    stay: tuple[Array, Array],
    *,
    loaded: Array | bool = False,
    spilled: Array | bool = False,
) -> SlotGroup:
    return SlotGroup(
        role=role,
        field=name,
        block=block,
        size_bytes=size_bytes,
        first_step=stay[0],
        last_step=stay[1],
        loaded=np.broadcast_to(loaded, block.shape),
        spilled=np.broadcast_to(spilled, block.shape),
    )


class SlotBuilder:
    """Derives the slots of one workload under one set of decisions."""

    def __init__(self, workload: Workload, decisions: Decisions) -> None:
        self._workload, self._decisions = workload, decisions
        self._ahead = decisions.lookahead
        self._blocks = np.arange(workload.blocks.count)
        self._last = len(workload.steps) - 1
        self._kept = _by_field(workload, decisions)
        self.packed = frozenset(n for n in workload.published if decisions.access[n] in BY_HALOS)
        """Published fields that blocks reach by halos."""

    def build(self) -> list[SlotGroup]:
        """All slots, in no particular order of groups."""
        workload = self._workload
        reads = workload.own_reads(self.packed)
        producers = workload.producers()
        groups: list[SlotGroup] = []
        for name in workload.fields:
            readers = reads.get(name, [])
            key = name, self._ahead, self._decisions.access.get(name), tuple(phase.index for phase in readers)
            groups += self._once(key, name, lambda: self._of_field(name, producers.get(name), readers))  # noqa: B023
        for phase in workload.phases:
            packed = [name for name in (*phase.pulled, *phase.writes) if name in self.packed]
            groups += self._once(
                (phase.index, self._ahead, tuple(packed)),
                None,
                lambda: self._exchanges(phase),  # noqa: B023
            )
        return [group for group in groups if len(group)]

    def _once(self, key: object, name: str | None, make: Callable[[], Iterable[SlotGroup]]) -> list[SlotGroup]:
        """Groups that are the same under all decisions with the same ``key`` that keep nothing of field ``name``."""
        if any(field == name for field, _ in self._kept):
            return list(make())
        known = self._workload.known
        if key not in known:
            known[key] = list(make())
        found: list[SlotGroup] = known[key]
        return found

    def _of_field(self, name: str, producer: Phase | None, readers: list[Phase]) -> Iterator[SlotGroup]:
        workload = self._workload
        if workload.fields[name].source is Source.STEP and producer is not None:
            yield from self._step_field(name, producer, readers)
        elif readers or name in workload.published:
            yield from self._constant(name, readers)
        if name in self.packed and workload.hub_bytes(name):
            yield self._hubs(name, producer)

    def _pullers(self, name: str) -> list[Phase]:
        return [p for p in self._workload.phases if any(pull.field == name for pull in p.pulls)]

    def _single(self, role: Role, name: str, size_bytes: int, stay: tuple[int, int], **more: bool) -> SlotGroup:
        """The one slot of a field at all blocks."""
        begin, end = np.array([stay[0]]), np.array([stay[1]])
        return _group(role, name, np.array([-1]), np.array([size_bytes]), (begin, end), **more)

    # Fields that steps make

    def _step_field(self, name: str, producer: Phase, readers: list[Phase]) -> Iterator[SlotGroup]:
        workload, access = self._workload, self._decisions.access.get(name)
        if name in workload.added_up:
            stay = workload.first_step(producer), max(workload.last_step(phase) for phase in [producer, *readers])
            yield self._single("whole", name, workload.fields[name].total_bytes, stay)
            return
        if access is None or access in WHOLE_FOR_A_PHASE | BY_HALOS:
            yield self._own(name, producer, readers)
            if access in WHOLE_FOR_A_PHASE:
                yield self._whole_for_phases(name, ahead=access == "ahead")
            return
        last_phase = max([*self._pullers(name), *(readers if access == "held" else [])], key=lambda p: p.index)
        later = [p for p in readers if p.index > last_phase.index]
        last_step = workload.last_step(last_phase)
        stay = workload.first_step(producer), last_step
        yield self._single("whole", name, workload.fields[name].total_bytes, stay, spilled=bool(later))
        yield self._loads(name, last_step, later, self._blocks >= 0)

    def _whole_for_phases(self, name: str, *, ahead: bool) -> SlotGroup:
        """All of a field, for each phase that pulls from it."""
        workload, pullers = self._workload, self._pullers(name)
        first = np.array([workload.steps_of_loads(phase, ahead=ahead).min() for phase in pullers])
        last = np.array([workload.last_step(phase) for phase in pullers])
        # What the next phase pulls from again stays.
        anew = np.append(True, first[1:] > last[:-1] + 1)
        first, last = first[anew], last[np.append(anew[1:], True)]
        size = np.full_like(first, workload.fields[name].total_bytes)
        return _group("whole", name, np.full_like(first, -1), size, (first, last), loaded=True)

    def _own(self, name: str, producer: Phase, readers: list[Phase]) -> SlotGroup:
        """The stays of a tensor that a step makes: kept across some gaps, written out and loaded across others.

        What is read back whole, by other blocks or all at once, is always written out.
        """
        workload, ahead = self._workload, self._ahead
        always = is_always_written(workload, self._decisions, name)
        made, uses = workload.steps_of(producer), [workload.steps_of(phase) for phase in readers]
        kept = [self._kept_until(name, phase) for phase in readers]
        all_kept = np.logical_and.reduce(kept) if kept else np.bool_(True)
        begin, stays = made, _Stays(len(self._blocks))
        end = np.where(all_kept & (not always), made, np.minimum(made + ahead, self._last))
        for step, keep in zip(uses, kept, strict=True):
            anew = ~(keep | (step - ahead <= end))
            stays.add(anew, begin, end)
            begin, end = np.where(anew, step - ahead, begin), np.where(anew, step, np.maximum(end, step))
        stays.add(self._blocks >= 0, begin, end)
        return stays.made(name, workload.fields[name].sizes, always_spilled=always)

    def _kept_until(self, name: str, phase: Phase) -> Array:
        """Bool [P]: whether the tensor stays until ``phase`` reads it."""
        return self._kept.get((name, phase.index), np.zeros(len(self._blocks), dtype=np.bool_))

    def _hubs(self, name: str, producer: Phase | None) -> SlotGroup:
        """The hubs of a packed field: until it was last pulled, or for the whole run if no step makes it."""
        workload, size = self._workload, self._workload.hub_bytes(name)
        if producer is None:
            return self._single("hubs", name, size, (SETUP_STEP, self._last), loaded=True)
        last_phase = max(self._pullers(name), key=lambda phase: phase.index)
        return self._single("hubs", name, size, (workload.first_step(producer), workload.last_step(last_phase)))

    # Fields of the store and the setup

    def _constant(self, name: str, readers: list[Phase]) -> Iterator[SlotGroup]:
        workload, field, access = self._workload, self._workload.fields[name], self._decisions.access.get(name)
        if access in WHOLE_FOR_A_PHASE:
            yield self._whole_for_phases(name, ahead=access == "ahead")
        elif name in workload.published and name not in self.packed:
            yield self._single("whole", name, field.total_bytes, (SETUP_STEP, self._last), loaded=True)
            return
        kept = self._kept.get((name, SETUP_STEP), np.zeros(len(self._blocks), dtype=np.bool_))
        stays = self._load_stays(SETUP_STEP, readers, ~kept)
        stays.add(kept, np.full_like(self._blocks, SETUP_STEP), np.full_like(self._blocks, self._last))
        yield stays.loaded(name, field.sizes)

    def _loads(self, name: str, after: int, readers: list[Phase], chosen: Array) -> SlotGroup:
        return self._load_stays(after, readers, chosen).loaded(name, self._workload.fields[name].sizes)

    def _load_stays(self, after: int, readers: list[Phase], chosen: Array) -> _Stays:
        """Stays of tensors, at the blocks ``chosen``, that are loaded for each use, or for several close together.

        None goes from training to evaluation, which are passes of their own.
        """
        stays = _Stays(len(self._blocks))
        begin = end = self._blocks
        previous: Phase | None = None
        for phase in readers:
            step = self._workload.steps_of(phase)
            load = np.maximum(step - self._ahead, after + 1)
            if previous is not None:
                anew = load > end + 1
                if previous.training and not phase.training:
                    anew, load = self._blocks >= 0, np.maximum(load, self._workload.first_evaluation_step)
                stays.add(anew & chosen, begin, end)
                begin = np.where(anew, load, begin)
            else:
                begin = load
            end, previous = step, phase
        if previous is not None:
            stays.add(chosen, begin, end)
        return stays

    # What blocks exchange

    def _exchanges(self, phase: Phase) -> Iterator[SlotGroup]:
        """Halos that a phase pulls from, and packs that it writes."""
        workload = self._workload
        steps = workload.steps_of(phase)
        for pull in phase.pulled.values():
            if pull.field in self.packed:
                yield from self._halo(phase, pull, steps)
            elif pull.rounded if pull.in_slices else not workload.program.fused:
                yield from self._partial(phase, pull, steps, self._blocks)
        for name in phase.writes:
            if name in self.packed and not workload.published[name].whole_blocks:
                stay = steps, np.minimum(steps + self._ahead, self._last)
                size = workload.window_bytes(name, workload.pack_sizes(name))
                yield _group("pack", name, self._blocks, size, stay, spilled=True)

    def _halo(self, phase: Phase, pull: Pull, steps: Array) -> Iterator[SlotGroup]:
        workload, name = self._workload, pull.field
        size = workload.window_bytes(name, workload.halo_sizes(pull))
        # One halo of a field begins after another: they are told apart by when they are there.
        earlier = [workload.steps_of(p) for p in self._pullers(name) if p.index < phase.index]
        begin = np.maximum(steps - self._ahead, np.maximum.reduce(earlier) + 1 if earlier else 0)
        yield _group("halo", name, self._blocks, size, (begin, steps), loaded=True)
        several = np.flatnonzero(workload.halo_pass_counts(pull) > 1)
        cursors = workload.blocks.row_counts[several] * CURSOR_BYTES
        yield _group("cursor", name, several, cursors, (steps[several], steps[several]))
        yield from self._partial(phase, pull, steps, several if workload.program.fused else self._blocks)

    def _partial(self, phase: Phase, pull: Pull, steps: Array, blocks: Array) -> Iterator[SlotGroup]:
        """Room for the sums of ``blocks``, where no field takes them before they are complete."""
        if pull.rounded or (phase.kind == "backward" and not pull.in_slices):
            size = self._workload.blocks.row_counts[blocks] * pull.width * SUM_BYTES
            yield _group("partial", pull.field, blocks, size, (steps[blocks], steps[blocks]))


class _Stays:
    """Stays of one field, collected use by use."""

    def __init__(self, num_blocks: int) -> None:
        self._num_blocks = num_blocks
        empty = np.empty(0, dtype=np.int64)
        self._parts: list[tuple[Array, Array, Array]] = [(empty, empty, empty)]

    def add(self, chosen: Array, begin: Array, end: Array) -> None:
        """One stay more at each of the blocks ``chosen`` (bool [P])."""
        blocks = np.flatnonzero(chosen)
        self._parts.append((blocks, begin[blocks], end[blocks]))

    def loaded(self, name: str, sizes: Array) -> SlotGroup:
        """Stays that all begin with a load; ``sizes``: int64 [P]."""
        block, begin, end = self._columns()
        return _group("own", name, block, sizes[block], (begin, end), loaded=True)

    def made(self, name: str, sizes: Array, *, always_spilled: bool) -> SlotGroup:
        """Stays the first of which a step begins: it is written out if others follow."""
        block, begin, end = self._columns()
        first = np.zeros(len(block), dtype=np.bool_)
        first[np.unique(block, return_index=True)[1]] = True
        several = np.bincount(block, minlength=self._num_blocks)[block] > 1
        spilled = first & (several | always_spilled)
        return _group("own", name, block, sizes[block], (begin, end), loaded=~first, spilled=spilled)

    def _columns(self) -> tuple[Array, Array, Array]:
        block, begin, end = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        return block, begin, end


def is_always_written(workload: Workload, decisions: Decisions, name: str) -> bool:
    """Whether all of field ``name`` goes to storage as it is, whatever is kept of it."""
    access = decisions.access.get(name)
    return access in WHOLE_FOR_A_PHASE or (access == "blocks" and name in workload.published)


def _by_field(workload: Workload, decisions: Decisions) -> dict[tuple[str, int], Array]:
    """What is kept, as bool [P], by field and index of the phase that reads it (-1: for the whole run)."""
    count, kept = workload.blocks.count, dict[tuple[str, int], Array]()
    for name, block, step in decisions.kept:
        # Floor division takes SETUP_STEP to -1.
        kept.setdefault((name, step // count), np.zeros(count, dtype=np.bool_))[block] = True
    return kept


def live_bytes(groups: Iterable[SlotGroup], num_steps: int, alignment_bytes: int | None = None) -> Array:
    """int64, 1 + ``num_steps``: bytes in slots during the setup, then during each step; rounded as the arena does."""
    change = np.zeros(num_steps + 2, dtype=np.int64)
    for group in groups:
        size_bytes = group.size_bytes if alignment_bytes is None else aligned(group.size_bytes, alignment_bytes)
        np.add.at(change, group.first_step + 1, size_bytes)
        np.subtract.at(change, group.last_step + 2, size_bytes)
    live: Array = np.cumsum(change[:-1])
    return live
