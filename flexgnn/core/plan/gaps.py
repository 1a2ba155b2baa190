"""The gaps of a sketch (see ``sketch.py``): found field by field, and numbered together.

Shape legend: G gaps, I spans, R and W savings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flexgnn.core.plan.packing import aligned
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.slots import SETUP_STEP, SlotGroup
from flexgnn.core.plan.traffic import PROCESSOR, Traffic, Transfers
from flexgnn.core.plan.workload import Workload
from flexgnn.core.tier import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Gaps:
    """All gaps of a sketch."""

    fields: list[str]
    """By number."""
    keys: Array
    """int64 [G, 3]: number of the field, block, and the step that ends the gap (-1: it is the whole run)."""
    sizes: Array
    """int64 [G], bytes as the arena rounds them."""
    spans: Array
    """int64 [I, 3]: gap, first step, step after the last. A gap is one or more spans of steps, in order of gaps."""
    savings: Array
    """float64 [R, 5]: gap, phase, channel, and seconds and bytes saved by filling it."""
    tensors: Array
    """int64 [G]: gaps of one tensor have the same number."""
    writes: Array
    """float64 [W, 5]: tensor, phase, channel, and seconds and bytes saved when all gaps of the tensor are filled."""

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def tensor_counts(self) -> Array:
        """int64: gaps of each tensor."""
        counts: Array = np.bincount(self.tensors, minlength=1)
        return counts

    @cached_property
    def first_spans(self) -> Array:
        """int64 [G + 1]: where the spans of each gap begin, and their number."""
        first: Array = np.searchsorted(self.spans[:, 0], np.arange(len(self) + 1))
        return first

    @cached_property
    def steps(self) -> Array:
        """int64 [G]: steps in each gap."""
        counts = np.zeros(len(self), dtype=np.int64)
        np.add.at(counts, self.spans[:, 0], self.spans[:, 2] - self.spans[:, 1])
        return counts

    @cached_property
    def seconds(self) -> Array:
        """float64 [G]: what filling each saves, channels added up, its share of the write included."""
        return self.by_gap(self.savings[:, 3], self.writes[:, 3])

    @property
    def all_savings(self) -> tuple[Array, Array]:
        """Those of reads and of writes."""
        return self.savings, self.writes

    def by_gap(self, saved: Array, written: Array) -> Array:
        """float64 [G]: sums of ``saved`` (float64 [R]), and each gap's share of ``written`` (float64 [W])."""
        reads = np.bincount(self.savings[:, 0].astype(int), saved, len(self))
        writes = np.bincount(self.writes[:, 0].astype(int), written, len(self.tensor_counts))
        total: Array = reads + (writes / np.maximum(self.tensor_counts, 1))[self.tensors]
        return total

    @cached_property
    def densities(self) -> Array:
        """float64 [G]: seconds saved per byte and step of residence."""
        densities: Array = self.seconds / (self.sizes * np.maximum(self.steps, 1))
        return densities


@dataclass(frozen=True, kw_only=True, eq=False)
class FieldGaps:
    """The gaps of one field as in :class:`Gaps`, each numbered from 0."""

    keys: Array
    """int64 [G, 2]: block and step."""
    sizes: Array
    spans: Array
    savings: Array
    tensors: Array
    writes: Array
    num_tensors: int


class CollectedGaps:
    """Gaps of several fields, numbered one after the other."""

    def __init__(self) -> None:
        self._fields: list[str] = []
        self._num_gaps = self._num_tensors = 0
        self._parts: dict[str, list[Array]] = {
            "keys": [np.empty((0, 3), dtype=np.int64)],
            "sizes": [np.empty(0, dtype=np.int64)],
            "spans": [np.empty((0, 3), dtype=np.int64)],
            "savings": [np.empty((0, 5))],
            "tensors": [np.empty(0, dtype=np.int64)],
            "writes": [np.empty((0, 5))],
        }

    def add(self, field: str, found: FieldGaps) -> None:
        """The gaps of ``field``."""
        numbers = np.full((len(found.keys), 1), len(self._fields))
        first_gap = np.array([self._num_gaps, 0, 0, 0, 0])
        first_tensor = np.array([self._num_tensors, 0, 0, 0, 0])
        for name, rows in {
            "keys": np.hstack([numbers, found.keys]),
            "sizes": found.sizes,
            "spans": found.spans + first_gap[:3],
            "savings": found.savings + first_gap,
            "tensors": found.tensors + self._num_tensors,
            "writes": found.writes + first_tensor,
        }.items():
            self._parts[name].append(rows)
        self._fields.append(field)
        self._num_gaps += len(found.keys)
        self._num_tensors += found.num_tensors

    def gaps(self) -> Gaps:
        """All that were added."""
        return Gaps(fields=self._fields, **{name: np.concatenate(parts) for name, parts in self._parts.items()})


class GapFinder:
    """Finds the gaps of one field."""

    def __init__(self, problem: PlanningProblem, workload: Workload, traffic: Traffic, group: SlotGroup) -> None:
        self._problem, self._workload, self._traffic, self._group = problem, workload, traffic, group

    def made(self, *, write_saved: bool) -> FieldGaps:
        """The gaps between the stays of a tensor that a step makes."""
        group = self._group
        order = np.lexsort((group.first_step, group.block))
        pairs = np.flatnonzero(np.diff(group.block[order]) == 0)
        before, after = order[pairs], order[pairs + 1]
        gaps = np.arange(len(after))
        blocks, tensors = np.unique(group.block[after], return_inverse=True)
        tensor_of_block = _numbered(blocks, np.arange(len(blocks)), self._workload.blocks.count)
        writes = self._traffic.writes(group) if write_saved else []
        return FieldGaps(
            keys=np.stack([group.block[after], self._traffic.needed_at(group)[after]], axis=1),
            sizes=self._sizes(after),
            spans=_spans(gaps, group.last_step[before] + 1, group.first_step[after]),
            savings=self._read_costs(_numbered(after, gaps, len(group))),
            tensors=tensors,
            writes=self._costs(writes, lambda moves: tensor_of_block[group.block[moves.slot]]),
            num_tensors=len(blocks),
        )

    def constant(self) -> FieldGaps:
        """The gap of a tensor that is loaded for each use: the run but for its stays."""
        group = self._group
        order = np.lexsort((group.first_step, group.block))
        block, first, after = group.block[order], group.first_step[order], group.last_step[order] + 1
        begins = np.flatnonzero(np.diff(block, prepend=-1))
        ends = np.append(begins[1:], len(block)) - 1
        gaps = np.arange(len(begins))
        owner = np.repeat(gaps, ends - begins + 1)
        previous = np.where(np.diff(block, prepend=-1) != 0, 0, np.roll(after, 1))
        last = np.full(len(gaps), len(self._workload.steps))
        spans = np.concatenate([_spans(owner, previous, first), _spans(gaps, after[ends], last)])
        return FieldGaps(
            keys=np.stack([block[begins], np.full(len(gaps), SETUP_STEP)], axis=1),
            sizes=self._sizes(order[begins]),
            spans=spans[np.argsort(spans[:, 0], kind="stable")],
            savings=self._read_costs(_numbered(order, owner, len(group))),
            tensors=gaps,
            writes=np.empty((0, 5)),
            num_tensors=len(gaps),
        )

    def _sizes(self, slots: Array) -> Array:
        return aligned(self._group.size_bytes[slots], self._problem.alignment_bytes)

    def _read_costs(self, gap_of_slot: Array) -> Array:
        return self._costs(self._traffic.reads(self._group), lambda moves: gap_of_slot[moves.slot])

    def _costs(self, transfers: list[Transfers], owners_of: Callable[[Transfers], Array]) -> Array:
        """What each keeps busy of its channel and of the processor, for those with an owner (-1: none)."""
        rows = [np.empty((0, 5))]
        for moves in transfers:
            costs, owners = self._traffic.costs(moves, self._problem.rates), owners_of(moves)
            channels = [owners, costs.phase, costs.channel, costs.seconds, moves.size_bytes]
            processor = [owners, costs.phase, np.full(len(owners), PROCESSOR), costs.handling, np.zeros(len(owners))]
            rows += [np.stack(columns, axis=1)[owners >= 0] for columns in (channels, processor)]
        return np.concatenate(rows)


def _spans(gaps: Array, first: Array, stop: Array) -> Array:
    spans: Array = np.stack([gaps, first, stop], axis=1)
    return spans[stop > first]


def _numbered(places: Array, numbers: Array, length: int) -> Array:
    """int64 [length]: ``numbers`` at ``places``, -1 elsewhere."""
    found = np.full(length, -1, dtype=np.int64)
    found[places] = numbers
    return found
