"""Computes the aggregations of features that a program reads from the store, unless an earlier run did.

An aggregation is a program of its own, planned by the same planner under the same budget as the training. Where all
columns at once would take too much memory, they are computed some at a time: a column's sums need no other column.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from flexgnn.core.errors import BudgetError, StoreError
from flexgnn.core.graph.array_writer import ArrayWriter
from flexgnn.core.graph.folded import FoldedArray
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plan.decisions import Decisions
from flexgnn.core.plan.plan import freeze
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.planner import Planner
from flexgnn.core.program.folding import folding_program
from flexgnn.core.program.program import Folded, Program
from flexgnn.core.runtime.events import DamageFound, Event, FoldingStarted, Listener, ScratchRemoved, TierOpened
from flexgnn.core.runtime.running import Runner
from flexgnn.core.sizes import format_size

_FEWER = 4
"""So many times fewer columns are tried when a budget is too small."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    """An aggregation that is yet to be computed, and how."""

    folded: Folded
    problem: PlanningProblem
    columns: int
    """At once."""
    decisions: Decisions
    """The same for each group of columns."""


class Folding:
    """The folded aggregations of one program over one graph."""

    def __init__(self, program: Program, store: GraphStore, planner: Planner) -> None:
        self._program, self._store, self._planner = program, store, planner
        self._arrays = {f: FoldedArray(store, f.name, program.widths[f.name]) for f in program.folded}
        self._tasks: list[_Task] = []

    def obstacle(self) -> str | None:
        """Why an aggregation that is not there yet can't be kept, in a sentence; None: all can."""
        for array in self._arrays.values():
            if array.find() is None and array.folder() is None:
                return f"Neither {array.places} can be written, with {format_size(array.size_bytes)} of room."
        return None

    def prepare(self, problem: PlanningProblem) -> None:
        """Attach to the store what is there already, and plan the rest under the budget of ``problem``.

        Raises:
            BudgetError: if it is too small for a single column.
        """
        self._tasks = []
        for folded, array in self._arrays.items():
            found = array.find()
            if found is None:
                self._tasks.append(self._planned(folded, problem))
            else:
                self._store.attach(folded.array, found)

    def complete(self, runner: Runner, listener: Listener) -> None:
        """Compute what was planned, and attach it to the store.

        Raises:
            StoreError: if it can't be written.
        """
        for task in self._tasks:
            array = self._arrays[task.folded]
            folder = array.folder()
            if folder is None:
                raise StoreError(str(self.obstacle()))
            with array.written_in(folder) as writer:
                if writer is not None:
                    listener(FoldingStarted(name=task.folded.name, size_bytes=array.size_bytes, location=str(folder)))
                    self._compute(task, writer, runner, listener)
            written = array.find()
            if written is None:
                raise StoreError(f"The aggregated features that were written to {folder} are gone again.")
            self._store.attach(task.folded.array, written)
        self._tasks = []

    def _planned(self, folded: Folded, problem: PlanningProblem) -> _Task:
        columns = self._program.widths[folded.name]
        while True:
            try:
                decisions = self._planner.decide(self._part(folded, problem, range(columns)))
            except BudgetError:
                if columns == 1:
                    raise
                columns = max(columns // _FEWER, 1)
            else:
                return _Task(folded=folded, problem=problem, columns=columns, decisions=decisions)

    def _part(self, folded: Folded, problem: PlanningProblem, columns: range) -> PlanningProblem:
        return problem.evaluating(folding_program(self._program, folded, columns))

    def _compute(self, task: _Task, writer: ArrayWriter, runner: Runner, listener: Listener) -> None:
        width = self._program.widths[task.folded.name]
        for start in range(0, width, task.columns):
            # The last group is as wide as the others, so that the same decisions fit.
            first = min(start, width - task.columns)
            self._compute_columns(task, range(first, first + task.columns), writer, runner, listener)

    def _compute_columns(
        self, task: _Task, columns: range, writer: ArrayWriter, runner: Runner, listener: Listener
    ) -> None:
        plan = freeze(self._part(task.folded, task.problem, columns), task.decisions, self._planner.name)

        def keep(row: int, tile: Tensor) -> None:
            writer.write(row, columns.start, tile.numpy())

        def quiet(event: Event) -> None:
            """Steps and transfers that belong to no epoch are not told of."""
            if isinstance(event, DamageFound | ScratchRemoved | TierOpened):
                listener(event)

        runner.run(plan, lambda executor: executor.evaluate(keep), quiet)
