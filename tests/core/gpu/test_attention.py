"""Attention on a GPU, and its gradients, beside those of a CPU, in one pass and in several."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flexgnn.core.program.attention import Attention
from flexgnn.core.program.attention_kernels import ATTEND, TO_QUERY, TO_SOURCE
from flexgnn.core.program.cpu_kernels import CpuKernels
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.program.row_kernels import Place, RowKernels
from tests.blocks import BOUNDS, SEEDS, RowsToPull, few_examples


@st.composite
def attentions(draw, score: str) -> Attention:
    return Attention(
        score=score,
        heads=draw(st.sampled_from([1, 3, 6])),
        channels=draw(st.sampled_from([1, 5, 8])),
        negative_slope=0.2,
        self_loops=draw(st.booleans()),
    )


def pulled(
    kernels: RowKernels, rows: RowsToPull, bounds: list[int], device: str, attention: Attention, work: int
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(rows.num_rows, attention.query_width, generator=generator).to(device)
    own_width = attention.source_width if work == TO_SOURCE else attention.gradient_width
    own = torch.randn(rows.num_rows, own_width, generator=generator).to(device)

    def pull(n, first, stop, out, state):
        where = RowContext(start=rows.position + first, seed=5, epoch=2, training=True)
        place, tile = Place(first=first, rows=where), slice(first, stop)
        kernels.pull_attention(n, place, attention, work, own[tile], queries[tile], out, state)

    width = {ATTEND: attention.width, TO_SOURCE: attention.source_width, TO_QUERY: attention.query_width}[work]
    results = rows.pull(bounds, device, [width, attention.state_width], pull)
    return results if work == ATTEND else results[:1]


def check(triton_kernels, device, seed, bounds, attention, work):
    width = attention.gradient_width if work == TO_SOURCE else attention.source_width
    rows = RowsToPull(seed, width)
    results = pulled(triton_kernels, rows, bounds, device, attention, work)
    in_one_pass = pulled(triton_kernels, rows, [], device, attention, work)
    on_a_cpu = pulled(CpuKernels(), rows, bounds, "cpu", attention, work)
    for result, same, close in zip(results, in_one_pass, on_a_cpu, strict=True):
        assert torch.equal(result, same)
        # Scores here may be far above the greatest that is given: what is left of large terms is their rounding.
        finite = close[close.isfinite()]
        largest = float(finite.abs().max()) if len(finite) else 0.0
        torch.testing.assert_close(result, close, rtol=1e-4, atol=1e-5 * max(largest, 1.0))


@pytest.mark.parametrize("score", ["additive", "dynamic", "product"])
@pytest.mark.parametrize("work", [ATTEND, TO_SOURCE, TO_QUERY], ids=["attend", "to source", "to query"])
def test_attention_is_that_of_a_cpu_with_the_same_bits_in_any_passes(triton_kernels, device, score, work):
    @few_examples(3)
    @given(seed=SEEDS, bounds=BOUNDS, attention=attentions(score))
    def test(seed, bounds, attention):
        check(triton_kernels, device, seed, bounds, attention, work)

    test()


@pytest.mark.parametrize(
    ("work", "self_loops", "channels"), [(ATTEND, True, 100), (TO_SOURCE, False, 5), (TO_QUERY, True, 5)]
)
def test_masks(triton_kernels, device, work, self_loops, channels):
    """Where edges occur twice, and 6 heads have the words of two counters; with 100 channels in two programs."""
    attention = Attention(
        score="additive", heads=6, channels=channels, negative_slope=0.1, self_loops=self_loops, dropout=0.5, site=1
    )
    indices = RowsToPull(3, 1).indices
    assert (indices[1:] == indices[:-1]).any()
    check(triton_kernels, device, 3, [4], attention, work)
