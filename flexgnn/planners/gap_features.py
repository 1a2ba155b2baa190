"""What the learned planner sees of a gap: pure numbers, without units, so that it works on machines it has never seen.

Shape legend: G gaps, S steps, K phases, C channels.
"""

from __future__ import annotations

import numpy as np

from flexgnn.core.plan.gaps import Gaps
from flexgnn.core.plan.sketch import Sketch
from flexgnn.core.plan.slots import SETUP_STEP
from flexgnn.core.plan.traffic import PROCESSOR
from flexgnn.core.tier import Array

FEATURES = (
    "density",
    "relative density",
    "size",
    "length",
    "mean pressure",
    "worst pressure",
    "read saved",
    "write saved",
    "processor saved",
    "slack of the read",
    "slack of the write",
    "slack of the processor",
    "weight of the phases",
    "whole run",
    "gaps of the tensor",
    "overlapped",
)
"""In the order of the columns of :func:`gap_features`."""

_TINY = 1e-12


def gap_features(sketch: Sketch) -> Array:
    """float32 [G, F]: a row for each gap, a column for each of :data:`FEATURES`."""
    gaps = sketch.gaps
    if len(gaps) == 0:
        return np.zeros((0, len(FEATURES)), dtype=np.float32)
    phase_seconds = sketch.busy.max(axis=1) if sketch.overlapped else sketch.busy.sum(axis=1)
    epoch = max(float(phase_seconds.sum()), _TINY)
    # How far each channel is from being what its phase waits for: 0 for the one that limits it.
    slack = 1 - sketch.busy / np.maximum(phase_seconds, _TINY)[:, None]
    density = np.log(gaps.densities + _TINY)
    mean_pressure, worst_pressure = _pressure(sketch)
    read, write, processor = _saved(gaps)
    slack_read, slack_processor = _weighted(gaps, gaps.savings, slack)
    slack_write, _ = _weighted(gaps, _of_gaps(gaps), slack)
    weight, _ = _weighted(gaps, gaps.savings, np.repeat(phase_seconds[:, None] / epoch, slack.shape[1], axis=1))
    total = np.maximum(read + write + processor, _TINY)
    columns = [
        density - np.log(epoch / (sketch.problem.budget_bytes * len(sketch.room)) + _TINY),
        density - np.median(density),
        np.log(gaps.sizes / sketch.problem.budget_bytes + _TINY),
        gaps.steps / len(sketch.room),
        np.log1p(mean_pressure),
        np.log1p(worst_pressure),
        read / total,
        write / total,
        processor / total,
        slack_read,
        slack_write,
        slack_processor,
        weight,
        gaps.keys[:, 2] == SETUP_STEP,
        1 / np.maximum(gaps.tensor_counts[gaps.tensors], 1),
        np.full(len(gaps), sketch.overlapped),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _pressure(sketch: Sketch) -> tuple[Array, Array]:
    """float64 [G] each: of the steps of a gap, how often the room is asked for; on average, and at worst."""
    gaps, num_steps = sketch.gaps, len(sketch.room)
    owner, first, stop = gaps.spans.T
    change = np.zeros(num_steps + 1)
    np.add.at(change, first, gaps.sizes[owner])
    np.subtract.at(change, stop, gaps.sizes[owner])
    asked = np.cumsum(change[:-1]) / np.maximum(sketch.room, 1)
    sums = np.concatenate([[0.0], np.cumsum(asked)])
    total, worst = np.zeros(len(gaps)), np.zeros(len(gaps))
    np.add.at(total, owner, sums[stop] - sums[first])
    if len(owner):
        # Maxima of spans: of [first, stop) at even places.
        bounds = np.stack([first, np.minimum(stop, num_steps - 1)], axis=1).reshape(-1)
        np.maximum.at(worst, owner, np.maximum.reduceat(asked, bounds)[::2])
    return total / np.maximum(gaps.steps, 1), worst


def _of_gaps(gaps: Gaps) -> Array:
    """float64 [R, 5]: the savings of writes, as :attr:`Gaps.savings`, each gap of a tensor with its share."""
    order = np.argsort(gaps.tensors, kind="stable")
    starts = np.searchsorted(gaps.tensors[order], gaps.writes[:, 0].astype(int))
    counts = gaps.tensor_counts[gaps.writes[:, 0].astype(int)]
    rows = np.repeat(np.arange(len(gaps.writes)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    shares = gaps.writes[rows].copy()
    shares[:, 0] = order[starts[rows] + within]
    shares[:, 3] /= counts[rows]
    return shares


def _saved(gaps: Gaps) -> tuple[Array, Array, Array]:
    """float64 [G] each: seconds saved of reading channels, of writing channels, and of the processor."""
    read, write, processor = (np.zeros(len(gaps)) for _ in range(3))
    for rows, moving in ((gaps.savings, read), (_of_gaps(gaps), write)):
        owner, handled = rows[:, 0].astype(int), rows[:, 2] == PROCESSOR
        np.add.at(moving, owner[~handled], rows[~handled, 3])
        np.add.at(processor, owner[handled], rows[handled, 3])
    return read, write, processor


def _weighted(gaps: Gaps, rows: Array, values: Array) -> tuple[Array, Array]:
    """Means over ``rows`` of ``values`` (float64 [K, C]), by seconds: of channels that move, and of the processor."""
    found = []
    for handled in (False, True):
        chosen = rows[(rows[:, 2] == PROCESSOR) == handled]
        owner, weights = chosen[:, 0].astype(int), chosen[:, 3] + _TINY
        total, weight = np.zeros(len(gaps)), np.full(len(gaps), _TINY)
        np.add.at(total, owner, weights * values[chosen[:, 1].astype(int), chosen[:, 2].astype(int)])
        np.add.at(weight, owner, weights)
        found.append(total / weight)
    return found[0], found[1]
