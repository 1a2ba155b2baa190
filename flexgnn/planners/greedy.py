"""The greedy planner: what saves most time per byte and step of residence stays in the compute tier."""

from __future__ import annotations

from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.plan.search import SketchPlanner
from flexgnn.core.plan.sketch import Sketch
from flexgnn.core.planner import Planner
from flexgnn.core.tier import Array


class GreedyPlanner(SketchPlanner):
    """Fills gaps by value density: seconds saved per byte and step, both at their price."""

    name = "greedy"

    def fill(self, sketch: Sketch) -> Array:
        return sketch.greedy_filling


@hookimpl
def flexgnn_list_planners() -> list[type[Planner]]:
    """This module's planner."""
    return [GreedyPlanner]
