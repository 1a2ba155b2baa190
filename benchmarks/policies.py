"""What plans are compared with: caches that drop what was used longest ago, and halos of whole blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from flexgnn.core.plan.blocks import Blocks
from flexgnn.core.plan.decisions import Access
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.search import SketchPlanner
from flexgnn.core.plan.sketch import Sketch
from flexgnn.core.plan.ways import Way, spilling, workload_of
from flexgnn.core.tier import Array


class _OneWay(SketchPlanner):
    """Every field is reached in one way; nothing is whole, and nothing a hub."""

    access: Access
    lookaheads: tuple[int, ...] = (1, 0)

    def sketches(self, problem: PlanningProblem, choices: Sequence[Blocks]) -> Iterable[Sketch]:
        for blocks in choices:
            way = Way(self.access if blocks.count > 1 else "held")
            workload = workload_of(problem, blocks, problem.recomputable()[0], way)
            for lookahead in self.lookaheads:
                sketch = Sketch(problem, workload, spilling(workload, lookahead, problem.recomputable()[0], way))
                if sketch.feasible:
                    yield sketch
                    break


class LRUPlanner(_OneWay):
    """Packed halos, and a cache of the room that is left: a tensor stays if what is used meanwhile fits beside it.

    Loads are made when they are needed: a cache does not know what comes next.
    """

    name = "lru"
    access = "packed"
    lookaheads = (0,)

    def fill(self, sketch: Sketch) -> Array:
        gaps, num_steps = sketch.gaps, len(sketch.room)
        capacity = max(int(sketch.room.min()), 0)
        # What is used at a step are the tensors whose gaps begin or end there; each counts once in a phase.
        used = np.zeros(num_steps + 1)
        owner, first, stop = gaps.spans.T
        np.add.at(used, np.minimum(stop, num_steps - 1), gaps.sizes[owner])
        sums = np.concatenate([[0.0], np.cumsum(used)])
        between = np.zeros(len(gaps))
        np.add.at(between, owner, sums[np.minimum(stop, num_steps)] - sums[first])
        between += gaps.sizes
        scores = np.where(between <= capacity, -between, -np.inf)
        kept = sketch.filled(scores)
        return kept & np.isfinite(scores)


class ReadingAheadLRUPlanner(LRUPlanner):
    """The same with loads one step ahead and writes behind, as plans have them."""

    name = "lru, reading ahead"
    lookaheads = (1, 0)


class WholeBlocksPlanner(_OneWay):
    """Every block reads all rows of every block that it needs a row of; gaps are filled as the greedy planner does."""

    name = "whole blocks"
    access = "blocks"

    def fill(self, sketch: Sketch) -> Array:
        return sketch.greedy_filling
