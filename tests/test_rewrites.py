"""Rewrites: each can be switched off, and changes no result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GCN, GIN, GCNConv, GraphSAGE

from flexgnn import Trainer
from flexgnn.core.errors import ConfigError
from flexgnn.core.program.lower import lower
from flexgnn.core.program.rewrites import ALL_REWRITES
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import assert_close, small_graph, smallest_budget, store_of, train_with_flexgnn, train_with_pyg

MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "gcn": lambda: GCN(5, 8, 3, 12),
    "sage-mean": lambda: GraphSAGE(5, 8, 3, 3),
    "sage-sum": lambda: GraphSAGE(5, 8, 2, 3, aggr="sum", root_weight=False),
    "sage-max": lambda: GraphSAGE(5, 8, 3, 3, aggr="max"),
    "gin": lambda: GIN(5, 8, 2, 3),
    "simple": lambda: Simple(2, 5, 3),
}


class Simple(torch.nn.Module):
    """Wu et al. 2019: aggregations without weights, then one linear layer."""

    def __init__(self, layers: int, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList([GCNConv(num_features, num_features, bias=False) for _ in range(layers)])
        for conv in self.convs:
            conv.lin = torch.nn.Identity()
        self.leave = torch.nn.Linear(num_features, num_classes)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        for conv in self.convs:
            x = conv(x, edge_index, edge_weight)
        return self.leave(x)


def notes(model: torch.nn.Module, *rewrites: str) -> tuple[str, ...]:
    return lower(model, num_features=5, rewrites=rewrites).rewrites


@pytest.mark.parametrize(
    ("name", "directed", "weighted"),
    [*((name, True, True) for name in MODELS), ("gcn", False, False)],
)
def test_results_are_those_of_pyg_with_each_rewrite_and_without(
    name: str, directed: bool, weighted: bool, tmp_path: Path
) -> None:
    data = small_graph(directed=directed, weighted=weighted)
    store = store_of(data, tmp_path / "graph", chunk_rows=8)
    torch.manual_seed(0)
    model = MODELS[name]()
    expected = train_with_pyg(model, data, 2, weighted=weighted and name.startswith(("gcn", "simple")))
    planner = GreedyPlanner(5)
    for rewrites in ((), *((rewrite,) for rewrite in ALL_REWRITES)):
        budget = smallest_budget(model, store, planner, rewrites)
        outcome = train_with_flexgnn(model, store, 2, device_memory=budget, planner=planner, rewrites=rewrites)
        assert_close(outcome, expected)


def test_aggregations_are_made_where_they_cost_less() -> None:
    assert notes(GCN(5, 8, 3, 12), "order") == (
        "order: layer 1 aggregates 5 columns instead of 8",
        "order: layer 3 aggregates 8 columns instead of 12",
    )
    assert notes(GraphSAGE(5, 8, 3, 3), "order") == ("order: layer 3 aggregates 3 columns instead of 8",)
    assert notes(GCN(5, 8, 3, 8, bias=False), "order") == ("order: layer 1 aggregates 5 columns instead of 8",)
    assert notes(GraphSAGE(5, 8, 3, 3, aggr="max"), "order") == ()
    assert notes(GraphSAGE(5, 8, 1, 3), "order") == (), "the features need no gradient: 5 columns are fewer than 2 x 3"


def test_aggregations_of_features_are_folded() -> None:
    for name, folded in {
        "gcn": ["x_gcn_loop1"],
        "sage-mean": ["x_mean"],
        "sage-max": ["x_max"],
        "gin": ["x_sum"],
        "simple": ["x_gcn_loop1", "x_gcn_loop1_gcn_loop1"],
    }.items():
        model = MODELS[name]()
        program = lower(model, num_features=5)
        assert [f.name for f in program.folded] == folded
        plain = lower(model, num_features=5, rewrites=("order", "fuse", "gradients"))
        assert program.last_stage == plain.last_stage - len(folded)


@pytest.mark.parametrize("name", ["sage-mean", "sage-max", "gin"])
def test_folding_fusing_and_dropping_gradients_change_no_bit(name: str, tmp_path: Path) -> None:
    store = store_of(small_graph(), tmp_path / "graph", chunk_rows=16)
    torch.manual_seed(0)
    model = MODELS[name]()
    planner = GreedyPlanner(3)
    reference = train_with_flexgnn(model, store, 3, planner=planner, rewrites=("fold", "fuse", "gradients"))
    for rewrites in (("fuse", "gradients"), ("fold", "gradients"), ("fold", "fuse"), ()):
        outcome = train_with_flexgnn(model, store, 3, planner=planner, rewrites=rewrites)
        assert outcome.losses == reference.losses
        assert torch.equal(outcome.logits, reference.logits)
        assert outcome.gradients.keys() == reference.gradients.keys()
        for parameter, gradient in outcome.gradients.items():
            assert torch.equal(gradient, reference.gradients[parameter])


def test_gradients_that_no_one_needs_are_dropped(tmp_path: Path) -> None:
    model = GraphSAGE(5, 8, 3, 3)
    model.convs[0].requires_grad_(False)
    assert notes(model, "gradients") == ("gradients: none is computed for agg1, agg2, h1",)
    store = store_of(small_graph(), tmp_path / "graph")
    phases = {}
    outcomes = []
    for rewrites in ((), ("gradients",)):

        def count(trainer: Trainer, rewrites: tuple[str, ...] = rewrites) -> None:
            phases[rewrites] = len(trainer.plan.workload.phases)

        outcomes.append(train_with_flexgnn(model, store, 2, rewrites=rewrites, inspect=count))
    assert outcomes[0].losses == outcomes[1].losses
    assert outcomes[0].gradients.keys() == outcomes[1].gradients.keys()
    assert phases[()] > phases["gradients",]


def test_an_unknown_rewrite_is_refused() -> None:
    with pytest.raises(ConfigError, match="no rewrite 'folding'; there are: order, fold, fuse, gradients"):
        lower(GCN(5, 8, 2, 3), num_features=5, rewrites=["folding"])
