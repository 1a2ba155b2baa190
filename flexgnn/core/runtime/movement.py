"""Moves tensors between the compute tier and what lies below it, as the plan's slots say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future

from torch import Tensor

from flexgnn.core.copies import Copies
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plan.placement import StoredPart, field_of, pack_part
from flexgnn.core.plan.plan import Plan
from flexgnn.core.plan.slots import SETUP_STEP, Slot
from flexgnn.core.plan.topology import HaloPass
from flexgnn.core.plan.traffic import STORE
from flexgnn.core.plan.workload import Pull, Source, Step
from flexgnn.core.runtime.events import Listener
from flexgnn.core.runtime.halos import HaloStream, PackStream
from flexgnn.core.runtime.memory import Memory
from flexgnn.core.runtime.setup import StoreRows, own_key, pack_key
from flexgnn.core.runtime.storage import Storage, StoredBlob, StoredRows
from flexgnn.core.runtime.transfers import Job, Transfers

Gather = Callable[[Tensor, Tensor, Tensor], None]
"""``gather(rows, chosen, out)``: ``out = rows[chosen]``."""


class Movement:
    """Begins stays with their loads, and writes behind what steps made."""

    def __init__(
        self,
        plan: Plan,
        store: GraphStore,
        storage: Storage | None,
        memory: Memory,
        copies: Copies,
        listener: Listener,
        clock_start: float,
    ) -> None:
        self._plan, self._store, self._stored, self._memory = plan, store, storage, memory
        self._copies = copies
        self._workload = plan.workload
        self._transfers = Transfers([tier.name for tier in plan.storage_tiers], listener, clock_start)
        self._halos: dict[tuple[str, int], HaloStream] = {}
        self._writes: dict[str, Future[None]] = {}
        self._producers = plan.workload.producers()
        self._fills = self._list_fills()

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

    # In

    def begin(self, index: int, now: Step) -> None:
        """Open slot ``index`` at the start of step ``now``, and start its load."""
        slot = self._plan.slots[index]
        rows = self._memory.open(index)
        if slot.role == "halo":
            self._begin_halo(slot, rows, now)
        elif slot.loaded and slot.role == "own":
            self._memory.expect(index, self._read_own(slot.field, slot.block, rows))

    def fill(self, now: Step) -> None:
        """Start the loads that are due at the start of step ``now``, of the blocks of fields that are wanted whole."""
        for index, block in self._fills.get(now.index, ()):
            name, blocks = self._plan.slots[index].field, self._workload.blocks
            rows = self._memory.array(index)[blocks.start(block) : blocks.stop(block)]
            self._memory.expect(index, self._read_own(name, block, rows))

    def _list_fills(self) -> dict[int, list[tuple[int, int]]]:
        """By step: slots of whole fields, and the blocks of them to ask for."""
        workload, fills = self._workload, dict[int, list[tuple[int, int]]]()
        for index, slot in enumerate(self._plan.slots):
            if slot.role == "whole" and slot.loaded and slot.first_step != SETUP_STEP:
                ahead = self._plan.decisions.access[slot.field] == "ahead"
                phase = workload.loading_phase(slot.field, slot.first_step, ahead=ahead)
                steps = workload.steps_of_loads(phase, ahead=ahead)
                for block, step in enumerate(steps.tolist()):
                    fills.setdefault(step, []).append((index, block))
        return fills

    def halo_passes(self, pull: Pull, block: int) -> Iterator[tuple[HaloPass, Tensor]]:
        """The halo of ``block`` for ``pull``, part by part."""
        return self._halos.pop((pull.field, block)).passes()

    def _read_own(self, name: str, block: int, rows: Tensor) -> Future[None]:
        """Start to read a field's rows at ``block``."""
        tier, job = self._own(name, block, rows)
        return self._transfers.submit(tier, "read", [job])

    def _own(self, name: str, block: int, rows: Tensor) -> tuple[str, Job]:
        """How to read a field's rows at ``block``, from the store or from where they were spilled."""
        key = own_key(name, block)
        if self._workload.fields[name].source is not Source.STORE:
            return self._blob(name, block, key, 0, rows)
        source = StoreRows(store=self._store, plan=self._plan, field=name, block=block)
        return STORE, self._job(key, rows, self._copies.into(rows, source))

    def _blob(self, part: str, block: int, key: str, first_row: int, rows: Tensor) -> tuple[str, Job]:
        """How to read rows of a blob, once it is written."""
        tier = self._plan.tier_of(part, block)
        source = StoredRows(storage=self._storage, tier=tier, key=key, first_row=first_row)
        return tier, self._job(key, rows, self._copies.into(rows, source), after=self._writes.get(key))

    def _job(self, key: str, rows: Tensor, run: Callable[[], None], after: Future[None] | None = None) -> Job:
        """A transfer of ``rows``, once what was asked of the compute tier so far is done."""
        return Job(key=key, size_bytes=rows.nbytes, run=run, mark=self._copies.mark(), after=after)

    def _begin_halo(self, slot: Slot, window: Tensor, now: Step) -> None:
        """Load what exists of a halo's first passes; what a step from ``now`` on makes follows when it is asked for."""
        name, block = slot.field, slot.block
        pull, producer = self._workload.published[name], self._producers.get(name)
        needed = self._workload.halo_counts(pull).needed

        def piece(owner: int, rows: Tensor) -> tuple[str, Job]:
            if pull.whole_blocks:
                return self._own(name, owner, rows)
            groups = self._workload.pack_groups(name, owner)
            group = next(g for g, receivers in enumerate(groups) if block in receivers)
            first_row = int(needed[groups[group].start : block, owner].sum())
            return self._blob(pack_part(name), owner, pack_key(name, owner, group), first_row, rows)

        def read(pieces: list[tuple[int, Tensor]]) -> list[Future[None]]:
            jobs: dict[str, list[Job]] = {}
            for owner, rows in pieces:
                tier, job = piece(owner, rows)
                jobs.setdefault(tier, []).append(job)
            return [self._transfers.submit(tier, "read", of_tier) for tier, of_tier in jobs.items()]

        stream = HaloStream(self._workload, pull, block, window, read)
        stream.start(lambda owner: producer is None or self._workload.step_index(producer, owner) < now.index)
        self._halos[name, block] = stream

    # Out

    def write_behind(self, step: Step, gather: Gather) -> None:
        """Start writing what this step made and later steps will load."""
        block = step.block
        for name in step.phase.writes:
            pack = self._memory.find("pack", name, block)
            if pack is not None:
                self._send(pack, name, block, gather)
            for index in (self._memory.find("own", name, block), self._memory.find("whole", name, -1)):
                if index is not None and self._plan.slots[index].spilled:
                    write = self._write(name, block, own_key(name, block), self._memory.rows(name, block))
                    self._memory.expect(index, write)

    def forget(self, step: Step) -> None:
        """Remove what this step was the last to read, where others can have its room; all of its reads have ended."""
        for stored in self._plan.forgotten.get(step.index, ()):
            tier = self._plan.tier_of(stored.part, stored.block)
            for key in self._keys(stored):
                self._writes.pop(key).result()
                self._storage.delete(tier, key)

    def _keys(self, stored: StoredPart) -> list[str]:
        """Of the blobs of a part at a block."""
        field = field_of(stored.part)
        if field == stored.part:
            return [own_key(field, stored.block)]
        return [
            pack_key(field, stored.block, group)
            for group, _ in enumerate(self._workload.pack_groups(field, stored.block))
        ]

    def _send(self, index: int, name: str, block: int, gather: Gather) -> None:
        """Keep the rows of hubs; put the others that blocks will pull next to each other, and write them."""
        halos = self._workload.halos[self._workload.published[name].topology]
        rows = self._memory.rows(name, block)
        sends = self._memory.rows(f"{self._workload.published[name].topology}/sends", block)
        stream = PackStream(
            self._memory.array(index),
            self._workload.blocks.rows_per_block,
            lambda group, packed: self._write(pack_part(name), block, pack_key(name, block, group), packed),
        )
        first = halos.hub_rows[block]
        if first:
            gather(rows, sends[:first], self._memory.hubs_of(name, block))

        def gather_next(out: Tensor) -> None:
            gather(rows, sends[first : first + len(out)], out)

        for receivers in self._workload.pack_groups(name, block):
            count = halos.pack_rows(block, receivers)
            self._memory.expect(index, stream.send(count, gather_next))
            first += count

    def _write(self, part: str, block: int, key: str, rows: Tensor) -> Future[None]:
        storage, tier = self._storage, self._plan.tier_of(part, block)
        sink = StoredBlob(storage=storage, tier=tier, key=key)
        job = self._job(key, rows, self._copies.out_of(rows, sink))
        write = self._transfers.submit(tier, "write", [job])
        self._writes[key] = write
        return write
