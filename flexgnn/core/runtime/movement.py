"""Moves tensors between the compute tier and what lies below it, as the plan's slots say."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plan.plan import Plan
from flexgnn.core.plan.slots import Slot
from flexgnn.core.plan.workload import Source, Step
from flexgnn.core.runtime.events import Listener
from flexgnn.core.runtime.memory import Memory
from flexgnn.core.runtime.setup import own_key, pack_key, read_own
from flexgnn.core.runtime.storage import Storage
from flexgnn.core.runtime.transfers import Transfers
from flexgnn.core.tier import Array


class Movement:
    """Begins stays with their loads, and writes behind what steps made."""

    def __init__(
        self,
        plan: Plan,
        store: GraphStore,
        storage: Storage | None,
        memory: Memory,
        listener: Listener,
        clock_start: float,
    ) -> None:
        self._plan, self._store, self._stored, self._memory = plan, store, storage, memory
        self._workload = plan.workload
        self._transfers = Transfers(listener, clock_start)
        self._late_pieces: dict[int, list[int]] = {}
        self._writes: dict[str, Future[None]] = {}
        self._producers = plan.workload.producers()

    @property
    def moved_bytes(self) -> dict[str, int]:
        """Since the run began, by channel."""
        return dict(self._transfers.moved_bytes)

    def close(self) -> None:
        """End all transfers."""
        self._transfers.close()

    @property
    def _storage(self) -> Storage:
        assert self._stored is not None, "a plan that spills runs with a storage tier"
        return self._stored

    def begin(self, index: int, now: Step) -> None:
        """Open slot ``index`` at the start of step ``now``, and start its load."""
        slot = self._plan.slots[index]
        array = self._memory.open(index)
        if not slot.loaded:
            return
        if slot.role == "halo":
            self._begin_halo(index, slot, array, now)
        elif self._workload.fields[slot.field].source is Source.STORE:
            read = _stored_read(self._store, self._plan, slot, array)
            key = own_key(slot.field, slot.block)
            self._memory.expect(index, self._transfers.read("store read", key, slot.size_bytes, read, ()))
        else:
            key = own_key(slot.field, slot.block)
            self._read_blob(index, key, 0, array)

    def _read_blob(self, index: int, key: str, first_row: int, array: Array) -> None:
        storage = self._storage
        write = self._writes.get(key)
        transfer = self._transfers.read(
            "tier read",
            key,
            array.nbytes,
            lambda: storage.get_rows(key, first_row, array),
            () if write is None else (write,),
        )
        self._memory.expect(index, transfer)

    def _begin_halo(self, index: int, slot: Slot, array: Array, now: Step) -> None:
        """Load the pieces of a halo that exist; what a step from ``now`` on makes is left to :meth:`finish_halos`."""
        halos = self._workload.halos[self._workload.published[slot.field].topology]
        producer = self._producers.get(slot.field)
        late = []
        for owner in range(self._workload.blocks.count):
            if halos.needed[slot.block, owner] == 0:
                continue
            if producer is not None and self._workload.step_index(producer, owner) >= now.index:
                late.append(owner)
            else:
                self._read_piece(index, slot, array, owner)
        if late:
            self._late_pieces[index] = late

    def _read_piece(self, index: int, slot: Slot, array: Array, owner: int) -> None:
        halos = self._workload.halos[self._workload.published[slot.field].topology]
        begin = halos.halo_offset(slot.block, owner)
        piece = array[begin : begin + int(halos.needed[slot.block, owner])]
        self._read_blob(index, pack_key(slot.field, owner), halos.pack_offset(owner, slot.block), piece)

    def finish_halos(self, step: Step) -> None:
        """Load the pieces of this step's halos that did not exist when their slots opened."""
        for pull in step.phase.pulls:
            index = self._memory.find("halo", pull.field, step.block)
            if index is not None and index in self._late_pieces:
                slot = self._plan.slots[index]
                array = self._memory.array(index)
                for owner in self._late_pieces.pop(index):
                    self._read_piece(index, slot, array, owner)

    def write_behind(self, step: Step) -> None:
        """Start writing what this step made and later steps will load."""
        block = step.block
        for name in step.phase.writes:
            pack = self._memory.find("pack", name, block)
            if pack is not None:
                self._write(pack, pack_key(name, block), self._memory.array(pack))
            for index in (self._memory.find("own", name, block), self._memory.find("whole", name, -1)):
                if index is not None and self._plan.slots[index].spilled:
                    self._write(index, own_key(name, block), self._memory.rows(name, block))

    def _write(self, index: int, key: str, array: Array) -> None:
        storage = self._storage
        write = self._transfers.write(key, array.nbytes, lambda: storage.put(key, array))
        self._writes[key] = write
        self._memory.expect(index, write)


def _stored_read(store: GraphStore, plan: Plan, slot: Slot, array: Array) -> Callable[[], None]:
    return lambda: read_own(store, plan, slot.field, slot.block, array)
