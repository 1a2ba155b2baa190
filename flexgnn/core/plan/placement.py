"""What a run leaves on storage, and the tiers that may hold it.

A *part* is a field's rows at a block, or the packs of a field that a block writes; its name is the field's, or that
with ``/pack`` behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from flexgnn.core.errors import BudgetError, ConfigError
from flexgnn.core.plan.cost import ASSUMED_TIER_RATES, TierRates
from flexgnn.core.plan.slots import SlotGroup
from flexgnn.core.plan.workload import Source, Workload
from flexgnn.core.sizes import format_size
from flexgnn.core.tier import Array

TensorClass = Literal["activations", "gradients", "halos", "features", "topology"]
TENSOR_CLASSES: tuple[TensorClass, ...] = get_args(TensorClass)
"""What users can name a tier for. ``halos``: packed rows of activations and gradients; ``features``: packed rows of the
features; ``topology``: adjacency localised to blocks, and node vectors."""
Placement = Mapping[str, Sequence[str]]
"""By part: the tier of each block. What is missing is on the first tier."""

_PACK = "/pack"


@dataclass(frozen=True, kw_only=True)
class StorageTier:
    """A storage tier as planners see it."""

    name: str
    capacity_bytes: int | None = None
    """None: without limit."""
    rates: TierRates = ASSUMED_TIER_RATES
    alignment_bytes: int = 1
    """Buffers that begin at multiples of it save a copy."""
    in_host_memory: bool = False
    """Then what no later step of an epoch reads is removed at once, so that others can have its room, while files that
    are there already are written faster than new ones; and the setup needs some of it."""

    def without(self, size_bytes: int) -> StorageTier:
        """The tier with so much less room, which the setup works in.

        Raises:
            BudgetError: if it has not.
        """
        if self.capacity_bytes is None:
            return self
        if self.capacity_bytes < size_bytes:
            raise BudgetError(
                f"Setting up takes {format_size(size_bytes)} of host memory, and {self.name} has room for "
                f"{format_size(self.capacity_bytes)}: give more --host-memory."
            )
        return replace(self, capacity_bytes=self.capacity_bytes - size_bytes)


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """What one block leaves on storage of one part, and how much an epoch moves of it."""

    part: str
    block: int
    size_bytes: int
    read_bytes: int
    reads: int
    written: bool
    """By a step of every epoch; else by the setup."""
    first_step: int
    """That writes it, of the epoch's steps; the first, if the setup writes it."""
    last_step: int
    """That reads it; the last of all, if the setup writes it."""


def check_wanted(wanted: Mapping[str, str], tiers: Sequence[str]) -> dict[str, str]:
    """``wanted``, a tier by tensor class, if the classes and the tiers exist.

    Raises:
        ConfigError: otherwise.
    """
    for name, tier in wanted.items():
        if name not in TENSOR_CLASSES:
            raise ConfigError(f"There are no tensors called {name!r} to place; there are: {', '.join(TENSOR_CLASSES)}.")
        if tier not in tiers:
            raise ConfigError(f"{name} can't be placed on {tier!r}; the storage tiers are: {', '.join(tiers)}.")
    return dict(wanted)


def pack_part(field: str) -> str:
    """The part of a field's packs."""
    return f"{field}{_PACK}"


def field_of(part: str) -> str:
    """The field of a part."""
    return part.removesuffix(_PACK)


def tensor_class(workload: Workload, part: str) -> TensorClass:
    """What ``part`` is to a user."""
    field = workload.fields[field_of(part)]
    if part.endswith(_PACK):
        return "features" if field.source is Source.STORE else "halos"
    if field.source is Source.SETUP:
        return "topology"
    return "gradients" if field.name.startswith("grad(") else "activations"


def stored_parts(workload: Workload, groups: Sequence[SlotGroup]) -> list[StoredPart]:
    """Everything that a run leaves on storage."""
    return [*_own_parts(workload, groups), *_packs(workload, groups)]


def _own_parts(workload: Workload, groups: Sequence[SlotGroup]) -> Iterator[StoredPart]:
    uses: dict[str, _Uses] = {}
    producers = workload.producers()
    for group in groups:
        name, stored = group.field, workload.fields[group.field].source is not Source.STORE
        of_field = uses.setdefault(name, _Uses(workload))
        if group.role == "whole" and group.spilled.any():
            of_field.write(np.arange(workload.blocks.count), workload.steps_of(producers[name]))
        if group.role == "own" and group.spilled.any():
            of_field.write(group.block[group.spilled], group.first_step[group.spilled])
        loaded = group.loaded & (group.first_step >= 0)
        if group.role == "whole" and stored:
            for last_step in group.last_step[loaded].tolist():
                of_field.read(np.arange(workload.blocks.count), last_step)
        if group.role == "own" and stored:
            of_field.read(group.block[loaded], group.last_step[loaded])
        if group.role == "halo" and stored and workload.published[name].whole_blocks:
            needed = workload.halo_counts(workload.published[name]).needed[group.block] > 0
            for row, last_step in zip(needed, group.last_step.tolist(), strict=True):
                of_field.read(np.flatnonzero(row), last_step)
    for name in sorted(uses):
        found = uses[name]
        for block in np.flatnonzero(found.written | (found.reads > 0)).tolist():
            size = workload.fields[name].size_bytes(block)
            written, reads = bool(found.written[block]), int(found.reads[block])
            yield StoredPart(
                part=name,
                block=block,
                size_bytes=size,
                read_bytes=reads * size,
                reads=reads,
                written=written,
                first_step=int(found.first_step[block]) if written else 0,
                last_step=int(found.last_step[block]) if written else len(workload.steps) - 1,
            )


class _Uses:
    """When the rows of a field at each block are written and read."""

    def __init__(self, workload: Workload) -> None:
        count = workload.blocks.count
        self.written = np.zeros(count, dtype=np.bool_)
        self.reads = np.zeros(count, dtype=np.int64)
        self.first_step = np.full(count, len(workload.steps))
        self.last_step = np.zeros(count, dtype=np.int64)

    def write(self, blocks: Array, steps: Array) -> None:
        """Each of ``blocks`` once, at one of ``steps``."""
        self.written[blocks] = True
        np.minimum.at(self.first_step, blocks, steps)
        np.maximum.at(self.last_step, blocks, steps)

    def read(self, blocks: Array, steps: Array | int) -> None:
        """Each of ``blocks`` once, at one of ``steps`` or all at one."""
        np.add.at(self.reads, blocks, 1)
        np.maximum.at(self.last_step, blocks, steps)


def _packs(workload: Workload, groups: Sequence[SlotGroup]) -> Iterator[StoredPart]:
    """Packs of every field with halos: each halo takes each of its rows once."""
    fields, producers = {group.field for group in groups if group.role == "halo"}, workload.producers()
    for field in sorted(name for name in fields if not workload.published[name].whole_blocks):
        pulls = sum(any(pull.field == field for pull in phase.pulled.values()) for phase in workload.phases)
        written = workload.fields[field].source is Source.STEP
        steps = workload.steps_of(producers[field]) if written else np.zeros(workload.blocks.count, dtype=np.int64)
        last_step = len(workload.steps) - 1
        if written:
            last_step = max(
                int(group.last_step.max()) for group in groups if group.field == field and group.role == "halo"
            )
        readers = (workload.halos[workload.published[field].topology].needed > 0).sum(axis=0).tolist()
        for block, size in enumerate(workload.pack_sizes(field).tolist()):
            yield StoredPart(
                part=pack_part(field),
                block=block,
                size_bytes=size,
                read_bytes=pulls * size,
                reads=pulls * readers[block],
                written=written,
                first_step=int(steps[block]),
                last_step=last_step,
            )
