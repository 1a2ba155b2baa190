"""The learned planner: a small network that has seen many plans of the ILP planner says which gaps to fill.

Each gap is scored by itself, from :mod:`flexgnn.planners.gap_features`; gaps are filled from the highest score down, so
that a plan fits whatever the network says. The weights are made by ``scripts/train_planner.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import as_file, files

import numpy as np
from safetensors.numpy import load_file

from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.plan.blocks import Blocks
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.search import SketchPlanner, few_sketches
from flexgnn.core.plan.sketch import Sketch
from flexgnn.core.planner import Planner
from flexgnn.core.tier import Array
from flexgnn.planners.gap_features import gap_features

WEIGHTS = "learned.safetensors"


class LearnedPlanner(SketchPlanner):
    """Fills gaps by the scores of a network, or greedily where that is faster; looks at few sketches."""

    name = "learned"
    tolerance = 0.03

    def sketches(self, problem: PlanningProblem, choices: Sequence[Blocks]) -> Iterable[Sketch]:
        return few_sketches(problem, choices)

    def fill(self, sketch: Sketch) -> Array:
        choices = [sketch.filled(scores(sketch, _weights())), sketch.greedy_filling]
        return min(choices, key=sketch.seconds)


def scores(sketch: Sketch, weights: dict[str, Array]) -> Array:
    """float32 [G]: logits of a perceptron with two hidden layers."""
    values = (gap_features(sketch) - weights["mean"]) / weights["scale"]
    for layer in ("0", "2"):
        values = np.maximum(values @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"], 0)
    logits: Array = (values @ weights["4.weight"].T + weights["4.bias"])[:, 0]
    return logits


@cache
def _weights() -> dict[str, Array]:
    with as_file(files("flexgnn.planners") / WEIGHTS) as path:
        return load_file(path)


@hookimpl
def flexgnn_list_planners() -> list[type[Planner]]:
    """This module's planner."""
    return [LearnedPlanner]
