from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data
from torch_geometric.nn import GCN, GraphSAGE

from flexgnn import EarlyStopping, GraphStore, Trainer
from flexgnn.core.errors import ConfigError, TrainingError
from flexgnn.core.runtime.events import BestWeightsRestored, EpochRecord, Event
from tests.graphs import small_graph, store_of

APART = [{}, {"norm": "batch_norm"}, {"dropout": 0.5}]
"""Without an evaluation pass; with running statistics; with dropout."""


def noisy_graph() -> Data:
    """Labels follow the features, but for noise: accuracies rise, and fall again where the noise is learned."""
    data = small_graph(num_nodes=150, num_edges=300)
    noise = torch.randn(150, 3, generator=torch.Generator().manual_seed(1))
    data.y = (data.x[:, :3] + 0.7 * noise).argmax(dim=1)
    return data


@pytest.fixture
def store(tmp_path: Path) -> GraphStore:
    return store_of(noisy_graph(), tmp_path / "graph", chunk_rows=40)


def trainer_of(store: GraphStore, lr: float = 0.05, **options: object) -> Trainer:
    torch.manual_seed(0)
    model = GraphSAGE(5, 8, 2, 3, **options)
    return Trainer(model, store, torch.optim.Adam(model.parameters(), lr=lr))


def val_accuracy(logits: Tensor, data: Data) -> float:
    return float((logits.argmax(dim=1) == data.y)[data.val_mask].float().mean())


def first_best(history: list[EpochRecord], name: str = "val_accuracy") -> EpochRecord:
    return max(history, key=lambda record: getattr(record, name))


def assert_weights_of(best: EpochRecord, trainer: Trainer, store: GraphStore, options: dict[str, object]) -> None:
    """They are those of a training that ended there: after the epoch, or before it if it scored its beginning."""
    expected = trainer_of(store, **options)
    expected.fit(best.epoch if options else best.epoch - 1)
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, expected.model.state_dict()[name]), name


@pytest.mark.parametrize("options", APART)
def test_the_very_weights_of_the_best_score_are_kept(options: dict[str, object], store: GraphStore) -> None:
    trainer, stopping = trainer_of(store, **options), EarlyStopping(patience=6)
    records = trainer.fit(100, callbacks=[stopping])
    best = first_best(records)
    assert stopping.best == best
    assert 1 < best.epoch == len(records) - 6  # so the first and the last weights are not the best ones
    assert best.val_accuracy == pytest.approx(val_accuracy(trainer.predict(), noisy_graph()))
    assert_weights_of(best, trainer, store, options)


@pytest.mark.parametrize("options", APART)
def test_the_best_weights_are_kept_where_the_fit_ends_first(options: dict[str, object], store: GraphStore) -> None:
    trainer, stopping = trainer_of(store, **options), EarlyStopping(patience=1000)
    events: list[Event] = []
    trainer.listeners.append(events.append)
    records = trainer.fit(25, callbacks=[stopping])
    best = first_best(records)
    assert len(records) == 25
    assert best.val_accuracy == pytest.approx(val_accuracy(trainer.predict(), noisy_graph()))
    assert 1 < best.epoch < 25
    assert_weights_of(best, trainer, store, options)
    score = best.val_accuracy or 0
    expected = BestWeightsRestored(epoch=best.epoch, monitor="val_accuracy", score=score, stopped_after=None)
    assert [event for event in events if isinstance(event, BestWeightsRestored)] == [expected]


def test_the_lowest_loss_is_that_of_the_weights_before_the_update(store: GraphStore) -> None:
    """With a batch norm too, whose accuracies are those after it."""
    trainer = trainer_of(store, lr=0.5, norm="batch_norm")
    stopping = EarlyStopping(patience=3, monitor="loss")
    records = trainer.fit(9, callbacks=[stopping])
    best = min(records, key=lambda record: record.loss)
    assert stopping.best == best
    assert 1 < best.epoch < 9
    expected = trainer_of(store, lr=0.5, norm="batch_norm")
    expected.fit(best.epoch - 1)
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, expected.model.state_dict()[name]), name
    data, model = noisy_graph(), copy.deepcopy(trainer.model).train()
    loss = cross_entropy(model(data.x, data.edge_index)[data.train_mask], data.y[data.train_mask])
    assert float(loss.detach()) == pytest.approx(best.loss, rel=1e-4)


def test_regression_keeps_the_lowest_error(tmp_path: Path) -> None:
    data = small_graph()
    data.y = torch.randn(40, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    model = GraphSAGE(5, 16, 2, 1)
    store = store_of(data, tmp_path / "numbers")
    trainer = Trainer(model, store, torch.optim.Adam(model.parameters(), lr=0.05))
    records = trainer.fit(100, callbacks=[EarlyStopping(patience=10)])
    assert len(records) < 100
    best = min(records, key=lambda record: record.val_mae)
    error = (trainer.predict()[:, 0] - data.y)[data.val_mask].abs().mean()
    assert best.val_mae == pytest.approx(float(error), rel=1e-5)


def test_patience_counts_evaluations(store: GraphStore) -> None:
    trainer, stopping = trainer_of(store, dropout=0.5), EarlyStopping(patience=2)
    records = trainer.fit(200, eval_every=5, callbacks=[stopping])
    assert stopping.best is not None
    assert stopping.best.epoch % 5 == 0
    assert len(records) == stopping.best.epoch + 10


def test_every_fit_begins_anew(store: GraphStore) -> None:
    trainer, stopping = trainer_of(store, dropout=0.5), EarlyStopping(patience=3)
    finished = len(trainer.fit(100, callbacks=[stopping]))
    records = trainer.fit(100, callbacks=[stopping])
    assert len(records) > 3
    assert stopping.best == first_best(records)
    assert records[0].epoch == finished + 1


def interrupted_in(epoch: int, phase: str) -> object:
    """A listener that is a user's Ctrl-C in a phase of an epoch."""
    evaluations = 0

    def listen(event: Event) -> None:
        nonlocal evaluations
        if type(event).__name__ == "StepFinished" and event.phase == phase and event.stage == 0:
            evaluations += event.block == 0
            if evaluations == epoch:
                evaluations += 1
                raise KeyboardInterrupt

    return listen


@pytest.mark.parametrize(("options", "phase"), [({}, "forward"), ({"dropout": 0.5}, "evaluate")])
def test_an_interrupted_fit_keeps_the_best_weights(options: dict[str, object], phase: str, store: GraphStore) -> None:
    trainer, stopping = trainer_of(store, **options), EarlyStopping(patience=1000)
    trainer.listeners.append(interrupted_in(20, phase))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(1000, callbacks=[stopping])
    assert len(trainer.history) == 19
    best = first_best(trainer.history)
    assert stopping.best == best
    assert best.val_accuracy == pytest.approx(val_accuracy(trainer.predict(), noisy_graph()))
    records = trainer.fit(3, callbacks=[stopping])
    assert [record.epoch for record in records] == [20, 21, 22]
    assert first_best(records).val_accuracy == pytest.approx(val_accuracy(trainer.predict(), noisy_graph()))


def test_a_loss_that_is_not_finite_keeps_the_best_weights(store: GraphStore) -> None:
    trainer = trainer_of(store)
    stopping = EarlyStopping(patience=100)
    diverging = torch.optim.lr_scheduler.MultiStepLR(trainer.optimizer, [5], gamma=1e30)
    with pytest.raises(TrainingError, match="lower learning rate"):
        trainer.fit(50, callbacks=[stopping, lambda trainer, record: diverging.step()])
    assert stopping.best is not None
    assert stopping.best.val_accuracy == pytest.approx(val_accuracy(trainer.predict(), noisy_graph()))


def test_nothing_is_restored_where_nothing_was_scored(store: GraphStore) -> None:
    trainer = trainer_of(store)
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.listeners.append(interrupted_in(1, "forward"))
    events: list[Event] = []
    trainer.listeners.append(events.append)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(5, callbacks=[EarlyStopping(patience=2)])
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert not any(isinstance(event, BestWeightsRestored) for event in events)


@pytest.mark.parametrize("patience", [0, -1])
def test_a_patience_below_one_is_refused(patience: int) -> None:
    with pytest.raises(ConfigError, match=rf"patience {patience} is not accepted.*at least 1"):
        EarlyStopping(patience=patience)


@pytest.mark.parametrize("monitor", ["val_mae", "val_acc", "seconds"])
def test_a_score_that_there_is_not_is_refused(monitor: str, store: GraphStore) -> None:
    trainer = trainer_of(store)
    with pytest.raises(ConfigError, match=rf"no score '{monitor}'.*loss, train_accuracy, val_accuracy, test_accuracy"):
        trainer.fit(1, callbacks=[EarlyStopping(patience=1, monitor=monitor)])
    assert trainer.history == []


def test_without_validation_nodes_the_loss_can_be_monitored(tmp_path: Path) -> None:
    data = small_graph()
    del data.val_mask
    store = store_of(data, tmp_path / "graph")
    model = GCN(5, 8, 2, 3)
    trainer = Trainer(model, store, torch.optim.Adam(model.parameters(), lr=0.01))
    with pytest.raises(ConfigError, match=r"no validation nodes.*monitor another score"):
        trainer.fit(1, callbacks=[EarlyStopping(patience=1)])
    assert len(trainer.fit(3, callbacks=[EarlyStopping(patience=2, monitor="loss")])) == 3
