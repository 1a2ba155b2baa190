"""What a planner must be able to do: the contract that planners implement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from flexgnn.core.plan.decisions import Decisions
from flexgnn.core.plan.problem import PlanningProblem


class Planner(ABC):
    """Decides where every tensor of a run is at every moment. A planner takes no argument to be built."""

    name: ClassVar[str]
    """The name users select the planner by."""

    @abstractmethod
    def decide(self, problem: PlanningProblem) -> Decisions:
        """Decisions that fit ``problem.budget_bytes``.

        They are frozen and validated by FlexGNN afterwards, so that no planner can exceed a budget.

        Raises:
            BudgetError: if nothing fits; :func:`flexgnn.core.plan.plan.too_small` makes it.
        """
