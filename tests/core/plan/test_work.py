from __future__ import annotations

from collections.abc import Callable

import torch
from torch_geometric.nn import GCN

from flexgnn.core.graph.layout import ALIGNED_ROWS
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plan.decisions import Recomputed
from flexgnn.core.plan.placement import StorageTier
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.work import tile_work
from flexgnn.core.program.dropout import dropout
from flexgnn.core.program.lower import lower
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.program.segments import run_backward
from tests.graphs import small_graph, store_of

ROWS = RowContext(start=0, seed=0, epoch=0, training=True)


def on_rows(columns: int, run: Callable[[torch.Tensor], object]) -> Callable[[int], Callable[[], object]]:
    def prepare(rows: int) -> Callable[[], object]:
        x = torch.zeros(rows, columns, requires_grad=True)
        return lambda: run(x)

    return prepare


def problem_of(store: GraphStore) -> PlanningProblem:
    return PlanningProblem(
        program=lower(GCN(5, 8, 2, 3), num_features=5),
        store=store,
        budget_bytes=2**20,
        compute_tier="ram",
        storage_tiers=(StorageTier(name="arrow"),),
        threads=1,
        training=True,
        evaluation=False,
    )


def test_products_are_counted_by_shape_forward_and_backward() -> None:
    layer = torch.nn.Linear(11, 13)
    work = tile_work(
        on_rows(11, lambda x: torch.autograd.grad(layer(x), [x, layer.weight], torch.empty(len(x), 13))), 1000
    )
    assert sorted(work.products) == sorted([(1000, 11, 13), (1000, 13, 11), (13, 1000, 11)])
    assert work.flops == 3 * 2 * 1000 * 11 * 13
    assert work.elementwise_bytes == (4 * 1000 * 13,), "the bias"


def test_bytes_are_those_read_and_written_views_excepted() -> None:
    with torch.no_grad():
        work = tile_work(on_rows(8, lambda x: torch.relu(x.view(-1)[8:]) + 1), 500)
        expanded = tile_work(on_rows(8, lambda x: x * torch.ones(1, 1).expand(len(x), 8)), 500)
    assert work.elementwise_bytes == (2 * 4 * 499 * 8, 2 * 4 * 499 * 8)
    assert work.products == ()
    assert work.calls == 4
    assert expanded.elementwise_bytes[-1] == 2 * 4 * 500 * 8 + 4


def test_random_values_are_counted_forward_and_backward() -> None:
    work = tile_work(on_rows(6, lambda x: dropout(x.detach(), 0.5, 0, ROWS)), 100)
    assert work.drawn == 600
    segment = lower(GCN(6, 6, 1, dropout=0.5, jk="last"), num_features=6).segments[-1]

    def prepare(rows: int) -> Callable[[], object]:
        values = {name: torch.zeros(rows, 6) for name in segment.inputs}
        return lambda: run_backward(segment, values, ROWS, frozenset(segment.outputs), lambda outputs: outputs)

    assert tile_work(prepare, 100).drawn == 1200, "once for the logits, and again for the gradient"


def test_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    tile_work(on_rows(2, lambda x: torch.rand(len(x))), 50)
    assert torch.equal(torch.rand(1), expected)


def test_the_flops_of_an_epoch_are_those_of_its_products_and_pulls(tmp_path) -> None:  # type: ignore[no-untyped-def]
    store = store_of(small_graph(num_nodes=70, num_edges=400), tmp_path / "graph")
    problem = problem_of(store)
    edges = store.info.num_edges
    for blocks in problem.choices:
        forward_and_weights = 2 * 2 * 70 * (5 * 8 + 8 * 3)
        inputs, hidden = 2 * 70 * 8 * 3, 2 * 70 * 5 * 8
        # The first layer's aggregation is folded.
        pulls = 2 * edges * 2 * 3
        retaining = problem.workload(blocks)
        assert retaining.flops == forward_and_weights + inputs + pulls
        recomputing = problem.workload(blocks, Recomputed(segments=frozenset({0})))
        assert recomputing.flops == forward_and_weights + inputs + hidden + pulls
        assert sum(f.total_bytes for f in retaining.fields.values()) == 4 * 70 * 8 + sum(
            f.total_bytes for f in recomputing.fields.values()
        )


def test_hidden_values_that_are_put_together_from_slices_take_workspace(tmp_path) -> None:  # type: ignore[no-untyped-def]
    store = store_of(small_graph(num_nodes=70, num_edges=400), tmp_path / "graph", chunk_rows=4 * ALIGNED_ROWS)
    problem = problem_of(store)
    segment = problem.program.segments[0].retaining
    assert segment is not None
    whole, joined = (problem._phase_cost("backward", segment, joined=joined) for joined in (False, True))
    copied = [*segment.inputs, *segment.hidden]
    assert segment.hidden
    widths = sum(problem.program.widths[name] for name in copied)
    assert joined.workspace_bytes - whole.workspace_bytes == 4 * store.info.chunk_rows * widths
