"""Kernels against dense arithmetic, in one pass and in several."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flexgnn.core.program.bfloat16 import stored_array
from flexgnn.core.program.kernels import NO_CURSOR, NO_VECTOR, pull_max, pull_max_gradient, pull_sum
from tests.blocks import BOUNDS, SEEDS, Array, Block


def summed(block: Block, bounds: list[int], weights: Array, loops: Array, scale: Array) -> Array:
    out = np.full(block.local.shape, np.nan, dtype=np.float32)
    for reach in block.passes(bounds):
        for first in (0, 4):
            tile = out[first : 4 if first == 0 else 6]
            pull_sum(
                block.local, block.hubs, *reach, block.indptr, block.indices, weights, loops, scale, 0, first, tile
            )
    return out


@settings(deadline=None)
@given(
    seed=st.integers(0, 999), bounds=st.lists(st.integers(0, 9), max_size=4), options=st.tuples(*[st.booleans()] * 3)
)
def test_sums_are_dense_products_with_the_same_bits_in_any_passes(
    seed: int, bounds: list[int], options: tuple[bool, bool, bool]
) -> None:
    block = Block(seed)
    rng = np.random.default_rng(seed + 1)
    weighted, looped, scaled = options
    weights = block.weights if weighted else NO_VECTOR
    loops = rng.random(6).astype(np.float32) if looped else NO_VECTOR
    scale = rng.random(6).astype(np.float32) if scaled else NO_VECTOR
    out = summed(block, bounds, weights, loops, scale)
    assert np.array_equal(out, summed(block, [], weights, loops, scale))
    edge = 0
    for r, neighbors in enumerate(block.neighbors):
        expected = loops[r] * block.local[r].astype(np.float64) if looped else np.zeros(5)
        for j in neighbors:
            if not (looped and j == r):
                expected = expected + (weights[edge] if weighted else 1) * block.all[j]
            edge += 1
        np.testing.assert_allclose(out[r], expected * (scale[r] if scaled else 1), rtol=1e-5, atol=1e-5)


@settings(deadline=None)
@given(seed=SEEDS, bounds=BOUNDS, width=st.integers(1, 40), weighted=st.booleans(), looped=st.booleans())
def test_sums_of_bfloat16_are_those_of_the_same_float32(
    seed: int, bounds: list[int], width: int, weighted: bool, looped: bool
) -> None:
    block = Block(seed, width)
    rng = np.random.default_rng(seed)
    weights = block.weights if weighted else NO_VECTOR
    loops = rng.random(6).astype(np.float32) if looped else NO_VECTOR
    for name in ("local", "hubs", "halo"):
        rows = getattr(block, name)
        rows += rng.random(rows.shape, dtype=np.float32)
        setattr(block, name, stored_array(torch.from_numpy(rows).bfloat16()))
    out = summed(block, bounds, weights, loops, NO_VECTOR)
    for name in ("local", "hubs", "halo"):
        stored = torch.from_numpy(getattr(block, name)).view(torch.bfloat16)
        setattr(block, name, stored.float().numpy())
    assert np.array_equal(out, summed(block, [], weights, loops, NO_VECTOR))


@settings(deadline=None)
@given(SEEDS, BOUNDS)
def test_maxima_count_their_ties(seed: int, bounds: list[int]) -> None:
    block = Block(seed)
    out, ties = np.full_like(block.local, np.nan), np.full_like(block.local, np.nan)
    for reach in block.passes(bounds):
        pull_max(block.local, block.hubs, *reach, block.indptr, block.indices, 0, out, ties)
    for r, neighbors in enumerate(block.neighbors):
        pulled = block.all[neighbors]
        expected = pulled.max(axis=0) if neighbors else np.zeros(5)
        assert np.array_equal(out[r], expected)
        assert np.array_equal(ties[r], (pulled == expected).sum(axis=0))


@settings(deadline=None)
@given(SEEDS, BOUNDS)
def test_gradients_of_maxima_go_to_those_that_reached_them(seed: int, bounds: list[int]) -> None:
    block = Block(seed, width=6)
    value = np.random.default_rng(seed).integers(-3, 4, (6, 3)).astype(np.float32)
    out = np.full_like(value, np.nan)
    for reach in block.passes(bounds):
        pull_max_gradient(block.local, block.hubs, *reach, block.indptr, block.indices, 0, value, out)
    for r, neighbors in enumerate(block.neighbors):
        expected = np.zeros(3, dtype=np.float32)
        for i in neighbors:
            expected += np.where(block.all[i, 3:] == value[r], block.all[i, :3], 0)
        np.testing.assert_allclose(out[r], expected, rtol=1e-6)


@pytest.mark.parametrize("width", [1, 3, 47, 128])
def test_any_width(width: int) -> None:
    block = Block(0, width)
    out = np.empty_like(block.local)
    reach = (block.halo, 0, len(block.halo), NO_CURSOR, NO_CURSOR, True)
    pull_sum(block.local, block.hubs, *reach, block.indptr, block.indices, NO_VECTOR, NO_VECTOR, NO_VECTOR, 0, 0, out)
    assert np.array_equal(out, [block.all[neighbors].sum(axis=0) for neighbors in block.neighbors])
