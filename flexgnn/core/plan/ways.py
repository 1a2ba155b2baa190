"""The ways in which other blocks can reach the fields that don't stay whole, and what follows for a workload."""

from __future__ import annotations

from dataclasses import dataclass

from flexgnn.core.plan.blocks import Blocks
from flexgnn.core.plan.decisions import BY_HALOS, WHOLE_FOR_A_PHASE, Access, Decisions, Recomputed
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.slices import useful_slices
from flexgnn.core.plan.workload import Source, Workload

_FEW_BLOCKS = 8
"""Whole blocks are read as halos only where there are no more than these."""


@dataclass(frozen=True)
class Way:
    """How other blocks reach all fields that don't stay whole."""

    access: Access
    hub_blocks: int = 0
    column_slices: int = 1

    def of(self, workload: Workload) -> dict[str, Access]:
        """By published field. What no step writes is not loaded whole, but packed; unless it has to be whole."""
        return {name: self._of_field(workload, name) for name in workload.published}

    def _of_field(self, workload: Workload, name: str) -> Access:
        stored = workload.fields[name].source is not Source.STEP
        if name in workload.whole:
            return "loaded" if self.access in BY_HALOS or (self.access == "ahead" and stored) else self.access
        return "packed" if self.access in WHOLE_FOR_A_PHASE and stored else self.access


def all_ways(problem: PlanningProblem, blocks: Blocks) -> list[Way]:
    """Every way to choose from over ``blocks``."""
    if blocks.count == 1:
        return [Way("held")]
    ways = [Way("packed", hub_blocks) for hub_blocks in _hub_choices(problem, blocks)]
    for slices in useful_slices(problem.program):
        ways += [Way("ahead", 0, slices), Way("loaded", 0, slices)]
    return [*ways, Way("blocks")] if blocks.count <= _FEW_BLOCKS else ways


def few_ways(problem: PlanningProblem, blocks: Blocks) -> list[list[Way]]:
    """Of those, the few that say most: of each list the first that fits is enough."""
    ways = all_ways(problem, blocks)
    packed = [way for way in ways if way.access == "packed"]
    # Narrower slices than have to be are slower.
    others = [[way for way in ways if way.access == access] for access in ("held", "ahead", "loaded", "blocks")]
    return [*([way] for way in dict.fromkeys([*packed[:1], *packed[len(packed) // 2 :][:1]])), *others]


def workload_of(problem: PlanningProblem, blocks: Blocks, recomputed: Recomputed, way: Way) -> Workload:
    """The workload in which other blocks reach all fields as ``way`` says."""
    workload = problem.workload(blocks, recomputed, way.hub_blocks, column_slices=way.column_slices)
    if way.access != "blocks":
        return workload
    return problem.workload(blocks, recomputed, way.hub_blocks, frozenset(workload.published) - workload.whole)


def least_bytes(workload: Workload, way: Way) -> int:
    """No decisions need less memory: workspace, and what a phase pulls from that has to be whole."""
    fields, whole = workload.fields, {n for n, access in way.of(workload).items() if access not in BY_HALOS}
    pulled = [sum(int(fields[n].sizes.sum()) for n in phase.pulled if n in whole) for phase in workload.phases]
    return workload.workspace_bytes + max(pulled)


def spilling(workload: Workload, lookahead: int, recomputed: Recomputed, way: Way) -> Decisions:
    """Nothing stays that could leave without making room."""
    access = way.of(workload)
    # Loading the first slice ahead would take the room that it needs from when it is made.
    at_once = [name for name, how in access.items() if how == "ahead" and _made_right_before(workload, name)]
    access |= dict.fromkeys(at_once, "resident")
    return Decisions(
        tiles_per_block=workload.blocks.tiles_per_block,
        lookahead=lookahead,
        access=access,
        hub_blocks=way.hub_blocks,
        column_slices=way.column_slices,
        recomputed=recomputed,
    )


def _hub_choices(problem: PlanningProblem, blocks: Blocks) -> list[int]:
    """No hubs, and the powers of two that make different nodes hubs."""
    found: dict[tuple[int, ...], int] = {}
    for hub_blocks in (0, *(2**power for power in range(1, (blocks.count - 1).bit_length()))):
        hubs = tuple(halos.num_hubs for halos in problem.halos(blocks, hub_blocks).values())
        found.setdefault(hubs, hub_blocks)
    return sorted(found.values())


def _made_right_before(workload: Workload, name: str) -> bool:
    """Whether the phase that makes a field is followed by the one phase that pulls from it."""
    pullers = [phase.index for phase in workload.phases if name in phase.pulled]
    return pullers == [workload.producers()[name].index + 1]
