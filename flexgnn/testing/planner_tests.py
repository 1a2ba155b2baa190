"""What a planner of a third party has to pass: its plans fit, whatever they are for, and change no result."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch_geometric.nn import GCN, GIN, GraphSAGE

from flexgnn.core.errors import BudgetError, PluginError
from flexgnn.core.plan.placement import StorageTier
from flexgnn.core.plan.plan import freeze
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.planner import Planner
from flexgnn.core.plugins import load_plugins
from flexgnn.core.program.lower import lower
from flexgnn.core.runtime.trainer import Trainer
from flexgnn.testing.graphs import random_graph

_PROBLEMS = st.fixed_dictionaries(
    {
        "model_class": st.sampled_from([GCN, GIN, GraphSAGE]),
        "layers": st.integers(1, 3),
        "num_nodes": st.integers(3, 60),
        "chunk_rows": st.integers(1, 20),
        "dropout": st.sampled_from([0.0, 0.5]),
    }
)


class PlannerTests:
    """What every planner must do. Inherit it in a test file, with the planner as its one piece.

    Example::

        class TestMyPlanner(PlannerTests):
            planner = MyPlanner
    """

    planner: ClassVar[type[Planner]]
    """The class under test."""

    def __init_subclass__(cls) -> None:
        planner = getattr(cls, "planner", None)
        if not (isinstance(planner, type) and issubclass(planner, Planner)):
            raise TypeError(f"{cls.__name__} needs `planner = ...`, a subclass of Planner; it has {planner!r}.")

    def test_it_is_found_by_its_name(self) -> None:
        name = self.planner.name
        try:
            found = load_plugins().planner(name)
        except PluginError as error:
            pytest.fail(f"{self.planner.__name__} is not registered by an entry point of the group flexgnn: {error}")
        assert found is self.planner, f"the name {name!r} stands for {found}, not for {self.planner}"

    @settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(shape=_PROBLEMS, budget_bytes=st.integers(1, 150_000))
    def test_every_plan_fits_or_the_smallest_budget_is_named(self, shape: dict[str, Any], budget_bytes: int) -> None:
        with _problem(**shape) as problem:
            self._check_fits(problem.with_budget(budget_bytes))

    @settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(shape=_PROBLEMS, capacities=st.lists(st.integers(1, 40_000), min_size=1, max_size=2))
    def test_storage_tiers_are_never_filled_beyond_their_capacity(
        self, shape: dict[str, Any], capacities: list[int]
    ) -> None:
        tiers = tuple(StorageTier(name=f"tier{n}", capacity_bytes=size) for n, size in enumerate(capacities))
        with _problem(**shape) as problem:
            self._check_fits(replace(problem, budget_bytes=1, storage_tiers=tiers))

    def _check_fits(self, problem: PlanningProblem) -> None:
        planner = self.planner()
        refusal = _refusal(planner, problem)
        if refusal is not None:
            if refusal.smallest_bytes == 0:
                # No memory helps where the storage tiers are too small for what has to be there.
                assert any(tier.capacity_bytes is not None for tier in problem.storage_tiers), str(refusal)
                return
            assert refusal.smallest_bytes > problem.budget_bytes
            problem = replace(problem, budget_bytes=refusal.smallest_bytes)
        plan = freeze(problem, planner.decide(problem), planner.name)
        assert plan.projected_peak_bytes <= problem.budget_bytes

    def test_the_same_problem_gives_the_same_decisions(self) -> None:
        with _problem(GCN, layers=3, num_nodes=60, chunk_rows=8, dropout=0.5) as problem:
            problem = problem.with_budget(2 * self._smallest(problem))
            assert self.planner().decide(problem) == self.planner().decide(problem)

    def test_training_under_its_plans_gives_the_losses_of_training_in_memory(self, tmp_path: Path) -> None:
        store = random_graph(tmp_path / "graph")
        losses = []
        budget: int | None = None
        for _ in range(2):
            torch.manual_seed(0)
            model = GCN(5, 8, 3, 3, dropout=0.3)
            optimizer = torch.optim.Adam(model.parameters())
            trainer = Trainer(model, store, optimizer, planner=self.planner(), device_memory=budget)
            losses.append([record.loss.hex() for record in trainer.fit(2)])
            moved = sum(trainer.history[-1].moved_bytes.values())
            budget = trainer.plan.projected_peak_bytes // 2
        assert moved > 0, "half of the memory moved nothing"
        assert losses[0] == losses[1]

    def _smallest(self, problem: PlanningProblem) -> int:
        with pytest.raises(BudgetError) as refusal:
            self.planner().decide(problem.with_budget(1))
        return refusal.value.smallest_bytes


def _refusal(planner: Planner, problem: PlanningProblem) -> BudgetError | None:
    try:
        planner.decide(problem)
    except BudgetError as refusal:
        return refusal
    return None


@contextmanager
def _problem(
    model_class: type, layers: int, num_nodes: int, chunk_rows: int, dropout: float
) -> Iterator[PlanningProblem]:
    """A planning problem over a small graph, with one storage tier and all the memory there could be."""
    with tempfile.TemporaryDirectory(prefix="planner-") as directory:
        graph = Path(directory) / "graph"
        yield PlanningProblem(
            program=lower(model_class(5, 8, layers, 3, dropout=dropout), num_features=5),
            store=random_graph(graph, num_nodes=num_nodes, num_edges=3 * num_nodes, chunk_rows=chunk_rows),
            budget_bytes=2**40,
            compute_tier="ram",
            storage_tiers=(StorageTier(name="arrow"),),
            threads=2,
            training=True,
            evaluation=dropout > 0,
        )
