"""Where the slots of a plan lie in the one buffer of the compute tier, and the memory that this takes in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexgnn.core.plan.decisions import Decisions
from flexgnn.core.plan.packing import Effort, pack
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.setup_memory import setup_lists_bytes
from flexgnn.core.plan.slots import SlotBuilder, SlotGroup, live_bytes
from flexgnn.core.plan.workload import Workload
from flexgnn.core.tier import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Arena:
    """Slots with their places. Shape legend: n slots, group by group."""

    groups: tuple[SlotGroup, ...]
    offsets: Array
    """int64 [n], in bytes."""
    size_bytes: int
    workspace_bytes: int
    """Beside it: activations and gradients of the tiles in work."""
    setup_bytes: int
    """Needed once, before the first step: what the setup leaves in slots, and works in unless that is elsewhere."""

    @property
    def peak_bytes(self) -> int:
        """The most memory that is in use at any moment."""
        return max(self.size_bytes + self.workspace_bytes, self.setup_bytes)

    def beyond(self, budget_bytes: int) -> tuple[list[Array], list[Array]]:
        """int64: of each group, the slots that end where ``budget_bytes`` would not reach, and by how much."""
        over = self.offsets + column(self.groups, "size_bytes") + self.workspace_bytes - budget_bytes
        bounds = np.cumsum([len(group) for group in self.groups])[:-1]
        of_groups = np.split(over, bounds)
        return [np.flatnonzero(part > 0) for part in of_groups], [part[part > 0] for part in of_groups]


def lay_out(problem: PlanningProblem, workload: Workload, decisions: Decisions, effort: Effort = "full") -> Arena:
    """The arena of ``decisions``, in no more than the budget if a place for everything is found there.

    What is found with little effort is found with more.
    """
    groups = SlotBuilder(workload, decisions).build()
    sizes, first, last = (column(groups, name) for name in ("size_bytes", "first_step", "last_step"))
    enough_bytes = problem.budget_bytes - workload.workspace_bytes
    offsets, size_bytes = pack(sizes, first, last, problem.alignment_bytes, enough_bytes, effort)
    kept = int(live_bytes(groups, len(workload.steps))[0])
    return Arena(
        groups=tuple(groups),
        offsets=offsets,
        size_bytes=size_bytes,
        workspace_bytes=workload.workspace_bytes,
        setup_bytes=kept if problem.separate else kept + setup_lists_bytes(workload, groups),
    )


def column(groups: Sequence[SlotGroup], name: str) -> Array:
    """One column of all slots."""
    values: Array = np.concatenate([getattr(group, name) for group in groups])
    return values
