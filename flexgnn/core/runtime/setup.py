"""What a run does once, before its first step: fill what is kept, and stage what steps will load.

Works block by block, within ``Arena.setup_bytes``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from flexgnn.core.copies import Copies, host_tensor
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plan.counting import list_hubs
from flexgnn.core.plan.placement import pack_part
from flexgnn.core.plan.plan import Plan
from flexgnn.core.plan.slots import SETUP_STEP
from flexgnn.core.plan.topology import Direction, HaloLister, edge_range
from flexgnn.core.plan.workload import Source
from flexgnn.core.program.adjacency import node_vectors
from flexgnn.core.program.adjacency_kernels import shift_blocks
from flexgnn.core.program.kernels import NO_VECTOR
from flexgnn.core.runtime.memory import Memory
from flexgnn.core.runtime.storage import Storage
from flexgnn.core.tier import Array


def own_key(field: str, block: int) -> str:
    """Under which a field's rows at a block are stored on the storage tier."""
    return f"{field}/{block}"


def pack_key(field: str, block: int, group: int) -> str:
    """Under which the rows that a group of receivers needs of a block are stored."""
    return f"{field}/pack/{block}/{group}"


@dataclass(frozen=True, kw_only=True)
class StoreRows:
    """A field's part at a block, in the graph store: a :class:`~flexgnn.core.copies.RowSource`."""

    store: GraphStore
    plan: Plan
    field: str
    block: int

    def read(self, start: int, out: Array) -> None:
        """Fill ``out`` with rows from ``start`` on."""
        field, blocks = self.plan.workload.fields[self.field], self.plan.workload.blocks
        assert field.array is not None, "the store has this field"
        first = blocks.start(self.block)
        if field.array.endswith(("/indices", "/weights", "/attributes", "/types")):
            first = sum(self.plan.workload.halos[_direction_of(field.array)].edges[: self.block])
        self.store.read(field.array, first + start, first + start + len(out), out=out)

    def lend(self, num_rows: int) -> None:
        """They are compressed."""


def _direction_of(array: str) -> Direction:
    """Of an array of edges."""
    directions: tuple[Direction, ...] = ("in", "out", "pairs")
    return next(direction for direction in directions if array.startswith(f"{direction}/"))


class Setup:
    """Fills kept slots and stages derived tensors."""

    def __init__(self, plan: Plan, store: GraphStore, memory: Memory, storage: Storage | None, copies: Copies) -> None:
        self._plan, self._store, self._memory, self._storage = plan, store, memory, storage
        self._copies = copies
        self._workload = plan.workload

    def run(self) -> None:
        kept = [index for index, slot in enumerate(self._plan.slots) if slot.first_step == SETUP_STEP]
        for index in kept:
            self._fill_stored(index)
        self._derive_vectors()
        used = {slot.field for slot in self._plan.slots}
        for direction in self._workload.halos:
            if f"{direction}/packed" in used:
                self._localize(direction)
            if f"{direction}/blocks" in used:
                self._localize_to_blocks(direction)

    def _fill_stored(self, index: int) -> None:
        slot = self._plan.slots[index]
        rows = self._memory.open(index)
        if self._workload.fields[slot.field].source is not Source.STORE or slot.role == "hubs":
            return
        if slot.role == "own":
            self._read(slot.field, slot.block, rows)
            return
        blocks = self._workload.blocks
        for block in range(blocks.count):
            self._read(slot.field, block, rows[blocks.start(block) : blocks.stop(block)])

    def _read(self, name: str, block: int, rows: Tensor) -> None:
        self._copies.into(rows, self._rows(name, block))()

    def _rows(self, name: str, block: int) -> StoreRows:
        return StoreRows(store=self._store, plan=self._plan, field=name, block=block)

    def _leave(self, name: str, block: int, array: Array) -> None:
        """Put a derived tensor where steps will look for it."""
        if self._memory.find("own", name, block) is not None:
            _copy(array, self._memory.rows(name, block))
        if (name, block) in self._plan.staged:
            self._put(name, block, own_key(name, block), array)

    def _put(self, part: str, block: int, key: str, array: Array) -> None:
        assert self._storage is not None, "a plan that stages runs with storage tiers"
        self._storage.put(self._plan.tier_of(part, block), key, array)

    def _derive_vectors(self) -> None:
        adjacencies = {a.adjacency for a in self._workload.program.aggregations}
        blocks = self._workload.blocks
        for block in range(blocks.count):
            start, stop = blocks.start(block), blocks.stop(block)
            indptr = self._store.read("in/indptr", start, stop + 1)
            first, last = int(indptr[0]), int(indptr[-1])
            indices = self._store.read("in/indices", first, last)
            weighted = self._store.info.weighted
            weights = self._store.read("in/weights", first, last) if weighted else NO_VECTOR
            for adjacency in adjacencies:
                for name, vector in node_vectors(adjacency, indptr, indices, weights, start).items():
                    self._leave(name, block, vector)

    def _localize(self, direction: Direction) -> None:
        """Rewrite the adjacency to indices into block, hubs and halo, and list what each block owes to the others."""
        blocks, halos = self._workload.blocks, self._workload.halos[direction]
        hubs = np.empty(halos.num_hubs, dtype=np.int32)
        if len(hubs):
            list_hubs(self._store, blocks, direction, self._plan.decisions.hub_blocks, hubs)
        lister = HaloLister(self._store, blocks, direction, hubs)
        listed = []
        for block in range(blocks.count):
            indices = np.empty(halos.edges[block], dtype=np.int32)
            listed.append(lister.localized(block, halos.halo_rows(block), indices))
            self._leave(f"{direction}/packed", block, indices)
        for owner in range(blocks.count):
            start, stop = blocks.start(owner), blocks.stop(owner)
            parts = [rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)] for rows in [hubs, *listed]]
            sends = np.concatenate(parts) - np.int32(start)
            self._leave(f"{direction}/sends", owner, sends)
            self._send_stored(direction, owner, sends)

    def _localize_to_blocks(self, direction: Direction) -> None:
        """Rewrite the adjacency to indices into block and halo, where halos are whole blocks."""
        blocks, halos = self._workload.blocks, self._workload.block_halos[direction]
        starts = np.array([blocks.start(block) for block in range(blocks.count)])
        for block in range(blocks.count):
            needed = halos.needed[block]
            shifts = blocks.rows(block) + np.cumsum(needed) - needed - starts
            shifts[block] = -starts[block]
            indices = np.empty(halos.edges[block], dtype=np.int32)
            first, last = edge_range(self._store, direction, blocks.start(block), blocks.stop(block))
            self._store.read(f"{direction}/indices", first, last, out=indices)
            shift_blocks(indices, blocks.rows_per_block, shifts)
            self._leave(f"{direction}/blocks", block, indices)

    def _send_stored(self, direction: Direction, owner: int, sends: Array) -> None:
        """Keep the hubs of ``owner`` in stored fields, and write out the rows that it owes to the others."""
        for name in self._plan.staged_packs:
            if self._workload.published[name].topology != direction:
                continue
            field = self._workload.fields[name]
            rows = np.empty(field.shape(owner), dtype=field.dtype)
            self._rows(name, owner).read(0, rows)
            chosen = sends[: self._workload.halos[direction].hub_rows[owner]]
            if len(chosen):
                _copy(rows[chosen], self._memory.hubs_of(name, owner))
            first = len(chosen)
            for group, receivers in enumerate(self._workload.pack_groups(name, owner)):
                count = self._workload.halos[direction].pack_rows(owner, receivers)
                packed = rows[sends[first : first + count]]
                self._put(pack_part(name), owner, pack_key(name, owner, group), packed)
                first += count


def _copy(array: Array, rows: Tensor) -> None:
    rows.copy_(host_tensor(array, rows.dtype))
