"""The frozen plan: decisions, what follows from them, and what they are projected to cost."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flexgnn.core.errors import BudgetError, PlanError
from flexgnn.core.plan.arena import Arena, lay_out
from flexgnn.core.plan.cost import PhaseSeconds
from flexgnn.core.plan.decisions import BY_HALOS, WHOLE_FOR_A_PHASE, Decisions
from flexgnn.core.plan.placement import StorageTier, StoredPart, stored_parts
from flexgnn.core.plan.placing import held_bytes
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.simulation import Timeline, simulate
from flexgnn.core.plan.slices import SLICE_CHOICES
from flexgnn.core.plan.slots import Slot, live_bytes
from flexgnn.core.plan.traffic import Traffic
from flexgnn.core.plan.workload import Phase, Source, Workload
from flexgnn.core.sizes import format_size

if TYPE_CHECKING:
    from flexgnn.core.plan.bound import LowerBound

FORMAT_VERSION = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What a run will do. Made by :func:`freeze`; the executor follows it to the letter."""

    problem: PlanningProblem
    """What was asked."""
    planner: str
    compute_tier: str
    storage_tiers: tuple[StorageTier, ...]
    """What the run may write to, the first for all that the decisions don't place."""
    budget_bytes: int
    """Of the compute tier."""
    graph: str
    """Fingerprint of the graph it was made for."""
    workload: Workload
    decisions: Decisions
    arena: Arena
    """The one buffer of the compute tier that all slots live in, and where."""
    phase_seconds: tuple[PhaseSeconds, ...]
    """How long each phase keeps each channel busy."""
    traffic: Traffic
    """What an epoch moves."""

    @property
    def projected_peak_bytes(self) -> int:
        """The most memory that the compute tier will hold at any moment."""
        return self.arena.peak_bytes

    @property
    def projected_peaks(self) -> dict[str, int]:
        """The most that each tier in use will hold."""
        return {self.compute_tier: self.projected_peak_bytes, **self.stored_bytes}

    @property
    def capacities(self) -> dict[str, int | None]:
        """What each tier may hold."""
        return {self.compute_tier: self.budget_bytes, **{t.name: t.capacity_bytes for t in self.storage_tiers}}

    @cached_property
    def traffic_bytes(self) -> dict[str, int]:
        """What an epoch moves, by channel."""
        return self.traffic.bytes_by_channel()

    @cached_property
    def timeline(self) -> Timeline:
        """An epoch, simulated."""
        return simulate(self.workload, self.traffic, self.problem.rates)

    @cached_property
    def projected_phase_seconds(self) -> list[float]:
        """Of each phase, as simulated."""
        return self.timeline.phase_seconds(self.workload)

    @property
    def projected_epoch_seconds(self) -> float:
        """The training of an epoch, as simulated; where there is none, an evaluation."""
        seconds = list(zip(self.workload.phases, self.projected_phase_seconds, strict=True))
        training = [total for phase, total in seconds if phase.training]
        return sum(training or [total for _, total in seconds])

    @cached_property
    def lower_bound(self) -> LowerBound:
        """What no plan can beat, whatever stays where; found when it is first asked for, which takes seconds."""
        # The search for it makes plans itself.
        from flexgnn.core.plan.bound import find_lower_bound

        return find_lower_bound(self.problem)

    @property
    def overlapped_seconds(self) -> float:
        """All phases, evaluation included, with perfect overlap in each: what planners minimise, and bounds are of."""
        return sum(seconds.total for seconds in self.phase_seconds)

    @property
    def num_blocks(self) -> int:
        return self.workload.blocks.count

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """All slots, one by one."""
        return tuple(slot for group in self.arena.groups for slot in group.slots())

    @cached_property
    def stored_bytes(self) -> dict[str, int]:
        """The most that the run has at one time on each storage tier that it uses, if only empty tensors."""
        tiers = {tier.name: tier for tier in self.storage_tiers}
        return {name: held_bytes(parts, tiers[name], self.workload) for name, parts in self._parts_of_tiers.items()}

    @cached_property
    def _parts_of_tiers(self) -> dict[str, list[StoredPart]]:
        found: dict[str, list[StoredPart]] = {}
        for stored in stored_parts(self.workload, self.arena.groups):
            found.setdefault(self.tier_of(stored.part, stored.block), []).append(stored)
        return found

    @cached_property
    def forgotten(self) -> dict[int, tuple[StoredPart, ...]]:
        """By step: what is removed at its end from tiers whose room others can have."""
        found: dict[int, tuple[StoredPart, ...]] = {}
        for tier in self.storage_tiers:
            for stored in self._parts_of_tiers.get(tier.name, ()) if tier.in_host_memory else ():
                if stored.written:
                    found[stored.last_step] = (*found.get(stored.last_step, ()), stored)
        return found

    def tier_of(self, part: str, block: int) -> str:
        """The storage tier of a part at a block."""
        placed = self.decisions.placed.get(part)
        return self.storage_tiers[0].name if placed is None else placed[block]

    @cached_property
    def staged(self) -> tuple[tuple[str, int], ...]:
        """(field, block) that the setup computes and leaves on the storage tier, since steps load it from there."""
        fields = self.workload.fields
        loads = {(s.field, s.block) for s in self.slots if s.loaded and s.role == "own" and s.first_step >= 0}
        return tuple(sorted(key for key in loads if fields[key[0]].source is Source.SETUP))

    @cached_property
    def staged_packs(self) -> tuple[str, ...]:
        """Fields of the store whose packs the setup writes."""
        workload = self.workload
        halos = {slot.field for slot in self.slots if slot.role == "halo"}
        packed = [name for name in halos if not workload.published[name].whole_blocks]
        return tuple(sorted(name for name in packed if workload.fields[name].source is Source.STORE))

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON: the decisions, and what they are projected to do."""
        decisions = asdict(self.decisions)
        decisions["kept"] = sorted(decisions["kept"])
        decisions["recomputed"] = {kind: sorted(found) for kind, found in decisions["recomputed"].items()}
        document = {
            "flexgnn_plan": FORMAT_VERSION,
            "planner": self.planner,
            "graph": self.graph,
            "program": self.workload.program.signature,
            "storage_dtype": self.problem.storage_dtype,
            "compute_tier": self.compute_tier,
            "budget_bytes": self.budget_bytes,
            "capacity_bytes": self.capacities,
            "blocks": self.num_blocks,
            "tile_rows": self.workload.blocks.tile_rows,
            "decisions": decisions,
            "projected": self.summary(),
        }
        Path(path).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    def summary(self) -> dict[str, Any]:
        """What rewrites changed, and projected seconds, peak and traffic, as plain data."""
        return {
            "rewrites": list(self.workload.program.rewrites),
            "epoch_seconds": self.projected_epoch_seconds,
            "overlapped_seconds": self.overlapped_seconds,
            "bound": asdict(self.lower_bound) if "lower_bound" in self.__dict__ else None,
            "peak_bytes": self.projected_peaks,
            "traffic_bytes": self.traffic_bytes,
            "phases": [
                {
                    "kind": phase.kind,
                    "stage": phase.stage,
                    "column_slice": phase.column_slice,
                    "seconds": total,
                    **asdict(seconds),
                }
                for phase, total, seconds in zip(
                    self.workload.phases, self.projected_phase_seconds, self.phase_seconds, strict=True
                )
            ],
        }


def freeze(problem: PlanningProblem, decisions: Decisions, planner: str) -> Plan:
    """Everything that follows from ``decisions``, validated against the budget.

    Raises:
        PlanError: if the decisions don't fit the model or the graph.
        BudgetError: if the plan needs more than the budget; the message names the worst step.
    """
    blocks = problem.blocks(decisions.tiles_per_block)
    _check_numbers(decisions)
    by_blocks = frozenset(name for name, access in decisions.access.items() if access == "blocks")
    workload = problem.workload(blocks, decisions.recomputed, decisions.hub_blocks, by_blocks, decisions.column_slices)
    _check(workload, decisions, {tier.name for tier in problem.storage_tiers})
    arena = lay_out(problem, workload, decisions)
    traffic = Traffic(workload, arena.groups, problem.storage_tiers, decisions)
    plan = Plan(
        problem=problem,
        planner=planner,
        compute_tier=problem.compute_tier,
        storage_tiers=problem.storage_tiers,
        budget_bytes=problem.budget_bytes,
        graph=problem.store.fingerprint,
        workload=workload,
        decisions=decisions,
        arena=arena,
        phase_seconds=tuple(traffic.phase_seconds(problem.rates, overlapped=decisions.lookahead > 0)),
        traffic=traffic,
    )
    _check_capacities(plan)
    if plan.projected_peak_bytes > problem.budget_bytes:
        raise BudgetError(_over_budget(plan), plan.projected_peak_bytes)
    return plan


def _check_numbers(decisions: Decisions) -> None:
    if decisions.hub_blocks not in (0, *(2**power for power in range(1, 31))):
        raise PlanError(
            f"The plan's hubs are nodes that {decisions.hub_blocks} blocks pull from; 0 and powers of two are accepted."
        )
    if decisions.column_slices not in SLICE_CHOICES:
        raise PlanError(
            f"The plan pulls in {decisions.column_slices} slices of columns; accepted are "
            f"{', '.join(map(str, SLICE_CHOICES))}."
        )


def _check(workload: Workload, decisions: Decisions, tiers: set[str]) -> None:
    missing = workload.published.keys() - decisions.access.keys()
    if missing:
        raise PlanError(f"The plan does not say how blocks reach {', '.join(sorted(missing))}.")
    for name, pull in workload.published.items():
        access, source = decisions.access[name], workload.fields[name].source
        if name in workload.whole:
            if access in BY_HALOS or (access == "ahead" and source is not Source.STEP):
                raise PlanError(f"The plan pulls {name} with access {access}; a convolution needs all of its rows.")
        elif access in WHOLE_FOR_A_PHASE and source is not Source.STEP:
            raise PlanError(f"The plan loads {name} whole for each phase, but no step of an epoch writes it.")
        if access in BY_HALOS and pull.in_slices:
            raise PlanError(f"The plan pulls {name} by halos; slices of columns are loaded, ahead, resident or held.")
    if decisions.lookahead not in (0, 1):
        raise PlanError(f"The plan looks ahead by {decisions.lookahead} steps; 0 and 1 are accepted.")
    for part, placed in decisions.placed.items():
        if len(placed) != workload.blocks.count or not set(placed) <= tiers:
            raise PlanError(f"The plan puts {part} on {sorted(set(placed))}; the run has {', '.join(sorted(tiers))}.")


def _check_capacities(plan: Plan) -> None:
    for tier in plan.problem.tiers_for(plan.workload, plan.arena.groups):
        held = plan.stored_bytes.get(tier.name, 0)
        if tier.capacity_bytes is not None and held > tier.capacity_bytes:
            raise BudgetError(
                f"The plan puts {format_size(held)} on {tier.name}, which has room for "
                f"{format_size(tier.capacity_bytes)}: give it more, or give more --device-memory."
            )


def _over_budget(plan: Plan) -> str:
    live = live_bytes(plan.arena.groups, len(plan.workload.steps))[1:]
    workspace = np.array([step.phase.workspace_bytes for step in plan.workload.steps])
    worst = plan.workload.steps[int(np.argmax(live + workspace))]
    return (
        f"The plan needs {format_size(plan.projected_peak_bytes)} of {plan.compute_tier}, most of it in "
        f"{describe(worst.phase)} of block {worst.block}; the budget is {format_size(plan.budget_bytes)}."
    )


def describe(phase: Phase) -> str:
    """A phase in words: ``"backward of stage 1"``, ``"forward of stage 1, slice 2"``."""
    return describe_phase(phase.kind, phase.stage, phase.column_slice)


def describe_phase(kind: str, stage: int, column_slice: int | None) -> str:
    """Likewise, from what events say of a phase; slices are counted from 1."""
    return f"{kind} of stage {stage}" + ("" if column_slice is None else f", slice {column_slice + 1}")
