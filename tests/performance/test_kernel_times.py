"""Kernels take no longer beside a plain loop than they did when this was written.

Absolute times say little on machines that others use too, and processors differ. A kernel and a plain loop over the
same graph, compiled for the same processor and run in turns, are disturbed alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch

from flexgnn.core.plan.packing import ALIGNMENT_BYTES
from flexgnn.core.program.adjacency_kernels import degree_vectors
from flexgnn.core.program.dropout import dropout
from flexgnn.core.program.kernels import (
    NO_CURSOR,
    NO_VECTOR,
    pull_max,
    pull_max_gradient,
    pull_sum,
)
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.tier import Array
from tests.performance.references import plain_max, plain_max_gradient, plain_mixing, plain_row_sums, plain_sum

pytestmark = pytest.mark.performance

NODES, EDGES_PER_NODE = 20_000, 12
LOCAL_ROWS, PASSES = NODES // 2, 3
ONE_PASS = (0, 0, NO_CURSOR, NO_CURSOR, True)

MARGIN = 1.4
"""How much longer than expected a kernel may take: what noise and other processors make of it, but no regression."""

REPEATS, ROUNDS, PAUSE_SECONDS = 7, 10, 0.5
Work = Callable[[], object]


@dataclass(frozen=True)
class Graph:
    """Random edges."""

    indptr: Array
    indices: Array
    weights: Array
    vector: Array

    def rows(self, width: int) -> tuple[Array, Array, Array]:
        """Values of all nodes, none, and room for results."""
        z, out = aligned(width), aligned(width)
        np.random.default_rng(width).random(out=z, dtype=np.float32)
        return z, np.empty((0, width), dtype=np.float32), out


def aligned(width: int) -> Array:
    """Rows that begin at a cache line, as they do in the arena."""
    line = ALIGNMENT_BYTES // 4
    room = np.empty(NODES * width + line, dtype=np.float32)
    first = -(room.ctypes.data // 4) % line
    return room[first : first + NODES * width].reshape(NODES, width)


@pytest.fixture(scope="module")
def graph() -> Graph:
    rng = np.random.default_rng(0)
    indptr = np.arange(NODES + 1, dtype=np.int64) * EDGES_PER_NODE
    indices = np.sort(rng.integers(0, NODES, (NODES, EDGES_PER_NODE), dtype=np.int32)).ravel()
    return Graph(indptr, indices, rng.random(len(indices), dtype=np.float32), rng.random(NODES, dtype=np.float32))


def assert_takes(expected: float, kernel: Work, reference: Work) -> None:
    """``kernel`` takes at most ``MARGIN`` times ``expected``, in times of ``reference``.

    Of both the shortest processor time of this thread counts, since what others do can only prolong it. While it seems
    too long, more are taken, at other times.
    """
    kernel(), reference()
    kernel_seconds, reference_seconds = [], []
    for round_number in range(ROUNDS):
        time.sleep(PAUSE_SECONDS if round_number else 0)
        for _ in range(REPEATS):
            for work, seconds in ((kernel, kernel_seconds), (reference, reference_seconds)):
                began = time.thread_time()
                work()
                seconds.append(time.thread_time() - began)
        taken = min(kernel_seconds) / min(reference_seconds)
        if taken <= expected * MARGIN:
            break
    assert taken <= expected * MARGIN, f"{taken:.2f} times the plain loop; {expected} was expected"


@pytest.mark.parametrize(("width", "expected"), [(128, 0.85), (47, 0.7), (16, 1.3)])
def test_sum(graph: Graph, width: int, expected: float) -> None:
    z, none, out = graph.rows(width)
    arguments = (z, none, none, *ONE_PASS, graph.indptr, graph.indices, NO_VECTOR, NO_VECTOR, NO_VECTOR, 0, 0, out)
    assert_takes(expected, lambda: pull_sum(*arguments), lambda: plain_sum(graph.indptr, graph.indices, z, out))


@pytest.mark.parametrize(("width", "expected"), [(128, 0.95), (47, 0.78)])
def test_sum_with_weights_loops_and_scales(graph: Graph, width: int, expected: float) -> None:
    z, none, out = graph.rows(width)
    vectors = (graph.weights, graph.vector, graph.vector)
    arguments = (z, none, none, *ONE_PASS, graph.indptr, graph.indices, *vectors, 0, 0, out)
    assert_takes(expected, lambda: pull_sum(*arguments), lambda: plain_sum(graph.indptr, graph.indices, z, out))


def halo_passes(z: Array) -> Iterator[tuple[Array, int, int, Array, Array, bool]]:
    """What follows local rows and hubs among the arguments of a pull, for each of ``PASSES``."""
    cursors = np.zeros((2, NODES), dtype=np.int64)
    cuts = np.linspace(0, NODES - LOCAL_ROWS, PASSES + 1).astype(int).tolist()
    for number, (start, stop) in enumerate(pairwise(cuts)):
        here, following = cursors[number % 2], cursors[1 - number % 2]
        yield z[LOCAL_ROWS + start : LOCAL_ROWS + stop], start, stop, here, following, number == PASSES - 1


@pytest.mark.parametrize(("width", "expected"), [(128, 1.4), (47, 1.5)])
def test_sum_in_passes_over_the_halo(graph: Graph, width: int, expected: float) -> None:
    z, none, out = graph.rows(width)
    rest = (graph.indptr, graph.indices, NO_VECTOR, NO_VECTOR, NO_VECTOR, 0, 0, out)
    passes = list(halo_passes(z))

    def pull() -> None:
        for reach in passes:
            pull_sum(z[:LOCAL_ROWS], none, *reach, *rest)

    assert_takes(expected, pull, lambda: plain_sum(graph.indptr, graph.indices, z, out))


@pytest.mark.parametrize(("width", "expected"), [(128, 0.8), (47, 0.85)])
def test_max(graph: Graph, width: int, expected: float) -> None:
    z, none, out = graph.rows(width)
    ties = np.empty_like(out)
    arguments = (z, none, none, *ONE_PASS, graph.indptr, graph.indices, 0, out, ties)
    assert_takes(expected, lambda: pull_max(*arguments), lambda: plain_max(graph.indptr, graph.indices, z, out, ties))


def test_gradient_of_max(graph: Graph) -> None:
    z, none, _ = graph.rows(128)
    value, _, out = graph.rows(64)
    arguments = (z, none, none, *ONE_PASS, graph.indptr, graph.indices, 0, value, out)
    assert_takes(
        0.9,
        lambda: pull_max_gradient(*arguments),
        lambda: plain_max_gradient(graph.indptr, graph.indices, z, value, out),
    )


def test_degrees(graph: Graph) -> None:
    loops, sums = np.empty((2, NODES), dtype=np.float32)
    arguments = (graph.indptr, graph.indices, graph.weights)
    assert_takes(
        1.25, lambda: degree_vectors(*arguments, 0, 1.0, loops, sums), lambda: plain_row_sums(*arguments, sums)
    )


def test_dropout() -> None:
    x = torch.rand(4096, 128)
    rows = RowContext(start=0, seed=0, epoch=1, training=True)
    words, out = np.arange(x.numel(), dtype=np.uint32), np.empty(x.numel(), dtype=np.float32)
    # 1.0 on one processor, 1.37 on another, whose compiler unrolls less.
    assert_takes(1.25, lambda: dropout(x, 0.3, 0, rows), lambda: plain_mixing(words, x.view(-1).numpy(), out))
