"""Folded features: computed once in any budget, kept, and never read where they are not what they should be."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from torch_geometric.nn import GCN, GraphSAGE

from flexgnn import GraphStore
from flexgnn.core.errors import StoreError
from flexgnn.core.runtime.events import Event, FoldingSkipped, FoldingStarted, SetupFinished, TierOpened
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import Outcome, small_graph, smallest_budget, store_of, train_with_flexgnn


@pytest.fixture
def store(tmp_path: Path) -> GraphStore:
    return store_of(small_graph(), tmp_path / "graph")


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return GraphSAGE(5, 8, 2, 3)


def trained(model: torch.nn.Module, store: GraphStore) -> tuple[Outcome, list[Event]]:
    """A run over the store as a later process would open it."""
    events: list[Event] = []
    outcome = train_with_flexgnn(model, GraphStore.open(store.path), 2, listeners=[events.append])
    return outcome, events


def started(events: list[Event]) -> list[str]:
    return [event.location for event in events if isinstance(event, FoldingStarted)]


def folded_array(store: GraphStore) -> Path:
    (path,) = (path for path in (store.path / "folded").iterdir() if path.is_dir())
    return path


def test_it_is_computed_by_the_first_run_and_read_by_later_ones(store: GraphStore, model: torch.nn.Module) -> None:
    first, events = trained(model, store)
    assert started(events) == [str(store.path / "folded")]
    second, events = trained(model, store)
    assert started(events) == []
    assert second.losses == first.losses


def test_another_graph_is_folded_anew(store: GraphStore, model: torch.nn.Module) -> None:
    trained(model, store)
    kept = folded_array(store)
    changed = small_graph()
    changed.edge_index[0, 0] = (changed.edge_index[0, 0] + 1) % 38
    other = store_of(changed, store.path.parent / "other")
    (other.path / "folded").mkdir()
    kept.rename(other.path / "folded" / kept.name)
    _, events = trained(model, other)
    assert started(events) == [str(other.path / "folded")]


@pytest.mark.parametrize("damage", ["short chunk", "no chunk", "no metadata"])
def test_what_is_incomplete_is_computed_again(damage: str, store: GraphStore, model: torch.nn.Module) -> None:
    first, _ = trained(model, store)
    array = folded_array(store)
    if damage == "short chunk":
        (array / "c.1.0").write_bytes(b"short")
    else:
        (array / ("c.1.0" if damage == "no chunk" else "zarr.json")).unlink()
    half_written = array.parent / f".{array.name}.0123456789abcdef.tmp"
    half_written.mkdir()
    second, events = trained(model, store)
    assert len(started(events)) == 1
    assert second.losses == first.losses
    assert not half_written.exists()


def test_a_flipped_bit_is_told_of(store: GraphStore, model: torch.nn.Module) -> None:
    trained(model, store)
    chunk = folded_array(store) / "c.1.0"
    content = chunk.read_bytes()
    chunk.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(StoreError, match=r"x_mean can't be read .* Delete them: they are computed again"):
        trained(model, store)


def read_only_store(disk: Path) -> GraphStore:
    store = store_of(small_graph(), disk / "graph")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    return store


def test_a_read_only_store_is_folded_in_the_cache(
    small_disk: Path, tmp_path: Path, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEXGNN_CACHE", str(tmp_path / "cache"))
    store = read_only_store(small_disk)
    first, events = trained(model, store)
    assert started(events) == [str(tmp_path / "cache" / "folded")]
    second, events = trained(model, store)
    assert started(events) == []
    assert second.losses == first.losses


def test_a_run_goes_on_without_it_where_nothing_can_be_written(
    small_disk: Path, store: GraphStore, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = trained(model, store)
    monkeypatch.setenv("FLEXGNN_CACHE", str(small_disk / "cache"))
    outcome, events = trained(model, read_only_store(small_disk))
    assert [type(event) for event in events if isinstance(event, FoldingSkipped | FoldingStarted)] == [FoldingSkipped]
    assert outcome.losses == expected.losses


def test_it_is_the_same_bits_in_the_smallest_budget_some_columns_at_a_time(tmp_path: Path) -> None:
    data = small_graph(num_nodes=64, num_edges=200, num_features=120)
    torch.manual_seed(0)
    model = GCN(120, 2, 2, 3)
    expected = train_with_flexgnn(model, store_of(data, tmp_path / "ample", 8), 2)
    store, planner, events = store_of(data, tmp_path / "scarce", 8), GreedyPlanner(8), list[Event]()
    budget = smallest_budget(model, store, planner)
    outcome = train_with_flexgnn(model, store, 2, device_memory=budget, planner=planner, listeners=[events.append])
    assert outcome.losses == expected.losses
    assert torch.equal(outcome.logits, expected.logits)
    setup = next(index for index, event in enumerate(events) if isinstance(event, SetupFinished))
    assert sum(isinstance(event, TierOpened) for event in events[:setup]) > 2, "one for each group of columns"
