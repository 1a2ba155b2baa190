"""An epoch of a frozen plan as discrete events: what the executor will do, and when.

The main thread runs step after step: it begins the loads that are due, waits for what the step needs, computes, hands
over what is to be written, and waits for what has to be written by then. Each tier has a thread that reads and one that
writes, each doing one job at a time in the order they were given (``runtime/transfers.py``). A halo in more than two
passes is loaded while the step runs, but for the first two; packs in more than two groups are written likewise.

Shape legend: S steps, K phases.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np

from flexgnn.core.plan.cost import Rates, step_seconds
from flexgnn.core.plan.traffic import Traffic
from flexgnn.core.plan.workload import Workload
from flexgnn.core.tier import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Timeline:
    """When steps happen, in seconds from the start of an epoch."""

    starts: Array
    """float64 [S]."""
    ready: Array
    """float64 [S]: when what the step needs is there."""
    ends: Array
    """float64 [S]: what the step waits for at its end included."""

    def phase_seconds(self, workload: Workload) -> list[float]:
        """From the start of each phase to its end [K]."""
        bounds = [(workload.first_step(phase), workload.last_step(phase)) for phase in workload.phases]
        return [float(self.ends[last] - self.starts[first]) for first, last in bounds]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A transfer, or the part of it that is under way beside its step."""

    channel: int
    seconds: float
    part: str
    due: int
    """The step before which it must be done, if it reads, or by the end of which, if it writes or ``beside``."""
    beside: bool = False


def simulate(workload: Workload, traffic: Traffic, rates: Rates) -> Timeline:
    """Run the epoch of ``traffic`` on a machine of ``rates``."""
    work = _work(workload, traffic, rates)
    loads, writes = _jobs(traffic, rates)
    free = [0.0] * len(traffic.channels)
    written: dict[str, float] = defaultdict(float)
    needed: dict[int, float] = defaultdict(float)
    due: dict[int, float] = defaultdict(float)
    times = np.zeros((3, len(work)))
    now = 0.0
    for step in range(len(work)):
        times[0, step] = now
        for job in loads[step]:
            free[job.channel] = max(free[job.channel], now, written[job.part]) + job.seconds
            before = due if job.beside else needed
            before[job.due] = max(before[job.due], free[job.channel])
        now = max(now, needed.pop(step, 0.0))
        times[1, step] = now
        now += work[step]
        for job in writes[step]:
            free[job.channel] = max(free[job.channel], now) + job.seconds
            written[job.part] = free[job.channel]
            due[job.due] = max(due[job.due], free[job.channel])
        now = max(now, due.pop(step, 0.0))
        times[2, step] = now
    return Timeline(starts=times[0], ready=times[1], ends=times[2])


def _work(workload: Workload, traffic: Traffic, rates: Rates) -> Array:
    """float64 [S]: seconds that the processor is busy with each step, handling of its transfers included."""
    work = np.concatenate(
        [step_seconds(rates.compute, workload, phase)[list(workload.visits(phase))] for phase in workload.phases]
    )
    for moves in traffic.transfers:
        np.add.at(work, moves.step, traffic.costs(moves, rates).handling)
    return work


def _jobs(traffic: Traffic, rates: Rates) -> tuple[dict[int, list[_Job]], dict[int, list[_Job]]]:
    """Loads by the step at whose start they are asked for, and writes by the step at whose end they are."""
    loads: dict[int, list[_Job]] = defaultdict(list)
    writes: dict[int, list[_Job]] = defaultdict(list)
    for moves in traffic.transfers:
        seconds = traffic.costs(moves, rates).seconds
        columns = (moves.channel, moves.step, moves.begin, moves.end, seconds, moves.awaited_share)
        for channel, step, begin, end, total, share in zip(*(column.tolist() for column in columns), strict=True):
            first = _Job(channel=channel, part=moves.part, seconds=share * total, due=step)
            rest = _Job(channel=channel, part=moves.part, seconds=(1 - share) * total, due=step, beside=True)
            if moves.direction == "read":
                loads[begin].append(first)
                loads[step].append(rest)
            else:
                writes[step] += [rest, replace(first, due=end)]
    return loads, writes
