"""Which storage tier holds what: every part on the one where it costs least.

Shape legend: n parts, T tiers, F names of parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flexgnn.core.compiling import compiled
from flexgnn.core.errors import BudgetError
from flexgnn.core.plan.cost import TierRates, read_seconds, write_seconds
from flexgnn.core.plan.placement import StorageTier, StoredPart, tensor_class
from flexgnn.core.plan.workload import Workload
from flexgnn.core.sizes import format_size
from flexgnn.core.tier import Array

_STRETCHES = 512
"""Of an epoch, that a tier's room is counted in."""
_NO_LIMIT = np.iinfo(np.int64).max


def place(
    workload: Workload, parts: Sequence[StoredPart], tiers: Sequence[StorageTier], wanted: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """A tier for every part: first those that are wanted on one, then the busiest, where they end soonest.

    Args:
        workload: what ``parts`` are of.
        parts: from :func:`~flexgnn.core.plan.placement.stored_parts`.
        tiers: to choose from.
        wanted: by :data:`~flexgnn.core.plan.placement.TensorClass`, the one tier that may hold it.

    Returns:
        By part, the tier of each block; nothing where there is one tier.

    Raises:
        BudgetError: if a part fits no tier that may hold it.
    """
    if len(tiers) == 1:
        limit = tiers[0].capacity_bytes
        if limit is not None and held_bytes(parts, tiers[0], workload) > limit:
            raise BudgetError(_does_not_fit(parts, tiers, ""))
        return {}
    if not parts:
        return {}
    columns = _Columns.of(parts, workload)
    classes = [tensor_class(workload, name) for name in columns.names]
    allowed = np.array([[wanted.get(kind, tier.name) == tier.name for tier in tiers] for kind in classes])
    seconds = np.stack([columns.seconds(tier.rates) for tier in tiers])
    unwanted = np.array([kind not in wanted for kind in classes], dtype=np.bool_)[columns.name]
    order = np.lexsort((columns.block, columns.name, -seconds[0], unwanted))
    spans = np.stack([np.stack(columns.span(tier)) for tier in tiers])
    limits = np.array([_NO_LIMIT if tier.capacity_bytes is None else tier.capacity_bytes for tier in tiers])
    chosen = np.zeros(len(parts), dtype=np.int64)
    failed = _choose(order, columns.size, columns.name, seconds, allowed, spans, limits, chosen)
    if failed >= 0:
        kind = classes[columns.name[failed]]
        same = [part for part in parts if kind not in wanted or tensor_class(workload, part.part) == kind]
        fitting = [tier for tier in tiers if wanted.get(kind, tier.name) == tier.name]
        raise BudgetError(_does_not_fit(same, fitting, f" of {kind}" if kind in wanted else ""))
    placed = np.zeros((len(classes), workload.blocks.count), dtype=np.int64)
    placed[columns.name, columns.block] = chosen
    rows = zip(columns.names, placed.tolist(), strict=True)
    return {name: tuple(tiers[tier].name for tier in row) for name, row in rows}


def held_bytes(parts: Sequence[StoredPart], tier: StorageTier, workload: Workload) -> int:
    """The most that ``tier`` holds at any step, if it has ``parts``; of long epochs, in any stretch of steps."""
    columns = _Columns.of(parts, workload)
    start, stop = columns.span(tier)
    change = np.zeros(_STRETCHES + 1, dtype=np.int64)
    np.add.at(change, start, columns.size)
    np.subtract.at(change, stop, columns.size)
    return int(np.cumsum(change).max())


@dataclass(frozen=True, kw_only=True, eq=False)
class _Columns:
    """Parts, a column for each of their attributes: int64 [n]."""

    names: Sequence[str]
    """[F], in their order."""
    name: Array
    """Index into ``names``."""
    block: Array
    size: Array
    read: Array
    reads: Array
    written: Array
    first: Array
    """Stretch of the epoch, as the next."""
    last: Array

    @classmethod
    def of(cls, parts: Sequence[StoredPart], workload: Workload) -> _Columns:
        names = sorted({part.part for part in parts})
        number, stretch = {name: n for n, name in enumerate(names)}, -(-len(workload.steps) // _STRETCHES)

        def column(values: Sequence[int]) -> Array:
            return np.array(values, dtype=np.int64)

        return cls(
            names=names,
            name=column([number[part.part] for part in parts]),
            block=column([part.block for part in parts]),
            size=column([part.size_bytes for part in parts]),
            read=column([part.read_bytes for part in parts]),
            reads=column([part.reads for part in parts]),
            written=column([part.written for part in parts]),
            first=column([part.first_step for part in parts]) // stretch,
            last=column([part.last_step for part in parts]) // stretch,
        )

    def seconds(self, rates: TierRates) -> Array:
        """float64 [n]: an epoch's time for each on a tier of ``rates``."""
        seconds: Array = self.written * write_seconds(rates, self.size) + read_seconds(rates, self.read, self.reads)
        return seconds

    def span(self, tier: StorageTier) -> tuple[Array, Array]:
        """Stretches in which ``tier`` holds each: the first, and the one behind the last. In files, they stay."""
        if tier.in_host_memory:
            return self.first, self.last + 1
        return np.zeros_like(self.first), np.ones_like(self.last)


@compiled()
def _choose(
    order: Array,
    sizes: Array,
    names: Array,
    seconds: Array,
    allowed: Array,
    spans: Array,
    limits: Array,
    chosen: Array,
) -> int:
    """The tier of each part in ``order``: of those that it may be on and fits, the one that ends soonest with it.

    Args:
        order: int64 [n].
        sizes: int64 [n], in bytes.
        names: int64 [n].
        seconds: float64 [T, n].
        allowed: bool [F, T].
        spans: int64 [T, 2, n].
        limits: int64 [T], in bytes.
        chosen: int64 [n], filled.

    Returns:
        A part that fits none, or -1.
    """
    busy, held = np.zeros(len(limits)), np.zeros((len(limits), _STRETCHES), dtype=np.int64)
    for part in order:
        best = -1
        for tier in range(len(limits)):
            if not allowed[names[part], tier]:
                continue
            fits = held[tier, spans[tier, 0, part] : spans[tier, 1, part]].max() <= limits[tier] - sizes[part]
            if fits and (best < 0 or busy[tier] + seconds[tier, part] < busy[best] + seconds[best, part]):
                best = tier
        if best < 0:
            return int(part)
        busy[best] += seconds[best, part]
        held[best, spans[best, 0, part] : spans[best, 1, part]] += sizes[part]
        chosen[part] = best
    return -1


def _does_not_fit(parts: Sequence[StoredPart], tiers: Sequence[StorageTier], of_what: str) -> str:
    needed = sum(part.size_bytes for part in parts)
    capacities = ", ".join(f"{format_size(t.capacity_bytes or 0)} on {t.name}" for t in tiers)
    return (
        f"The plan spills {format_size(needed)}{of_what}, and there is room for {capacities}: "
        "give more --device-memory, or name a larger disk with --ssd-path or --tier"
        f"{', or place them elsewhere' if of_what else ''}."
    )
