from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch_geometric.data import Data
from torch_geometric.nn import GCN, GraphSAGE

from flexgnn import Callback, GraphStore, Trainer
from flexgnn.core.errors import ConfigError
from flexgnn.core.runtime.callbacks import CallbackLike
from flexgnn.core.runtime.events import EpochRecord
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import ADAM_EPS, small_graph, smallest_budget, store_of

Schedule = Callable[[torch.optim.Optimizer], Callable[[float], None]]
"""From an optimizer to what is done with the loss of each epoch."""


@pytest.fixture
def store(tmp_path: Path) -> GraphStore:
    return store_of(small_graph(), tmp_path / "graph")


def trainer_of(store: GraphStore, **options: object) -> Trainer:
    torch.manual_seed(0)
    model = GCN(5, 8, 2, 3)
    return Trainer(model, store, torch.optim.Adam(model.parameters(), lr=0.01), **options)  # type: ignore[arg-type]


class Clipping(Callback):
    """The norm of all gradients is at most 0.05; remembers what it was."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer) -> None:
        self.norms.append(float(torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 0.05)))


class Diary(Callback):
    """Writes down what is called."""

    def __init__(self, name: str, lines: list[str]) -> None:
        self._name, self._lines = name, lines

    def on_fit_start(self, trainer: Trainer) -> None:
        self._lines.append(f"{self._name} start")

    def on_before_optimizer_step(self, trainer: Trainer) -> None:
        self._lines.append(f"{self._name} step {len(trainer.history) + 1}")

    def on_epoch_end(self, trainer: Trainer, record: EpochRecord) -> None:
        assert trainer.history[-1] is record
        self._lines.append(f"{self._name} epoch {record.epoch}")

    def on_fit_end(self, trainer: Trainer) -> None:
        self._lines.append(f"{self._name} end")


def every_second_epoch(optimizer: torch.optim.Optimizer) -> Callable[[float], None]:
    scheduler = StepLR(optimizer, step_size=2, gamma=0.5)
    return lambda loss: scheduler.step()


def on_a_plateau(optimizer: torch.optim.Optimizer) -> Callable[[float], None]:
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.3)
    return lambda loss: scheduler.step(loss)


def losses_of_pyg(model: torch.nn.Module, data: Data, epochs: int, schedule: Schedule) -> tuple[list[float], float]:
    """Of full-batch training with clipping; and the last learning rate."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, eps=ADAM_EPS)
    step, losses = schedule(optimizer), []
    for _ in range(epochs):
        optimizer.zero_grad()
        loss = cross_entropy(model(data.x, data.edge_index)[data.train_mask], data.y[data.train_mask])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
        losses.append(float(loss.detach()))
        step(losses[-1])
    return losses, optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("schedule", [every_second_epoch, on_a_plateau])
@pytest.mark.parametrize("norm", [None, "batch_norm"])
def test_schedulers_and_clipping_agree_with_pyg_while_spilling(
    schedule: Schedule, norm: str | None, store: GraphStore
) -> None:
    torch.manual_seed(0)
    model, planner = GraphSAGE(5, 8, 3, 3, norm=norm), GreedyPlanner(3)
    expected, rate = losses_of_pyg(copy.deepcopy(model), small_graph(), 12, schedule)
    budget = smallest_budget(model, store, planner)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, eps=ADAM_EPS)
    step, clipping = schedule(optimizer), Clipping()
    trainer = Trainer(model, store, optimizer, device_memory=budget, planner=planner)
    records = trainer.fit(12, callbacks=[clipping, lambda trainer, record: step(record.loss)])
    assert [record.loss for record in records] == pytest.approx(expected, rel=1e-4)
    assert optimizer.param_groups[0]["lr"] == rate < 0.05
    assert max(clipping.norms) > 0.05  # so there was something to clip
    assert records[-1].moved_bytes["arrow write"] > 0


def test_callbacks_are_called_in_their_order(store: GraphStore) -> None:
    lines: list[str] = []
    seen: list[EpochRecord] = []
    callbacks = [Diary("a", lines), lambda trainer, record: seen.append(record), Diary("b", lines)]
    records = trainer_of(store).fit(2, callbacks=callbacks)
    events = ["start", "step 1", "epoch 1", "step 2", "epoch 2", "end"]
    assert lines == [f"{name} {event}" for event in events for name in "ab"]
    assert seen == records


def test_a_step_begins_with_the_parameters_and_buffers_of_the_epoch(store: GraphStore) -> None:
    model = GCN(5, 8, 2, 3, norm="batch_norm")
    states, wanted = [], []

    class Looking(Callback):
        def on_fit_start(self, trainer: Trainer) -> None:
            wanted.append(copy.deepcopy(trainer.model.state_dict()))

        def on_before_optimizer_step(self, trainer: Trainer) -> None:
            states.append(copy.deepcopy(trainer.model.state_dict()))

        def on_epoch_end(self, trainer: Trainer, record: EpochRecord) -> None:
            wanted.append(copy.deepcopy(trainer.model.state_dict()))

    Trainer(model, store, torch.optim.Adam(model.parameters())).fit(2, callbacks=[Looking()])
    assert len(states) == 2
    for state, expected, later in zip(states, wanted, wanted[1:], strict=False):
        assert all(torch.equal(state[name], value) for name, value in expected.items())
        assert all(not torch.equal(state[name], value) for name, value in later.items())


def test_a_callback_stops_a_fit_and_the_next_goes_on(store: GraphStore) -> None:
    def stop_after_two(trainer: Trainer, record: EpochRecord) -> None:
        if record.epoch == 2:
            trainer.stop()

    whole = trainer_of(store)
    whole.fit(5)
    trainer = trainer_of(store)
    assert [record.epoch for record in trainer.fit(5, callbacks=[stop_after_two])] == [1, 2]
    trainer.fit(3)
    assert [record.loss for record in trainer.history] == [record.loss for record in whole.history]


def test_an_error_ends_the_fit_for_every_callback(store: GraphStore) -> None:
    lines: list[str] = []

    class Failing(Diary):
        def on_fit_end(self, trainer: Trainer) -> None:
            super().on_fit_end(trainer)
            raise OSError("no room for a checkpoint")

    def interrupt(trainer: Trainer, record: EpochRecord) -> None:
        raise KeyboardInterrupt

    trainer = trainer_of(store)
    with pytest.raises(OSError, match="no room") as raised:
        trainer.fit(3, callbacks=[Failing("a", lines), interrupt, Diary("b", lines)])
    assert isinstance(raised.value.__context__, KeyboardInterrupt)
    assert lines == ["a start", "b start", "a step 1", "b step 1", "a epoch 1", "a end", "b end"]
    assert [record.epoch for record in trainer.fit(2)] == [2, 3]


def test_a_start_that_fails_ends_those_before_it(store: GraphStore) -> None:
    lines: list[str] = []

    class Failing(Diary):
        def on_fit_start(self, trainer: Trainer) -> None:
            raise OSError("no room for a checkpoint")

    with pytest.raises(OSError, match="no room"):
        trainer_of(store).fit(1, callbacks=[Diary("a", lines), Failing("b", lines), Diary("c", lines)])
    assert lines == ["a start", "a end"]


def test_a_callback_predicts_once_the_memory_of_the_fit_is_free(store: GraphStore) -> None:
    logits = []

    class Predicting(Callback):
        def on_fit_end(self, trainer: Trainer) -> None:
            logits.append(trainer.predict())

    trainer = trainer_of(store)
    trainer.fit(1, callbacks=[Predicting()])
    assert torch.equal(logits[0], trainer.predict())
    for call in (lambda trainer, record: trainer.predict(), lambda trainer, record: trainer.fit(1)):
        with pytest.raises(ConfigError, match="in on_fit_end of a callback"):
            trainer.fit(1, callbacks=[call])
    assert torch.isfinite(trainer.predict()).all()


@pytest.mark.parametrize(
    ("given", "sentence"), [(Clipping, "The class Clipping is no callback"), (3, "An object of int is no callback")]
)
def test_what_is_no_callback_is_refused(given: CallbackLike, sentence: str, store: GraphStore) -> None:
    trainer = trainer_of(store)
    with pytest.raises(ConfigError, match=sentence):
        trainer.fit(1, callbacks=[given])
    assert trainer.history == []
