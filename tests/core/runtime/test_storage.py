"""Training over several tiers, and what happens when one fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch_geometric.nn import GCN

from flexgnn import Callback, GraphStore, TierSpec, Trainer
from flexgnn.backends.arrow import ArrowBackend
from flexgnn.core.errors import BudgetError, ConfigError, DamagedBlobError, PluginError, TierError, TierFullError
from flexgnn.core.plan.decisions import Decisions
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.sketch import Sketch
from flexgnn.core.plan.ways import Way, spilling
from flexgnn.core.planner import Planner
from flexgnn.core.runtime.events import DamageFound, EpochRecord, Event, SetupFinished, TierOpened
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import small_graph, store_of


@pytest.fixture
def store(tmp_path: Path) -> GraphStore:
    return store_of(small_graph(num_nodes=70, num_edges=400), tmp_path / "graph")


class Spilling(Planner):
    """Five blocks, packed halos, and nothing stays that could leave."""

    name = "spilling"

    def decide(self, problem: PlanningProblem) -> Decisions:
        workload = problem.workload(problem.blocks(-(-problem.choices[-1].count // 5)))
        sketch = Sketch(problem, workload, spilling(workload, 1, problem.recomputable()[0], Way("packed")))
        return sketch.decided(sketch.nothing)


def trainer_of(
    store: GraphStore,
    listen: Callable[[Event], None] = lambda event: None,
    planner: Planner | None = None,
    **options: object,
) -> Trainer:
    """A trainer that spills all that can be."""
    torch.manual_seed(0)
    model = GCN(5, 8, 3, 3, dropout=0.3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return Trainer(model, store, optimizer, planner=planner or Spilling(), listeners=[listen], **options)  # type: ignore[arg-type]


def losses(trainer: Trainer, epochs: int = 3) -> list[float]:
    return [record.loss for record in trainer.fit(epochs)]


@pytest.fixture
def reference(store: GraphStore) -> list[float]:
    """Losses with everything in memory."""
    return losses(trainer_of(store, planner=GreedyPlanner()))


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    return first, second


def test_several_tiers_train_to_the_same_bits(
    store: GraphStore, places: tuple[Path, Path], reference: list[float]
) -> None:
    whole = sum(trainer_of(store).plan.stored_bytes.values())
    opened: list[Event] = []
    trainer = trainer_of(
        store,
        opened.append,
        tiers=[f"fast=arrow:{places[0]},capacity={whole // 3}", f"bulk=arrow:{places[1]}"],
        place={"topology": "bulk"},
        verify=True,
    )
    assert losses(trainer) == reference
    peaks, moved = trainer.history[-1].peak_bytes, trainer.history[-1].moved_bytes
    assert 0 < peaks["fast"] <= whole // 3
    assert peaks["fast"] + peaks["bulk"] == whole
    assert moved == trainer.plan.traffic_bytes
    assert all(moved[channel] > 0 for channel in ("fast read", "fast write", "bulk read"))
    locations = [Path(event.location) for event in opened if isinstance(event, TierOpened)]
    assert sorted(path.parent.parent for path in locations) == sorted(places)
    assert [list(place.iterdir()) for place in places] == [[], []]


def test_what_makes_a_tier_can_be_given_in_place_of_a_name(store: GraphStore, reference: list[float]) -> None:
    trainer = trainer_of(store, tiers=[TierSpec(name="mine", backend=ArrowBackend)])
    assert losses(trainer) == reference
    assert trainer.history[-1].moved_bytes["mine write"] > 0


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"tiers": ["fast"]}, ConfigError, "write NAME=BACKEND"),
        ({"tiers": ["a=arrow", "a=arrow"]}, ConfigError, "2 storage tiers called 'a'"),
        ({"tiers": ["ram=arrow"]}, ConfigError, "can't be called 'ram'"),
        ({"tiers": ["a=arrow,capacity=much"]}, ConfigError, "is not a size"),
        ({"tiers": ["a=arrow,colour=red"]}, ConfigError, "no setting 'colour'; it has none"),
        ({"tiers": ["a=arow"]}, PluginError, "Did you mean 'arrow'"),
        ({"tiers": ["a=arrow:/nowhere"]}, TierError, "/nowhere does not exist"),
        ({"tiers": ["a=arrow"], "ssd_path": "/tmp"}, ConfigError, "described twice"),
        ({"place": {"halos": "fast"}}, ConfigError, "the storage tiers are: arrow"),
        ({"place": {"weights": "arrow"}}, ConfigError, "there are: activations"),
        ({"ssd_options": {"level": 3}}, ConfigError, "no setting 'level'"),
    ],
)
def test_tiers_are_checked_when_the_trainer_is_made(
    options: dict[str, object], error: type[Exception], sentence: str, store: GraphStore
) -> None:
    with pytest.raises(error, match=sentence):
        trainer_of(store, **options)


def test_a_capacity_that_is_too_small_is_refused_before_training(store: GraphStore) -> None:
    with pytest.raises(BudgetError, match=r"there is room for 100 B on a"):
        trainer_of(store, tiers=["a=arrow,capacity=100"]).plan  # noqa: B018


class BitFlipper:
    """Flips a bit of every file of some name in the scratch directory, at some events."""

    def __init__(self, part: str, due: Callable[[Event], bool]) -> None:
        self._part, self._due = part, due
        self.events: list[Event] = []
        self._location = Path()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, TierOpened):
            self._location = Path(event.location)
        if self._due(event):
            files = [file for file in self._location.iterdir() if self._part in file.name]
            assert files
            for file in files:
                content = bytearray(file.read_bytes())
                body = 8 + int.from_bytes(content[4:8], "little")
                if body < content.rindex(b'{"key"'):
                    content[body] ^= 1
                    file.write_bytes(content)


@pytest.mark.parametrize("part", ["packed", "pack"])
def test_a_flipped_bit_is_told_of_and_the_epoch_repeated_to_the_same_bits(
    part: str, store: GraphStore, reference: list[float]
) -> None:
    flipper = BitFlipper(part, lambda event: isinstance(event, EpochRecord) and event.epoch == 1)
    trainer = trainer_of(store, flipper, verify=True)
    assert losses(trainer) == reference
    (found,) = [event for event in flipper.events if isinstance(event, DamageFound)]
    assert found.epoch == 2
    for words in (part, "arrow", ".arrow", "not what was written"):
        assert words in found.message
    assert [record.epoch for record in trainer.history] == [1, 2, 3]


def test_a_tensor_that_someone_removed_is_told_of_and_made_again(store: GraphStore, reference: list[float]) -> None:
    events: list[Event] = []

    def remove(event: Event) -> None:
        events.append(event)
        if isinstance(event, EpochRecord) and event.epoch == 1:
            location = next(Path(e.location) for e in events if isinstance(e, TierOpened))
            next(file for file in location.iterdir() if "packed" in file.name).unlink()

    assert losses(trainer_of(store, remove)) == reference
    (found,) = [event for event in events if isinstance(event, DamageFound)]
    assert "is gone" in found.message


def test_damage_in_the_evaluation_makes_no_second_update(store: GraphStore, reference: list[float]) -> None:
    def after_the_loss(event: Event) -> bool:
        return getattr(event, "phase", "") == "backward" and getattr(event, "epoch", 0) == 2 and event.block == 4  # type: ignore[union-attr]

    done = False

    def once(event: Event) -> bool:
        nonlocal done
        due = after_the_loss(event) and getattr(event, "stage", -1) == 0 and not done
        done = done or due
        return due

    steps: list[int] = []

    class Counting(Callback):
        def on_before_optimizer_step(self, trainer: Trainer) -> None:
            steps.append(len(trainer.history) + 1)

    flipper = BitFlipper("packed", once)
    trainer = trainer_of(store, flipper, verify=True)
    assert [record.loss for record in trainer.fit(3, callbacks=[Counting()])] == reference
    assert sum(isinstance(event, DamageFound) for event in flipper.events) == 1
    assert steps == [1, 2, 3]


def test_damage_that_comes_again_stops_the_run_with_the_model_of_the_last_epoch(store: GraphStore) -> None:
    trainer_of_one = trainer_of(store)
    trainer_of_one.fit(1)
    flipper = BitFlipper("packed", lambda event: isinstance(event, SetupFinished) and len(trainer.history) == 1)
    trainer = trainer_of(store, verify=True)
    trainer.fit(1)
    trainer.listeners.append(flipper)
    with pytest.raises(DamagedBlobError, match="not what was written"):
        trainer.fit(3)
    assert len(trainer.history) == 1
    for ours, expected in zip(trainer.model.parameters(), trainer_of_one.model.parameters(), strict=True):
        assert torch.equal(ours, expected)


def test_without_verification_nothing_is_checked(store: GraphStore, reference: list[float]) -> None:
    flipper = BitFlipper("pack%2f", lambda event: isinstance(event, EpochRecord) and event.epoch == 1)
    found = losses(trainer_of(store, flipper))
    assert not any(isinstance(event, DamageFound) for event in flipper.events)
    assert found[0] == reference[0]


def test_a_disk_that_fills_up_stops_the_run_and_keeps_the_model(store: GraphStore, small_disk: Path) -> None:
    """A real file system, filled by someone else in the middle of a run."""

    def fill(event: Event) -> None:
        if isinstance(event, EpochRecord) and event.epoch == 2:
            free = os.statvfs(small_disk).f_bavail * 4096
            (small_disk / "other").write_bytes(bytes(free))

    trainer = trainer_of(store, fill, ssd_path=small_disk)
    with pytest.raises(TierFullError, match=r"No space left on device.*free some space"):
        trainer.fit(50)
    # What replaces a blob is written over one that was replaced: the disk may do for a while.
    finished = len(trainer.history)
    assert finished >= 2
    expected = trainer_of(store)
    expected.fit(finished)
    for ours, theirs in zip(trainer.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    (small_disk / "other").unlink()
    assert list(small_disk.iterdir()) == []
    assert [record.epoch for record in trainer.fit(1)] == [finished + 1]
