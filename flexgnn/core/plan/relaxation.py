"""Filling the gaps of a sketch as a linear program: with whole gaps an optimal plan, with parts of gaps a lower bound.

Variables: ``x[g]`` whether gap g is filled, ``w[n]`` whether the write of tensor n is saved, ``m[s]`` the memory that
filled gaps take at step s, ``t[k]`` the seconds of phase k. The memory is a running balance, so that a gap has an entry
where it begins and one where it ends, not one for each of its steps (as the interval variables of MOCCASIN, Bartan et
al. 2023). Channels overlap within a phase, so that t[k] is at least what each of them is busy::

    minimise   sum_k t[k]
    t[k] + sum of what x and w save of channel c in phase k >= busy[k, c]      for all k, c
    w[n] <= x[g]                                                               for all gaps g of tensor n
    m[s] = m[s-1] + sizes of gaps that begin at s - sizes of gaps that end before s,   0 <= m[s] <= room[s]
"""

from __future__ import annotations

from dataclasses import dataclass

import highspy
import numpy as np
from scipy import sparse

from flexgnn.core.plan.sketch import Sketch
from flexgnn.core.tier import Array

_MEBI = 2.0**20


@dataclass(frozen=True, kw_only=True, eq=False)
class Filling:
    """A solution."""

    kept: Array
    """bool [G]."""
    bound_seconds: float
    """No filling of the sketch is faster."""
    proven: bool
    """Whether this one is optimal, within the gap asked for."""


def relaxed_seconds(sketch: Sketch) -> float:
    """Epoch seconds with ``sketch`` if parts of tensors could be kept: no filling is faster."""
    solver = _solver(sketch, whole=False)
    solver.run()
    return max(float(solver.getInfo().objective_function_value), 0.0) / 1e3


def relaxed_bytes(sketch: Sketch) -> float:
    """Bytes that an epoch moves with ``sketch`` if parts of tensors could be kept: no filling moves less."""
    gaps = sketch.gaps
    saved = np.zeros(len(gaps) + len(gaps.tensor_counts))
    for rows, first in ((gaps.savings, 0), (gaps.writes, len(gaps))):
        np.add.at(saved, first + rows[:, 0].astype(int), rows[:, 4])
    solver = _solver(sketch, whole=False)
    columns = np.arange(solver.getNumCol(), dtype=np.int32)
    costs = np.zeros(len(columns))
    costs[: len(saved)] = -saved / _MEBI
    solver.changeColsCost(len(columns), columns, costs)
    solver.run()
    return max(sketch.moved_bytes + float(solver.getInfo().objective_function_value) * _MEBI, 0.0)


def optimal_filling(sketch: Sketch, start: Array, *, time_limit: float, relative_gap: float) -> Filling:
    """The best filling that is found within ``time_limit`` seconds.

    Args:
        sketch: what to fill.
        start: bool [G], a filling to start from.
        time_limit: in seconds.
        relative_gap: from the bound, at which to stop.
    """
    solver = _solver(sketch, whole=True)
    solver.setOptionValue("time_limit", time_limit)
    solver.setOptionValue("mip_rel_gap", relative_gap)
    solver.setSolution(len(sketch.gaps), np.arange(len(sketch.gaps), dtype=np.int32), start.astype(np.float64))
    solver.run()
    info = solver.getInfo()
    values = np.array(solver.getSolution().col_value[: len(sketch.gaps)])
    kept = values > 0.5 if len(values) and info.primal_solution_status == 2 else start
    status = solver.getModelStatus()
    return Filling(
        kept=kept,
        bound_seconds=max(float(info.mip_dual_bound), 0.0) / 1e3,
        proven=status == highspy.HighsModelStatus.kOptimal,
    )


def _solver(sketch: Sketch, *, whole: bool) -> highspy.Highs:
    """HiGHS with the program of ``sketch``, in milliseconds and MiB. Columns: x, w, m, t."""
    gaps, num_phases = sketch.gaps, len(sketch.busy)
    num_gaps, num_tensors, num_steps = len(gaps), len(gaps.tensor_counts), len(sketch.room)
    first = np.cumsum([0, num_gaps, num_tensors, num_steps, num_phases])
    x, w, m, t = first[:4]
    busy = _busy_rows(sketch, x, w, t, first[4])
    writes = _write_rows(sketch, w, first[4])
    memory = _memory_rows(sketch, m, first[4])
    rows = sparse.vstack([busy[0], writes, memory]).tocsr()
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = int(first[4]), rows.shape[0]
    program.col_cost_ = np.concatenate([np.zeros(t), np.ones(num_phases)])
    program.col_lower_ = np.zeros(first[4])
    ones, room = np.ones(num_gaps + num_tensors), np.maximum(sketch.room, 0) / _MEBI
    program.col_upper_ = np.concatenate([ones, room, np.full(num_phases, highspy.kHighsInf)])
    program.row_lower_ = np.concatenate([busy[1], np.full(writes.shape[0], -highspy.kHighsInf), np.zeros(num_steps)])
    program.row_upper_ = np.concatenate(
        [np.full(len(busy[1]), highspy.kHighsInf), np.zeros(writes.shape[0] + num_steps)]
    )
    program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    program.a_matrix_.start_, program.a_matrix_.index_ = rows.indptr, rows.indices
    program.a_matrix_.value_ = rows.data
    if whole:
        kinds = [highspy.HighsVarType.kInteger] * num_gaps
        program.integrality_ = kinds + [highspy.HighsVarType.kContinuous] * int(first[4] - num_gaps)
    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.setOptionValue("log_to_console", False)
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.passModel(program)
    return solver


def _busy_rows(sketch: Sketch, x: int, w: int, t: int, columns: int) -> tuple[sparse.csr_matrix, Array]:
    """A row for every phase and channel, or, where channels don't overlap, for every phase; and lower limits."""
    gaps, (num_phases, num_channels) = sketch.gaps, sketch.busy.shape
    per_phase = num_channels if sketch.overlapped else 1
    limits = (sketch.busy if sketch.overlapped else sketch.busy.sum(axis=1)).reshape(-1) * 1e3
    saved = np.concatenate([gaps.savings + np.array([x, 0, 0, 0, 0]), gaps.writes + np.array([w, 0, 0, 0, 0])])
    phase, channel = saved[:, 1].astype(int), saved[:, 2].astype(int)
    row = phase * per_phase + (channel if sketch.overlapped else 0)
    totals = np.arange(num_phases * per_phase)
    entries = (
        np.concatenate([saved[:, 3] * 1e3, np.ones(len(totals))]),
        (np.concatenate([row, totals]), np.concatenate([saved[:, 0].astype(int), t + totals // per_phase])),
    )
    return sparse.csr_matrix(entries, shape=(len(totals), columns)), limits


def _write_rows(sketch: Sketch, w: int, columns: int) -> sparse.csr_matrix:
    gaps, count = sketch.gaps, np.arange(len(sketch.gaps))
    entries = np.concatenate([np.ones(len(count)), -np.ones(len(count))])
    place = (np.tile(count, 2), np.concatenate([w + gaps.tensors, count]))
    return sparse.csr_matrix((entries, place), shape=(len(count), columns))


def _memory_rows(sketch: Sketch, m: int, columns: int) -> sparse.csr_matrix:
    gaps, num_steps = sketch.gaps, len(sketch.room)
    owner, begin, end = gaps.spans.T
    sizes, inside = gaps.sizes[owner] / _MEBI, end < num_steps
    steps = np.arange(num_steps)
    values = [np.ones(num_steps), -np.ones(num_steps - 1), -sizes, sizes[inside]]
    rows = [steps, steps[1:], begin, end[inside]]
    places = [m + steps, m + steps[:-1], owner, owner[inside]]
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(places)))
    return sparse.csr_matrix(entries, shape=(num_steps, columns))
