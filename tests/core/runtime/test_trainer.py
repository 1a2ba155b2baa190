from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from torch_geometric.nn import GCN, GraphSAGE

from flexgnn import GraphStore, Trainer
from flexgnn.backends.arrow import ArrowBackend
from flexgnn.core.errors import ConfigError, TierError, TrainingError
from flexgnn.core.runtime.events import Event, StepFinished, TransferFinished
from flexgnn.core.tier import Array
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import small_graph, smallest_budget, store_of


@pytest.fixture
def store(tmp_path: Path) -> GraphStore:
    return store_of(small_graph(), tmp_path / "graph")


def trainer_of(store: GraphStore, model: torch.nn.Module, **options: object) -> Trainer:
    return Trainer(model, store, torch.optim.Adam(model.parameters(), lr=0.01), **options)  # type: ignore[arg-type]


def test_the_users_model_is_trained(store: GraphStore) -> None:
    model = GCN(5, 8, 2, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer_of(store, model).fit(2)
    assert model.state_dict().keys() == before.keys()
    assert all(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_fitting_twice_is_fitting_once(store: GraphStore) -> None:
    losses = []
    for parts in ((4,), (1, 3)):
        torch.manual_seed(0)
        trainer = trainer_of(store, GCN(5, 8, 2, 3, dropout=0.5))
        for epochs in parts:
            trainer.fit(epochs)
        losses.append([record.loss for record in trainer.history])
        assert [record.epoch for record in trainer.history] == [1, 2, 3, 4]
    assert losses[0] == losses[1]


def test_accuracies_are_those_of_the_predictions(store: GraphStore) -> None:
    data = small_graph()
    for dropout in (0.0, 0.5):
        model = GCN(5, 8, 2, 3, dropout=dropout)
        trainer = Trainer(model, store, torch.optim.SGD(model.parameters(), lr=0.0))
        (record,) = trainer.fit(1)
        right = trainer.predict().argmax(dim=1) == data.y
        for accuracy, mask in (
            (record.train_accuracy, data.train_mask),
            (record.val_accuracy, data.val_mask),
            (record.test_accuracy, data.test_mask),
        ):
            assert accuracy == pytest.approx(float(right[mask].float().mean()))


def test_evaluation_comes_every_so_many_epochs_and_last(store: GraphStore) -> None:
    records = trainer_of(store, GCN(5, 8, 2, 3, dropout=0.5)).fit(5, eval_every=2)
    assert [record.test_accuracy is not None for record in records] == [False, True, False, True, True]


def test_events_tell_of_every_step_and_byte(store: GraphStore) -> None:
    model, events = GCN(5, 8, 3, 3), list[Event]()
    planner = GreedyPlanner(3)
    budget = smallest_budget(model, store, planner)
    trainer = trainer_of(store, model, device_memory=budget, planner=planner, listeners=[events.append])
    (record,) = trainer.fit(1)
    steps = [event for event in events if isinstance(event, StepFinished)]
    assert [step.step for step in steps] == list(range(len(trainer.plan.workload.steps)))
    moved = dict.fromkeys(record.moved_bytes, 0)
    for event in events:
        if isinstance(event, TransferFinished):
            moved[event.channel] += event.size_bytes
    assert moved == record.moved_bytes == trainer.plan.traffic_bytes


def test_a_loss_that_is_not_finite_stops_before_the_update(store: GraphStore) -> None:
    model = GCN(5, 8, 2, 3)
    trainer = Trainer(model, store, torch.optim.SGD(model.parameters(), lr=1e30))
    with pytest.raises(TrainingError, match="lower learning rate"):
        trainer.fit(50)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_disk_that_fills_up_stops_the_run_with_its_message(
    store: GraphStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real backend, on a write that the operating system refuses half-way through the second epoch."""
    model, planner = GCN(5, 8, 3, 3), GreedyPlanner(3)
    trainer = trainer_of(store, model, device_memory=smallest_budget(model, store, planner), planner=planner)
    put, calls = ArrowBackend.put, 0

    def filling(self: ArrowBackend, key: str, array: Array) -> None:
        nonlocal calls
        calls += 1
        if calls > 30:
            raise TierError("the disk is full") from OSError(errno.ENOSPC, "No space left on device")
        put(self, key, array)

    monkeypatch.setattr(ArrowBackend, "put", filling)
    with pytest.raises(TierError, match="the disk is full"):
        trainer.fit(50)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"device": "tpu"}, "'cpu' and 'cuda'"),
        ({"host_memory": "1GiB"}, "only makes sense with --device cuda"),
        ({"device_memory": "many"}, "is not a size"),
        ({"device_memory": 0}, "above zero"),
    ],
)
def test_settings_are_checked_when_the_trainer_is_made(
    options: dict[str, object], sentence: str, store: GraphStore
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        trainer_of(store, GCN(5, 8, 2, 3), **options)


def test_models_with_too_few_outputs_and_other_optimizers_are_refused(store: GraphStore) -> None:
    with pytest.raises(ConfigError, match="2 outputs"):
        trainer_of(store, GCN(5, 8, 2, 2))
    model = GCN(5, 8, 2, 3)
    with pytest.raises(ConfigError, match="LBFGS"):
        Trainer(model, store, torch.optim.LBFGS(model.parameters()))


def test_several_labels_a_node_are_learned(tmp_path: Path) -> None:
    data = small_graph()
    data.y = torch.stack([data.x[:, 0] > 0, data.x[:, 1] > 0], dim=1).float()
    store = store_of(data, tmp_path / "labels")
    model = GraphSAGE(5, 16, 2, 2)
    trainer = Trainer(model, store, torch.optim.Adam(model.parameters(), lr=0.05))
    records = trainer.fit(60)
    assert records[-1].loss < 0.5 * records[0].loss
    assert records[-1].train_accuracy is not None
    assert records[-1].train_accuracy > 0.9
