"""The compute tier during a run: one buffer, in which every slot of the plan has its place."""

from __future__ import annotations

from concurrent.futures import Future

import torch
from torch import Tensor

from flexgnn.core.compute import ComputeBackend
from flexgnn.core.plan.plan import Plan
from flexgnn.core.plan.slots import SETUP_STEP, Role, Slot
from flexgnn.core.program.bfloat16 import stored_dtype
from flexgnn.core.runtime.ledger import Ledger

SlotKey = tuple[Role, str, int]


class Memory:
    """Opens slots when their stay begins and closes them when it ends; gives out tensors over them meanwhile."""

    def __init__(self, plan: Plan, backend: ComputeBackend) -> None:
        self._plan = plan
        self._arena = backend.allocate(max(plan.arena.size_bytes, 1))
        self.ledger = Ledger(plan.compute_tier, plan.budget_bytes)
        self._open: dict[SlotKey, int] = {}
        self._pending: dict[int, list[Future[None]]] = {}

    def release(self) -> None:
        """Let go of the buffer, which an error with this object in its traceback would keep."""
        self._arena = self._arena.new_empty(0)

    def open(self, index: int) -> Tensor:
        """Begin the stay of slot ``index``; its memory, shaped as the tensor."""
        slot = self._plan.slots[index]
        self.ledger.take(slot.size_bytes, f"{slot.role} {slot.field}")
        self._open[slot.role, slot.field, slot.block] = index
        return self.array(index)

    def close(self, index: int) -> None:
        """End the stay of slot ``index``, once everything that was expected of it has happened."""
        slot = self._plan.slots[index]
        self.settle(index)
        del self._open[slot.role, slot.field, slot.block]
        self.ledger.give_back(slot.size_bytes)

    def expect(self, index: int, transfer: Future[None]) -> None:
        """Tie ``transfer``, to or from slot ``index``, to it."""
        self._pending.setdefault(index, []).append(transfer)

    def settle(self, index: int) -> None:
        """Wait for all transfers tied to slot ``index``; raises what a transfer raised."""
        for transfer in self._pending.pop(index, []):
            transfer.result()

    def find(self, role: Role, field: str, block: int) -> int | None:
        """The slot that is open under that name now."""
        return self._open.get((role, field, block))

    def rows(self, field: str, block: int) -> Tensor:
        """A field at a block's rows, from a slot of its own or of the whole field; loads have ended."""
        index = self.find("own", field, block)
        if index is not None:
            return self._settled(index)
        blocks = self._plan.workload.blocks
        return self.whole(field)[blocks.start(block) : blocks.stop(block)]

    def whole(self, field: str) -> Tensor:
        """A field at all rows."""
        return self._settled(self._open["whole", field, -1])

    def hubs(self, field: str) -> Tensor:
        """A packed field at the hubs of all blocks."""
        return self.array(self._open["hubs", field, -1])

    def hubs_of(self, field: str, block: int) -> Tensor:
        """A packed field at the hubs of ``block``."""
        workload = self._plan.workload
        hub_rows = workload.halos[workload.published[field].topology].hub_rows
        first = sum(hub_rows[:block])
        return self.hubs(field)[first : first + hub_rows[block]]

    def exchanged(self, role: Role, field: str, block: int) -> Tensor:
        """A halo or pack."""
        return self._settled(self._open[role, field, block])

    def _settled(self, index: int) -> Tensor:
        if self._plan.slots[index].loaded:
            self.settle(index)
        return self.array(index)

    def array(self, index: int) -> Tensor:
        """The memory of slot ``index``, shaped as the tensor, whether or not its load has ended."""
        slot = self._plan.slots[index]
        field = self._plan.workload.fields[slot.field]
        offset = int(self._plan.arena.offsets[index])
        flat = self._arena[offset : offset + slot.size_bytes]
        if slot.role == "cursor":
            return flat.view(torch.int64)
        if slot.role == "partial":
            return flat.view(torch.float32).reshape(-1, self._plan.workload.published[slot.field].width)
        flat = flat.view(stored_dtype(field.dtype))
        return flat if field.width is None else flat.reshape(-1, field.width)


def opening_and_closing(slots: tuple[Slot, ...], steps: range) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Slots (by index) that open at each of ``steps``, and that close at its end.

    Stays that reach beyond ``steps`` are cut; those that begin with the setup are in neither.
    """
    opening: dict[int, list[int]] = {step: [] for step in steps}
    closing: dict[int, list[int]] = {step: [] for step in steps}
    for index, slot in enumerate(slots):
        if slot.first_step != SETUP_STEP and slot.first_step < steps.stop and slot.last_step >= steps.start:
            opening[max(slot.first_step, steps.start)].append(index)
            closing[min(slot.last_step, steps.stop - 1)].append(index)
    return opening, closing
