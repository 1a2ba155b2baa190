"""Which rows a block needs from which other block: sizes for planning, and lists for a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plan.blocks import Blocks
from flexgnn.core.program.adjacency_kernels import list_halo, localize
from flexgnn.core.tier import Array

Direction = Literal["in", "out", "pairs"]
"""``in``: rows are destinations that pull from sources (forward). ``out``: the transposed graph (backward).
``pairs``: as ``in``, of pairs whose links are predicted; who pulls is only counted by edges, as all rows are at hand.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class HaloCounts:
    """Sizes of one direction's blocks and halos."""

    edges: tuple[int, ...]
    """Edges by pulling block."""
    needed: Array
    """int64, P x P: how many nodes of block q, hubs excepted, the block p pulls from; 0 on the diagonal."""
    hub_rows: tuple[int, ...]
    """Hubs by block. Hubs are at hand everywhere, and in no halo."""

    @cached_property
    def num_hubs(self) -> int:
        """Hubs of all blocks."""
        return sum(self.hub_rows)

    @cached_property
    def _halo_rows(self) -> list[int]:
        return [int(rows) for rows in self.needed.sum(axis=1)]

    @cached_property
    def _sent_rows(self) -> list[int]:
        return [int(rows) for rows in self.needed.sum(axis=0)]

    @cached_property
    def _groups(self) -> dict[tuple[str, int, int], list[range]]:
        """Planners ask for the same groups again and again."""
        return {}

    @cached_property
    def _part_counts(self) -> dict[tuple[str, int], Array]:
        return {}

    def halo_rows(self, block: int) -> int:
        """Rows that ``block`` needs from all others."""
        return self._halo_rows[block]

    def sent_rows(self, block: int) -> int:
        """Rows of ``block`` that all others need, a row counted once for each of them."""
        return self._sent_rows[block]

    def halo_passes(self, block: int, most_rows: int) -> list[HaloPass]:
        """The halo of ``block`` in passes of at most ``most_rows`` rows; a single one if two would do.

        An owner's rows are never divided.
        """
        rows = self.needed[block]
        return [
            HaloPass(owners=owners, start=int(rows[: owners.start].sum()), stop=int(rows[: owners.stop].sum()))
            for owners in self._grouped("halo", block, rows, most_rows)
        ]

    def pack_groups(self, owner: int, most_rows: int) -> list[range]:
        """The receivers of ``owner``, in groups whose rows are written together; sizes as in :meth:`halo_passes`."""
        return self._grouped("pack", owner, self.needed[:, owner], most_rows)

    def _grouped(self, kind: str, block: int, rows: Array, most_rows: int) -> list[range]:
        key = (kind, block, most_rows)
        if key not in self._groups:
            self._groups[key] = _grouped(rows, most_rows)
        return self._groups[key]

    def part_counts(self, kind: Literal["halo", "pack"], most_rows: int) -> Array:
        """int64, one a block: passes of its halo, or groups of its receivers."""
        key = (kind, most_rows)
        if key not in self._part_counts:
            rows = self.needed if kind == "halo" else self.needed.T
            parts = [len(self._grouped(kind, block, of_block, most_rows)) for block, of_block in enumerate(rows)]
            self._part_counts[key] = np.array(parts, dtype=np.int64)
        return self._part_counts[key]

    def pack_rows(self, owner: int, receivers: range) -> int:
        """Rows that ``owner`` sends to ``receivers``."""
        return int(self.needed[receivers.start : receivers.stop, owner].sum())


@dataclass(frozen=True, kw_only=True)
class HaloPass:
    """A part of a halo that is at hand at once."""

    owners: range
    """Whose rows they are."""
    start: int
    """Halo rows ``start : stop``: a halo is ordered by position, hence by owner."""
    stop: int


def _grouped(rows: Array, most_rows: int) -> list[range]:
    """Consecutive indices whose ``rows`` add up to at most ``most_rows``; all if they are at most twice as many."""
    if rows.sum() <= 2 * most_rows:
        return [range(len(rows))]
    groups, start, size = [], 0, 0
    for index, count in enumerate(rows.tolist()):
        if size and size + count > most_rows:
            groups.append(range(start, index))
            start, size = index, 0
        size += count
    return [*groups, range(start, len(rows))]


def edge_range(store: GraphStore, direction: Direction, start: int, stop: int) -> tuple[int, int]:
    """The positions of the edges of rows ``start : stop`` in the arrays ``{direction}/indices`` and ``/weights``."""
    indptr = store.read(f"{direction}/indptr", start, stop + 1)
    return int(indptr[0]), int(indptr[-1])


class HaloLister:
    """Lists halos block by block, over one scratch array of N int32."""

    def __init__(self, store: GraphStore, blocks: Blocks, direction: Direction, hubs: Array) -> None:
        """``hubs``: positions (int32, ascending) of the nodes that no halo has."""
        self._store, self._blocks, self._direction, self._hubs = store, blocks, direction, hubs
        self._seen = np.full(blocks.num_nodes, -1, dtype=np.int32)

    def localized(self, block: int, halo_rows: int, out: Array) -> Array:
        """Fill ``out`` (int32, the block's edges) with indices into block, hubs and halo; return the halo's positions.

        A hub of the block itself is one of its rows.
        """
        start, stop = self._blocks.start(block), self._blocks.stop(block)
        first, last = edge_range(self._store, self._direction, start, stop)
        self._store.read(f"{self._direction}/indices", first, last, out=out)
        halo = np.empty(halo_rows, dtype=np.int32)
        # Marks are negative, below any position that `localize` leaves behind in the same array.
        mark = -2 - block
        self._seen[self._hubs] = mark
        list_halo(out, start, stop, mark, self._seen, halo)
        halo.sort()
        localize(out, start, stop, self._hubs, halo, self._seen)
        return halo
