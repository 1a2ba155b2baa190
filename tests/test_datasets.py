"""The built-in data sets, their cache, and the generator."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

from flexgnn.core.errors import ConfigError, GraphError, PluginError, StoreError
from flexgnn.core.graph.store import GraphStore
from flexgnn.datasets import BUILTIN_DATASETS, generate, load_dataset
from flexgnn.datasets.wordnet import read_wordnet


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLEXGNN_CACHE", str(tmp_path))
    return tmp_path / "datasets"


@pytest.fixture(scope="module")
def verbs(tmp_path_factory: pytest.TempPathFactory) -> GraphStore:
    return load_dataset("wordnet-verbs", tmp_path_factory.mktemp("verbs") / "verbs.zarr")


def test_wordnet_is_whole() -> None:
    graph = read_wordnet()
    assert len(graph.classes) == len(graph.word_counts) == 117_791
    assert graph.edge_index().shape == (2, 368_175)
    assert len(graph.class_names) == 45
    assert len(np.unique(graph.classes)) == 45
    assert graph.class_names[5] == "noun.animal"
    assert graph.class_names[graph.classes[-1]] == "adv.all"
    assert graph.word_counts.sum() == len(graph.word_ids)
    assert graph.words[:3] == ["a", "of", "the"]
    assert graph.word_ids.max() < len(graph.words)


def test_features_are_hashed_words_of_the_wanted_width() -> None:
    verbs = read_wordnet().restricted_to("verb.")
    for width in (16, 512):
        features = verbs.features(width)
        assert features.shape == (13_789, width)
        np.testing.assert_allclose(np.linalg.norm(features, axis=1)[verbs.word_counts > 0], 5, rtol=1e-5)


def test_verbs_are_a_graph_of_their_own(verbs: GraphStore) -> None:
    info = verbs.info
    assert (info.name, info.num_nodes, info.num_edges, info.num_features) == ("wordnet-verbs", 13_789, 31_334, 512)
    assert (info.num_classes, info.symmetric, info.weighted) == (15, True, False)
    assert all(name.startswith("verb.") for name in info.class_names)
    data = verbs.to_pyg()
    sizes = [int(data[mask].sum()) for mask in ("train_mask", "val_mask", "test_mask")]
    assert sizes == [8274, 2757, 2758]


def test_a_data_set_is_built_once(cache: Path) -> None:
    first = load_dataset("wordnet-verbs")
    assert first.path.parent == cache
    built = first.path.stat().st_ino
    assert load_dataset("wordnet-verbs").path.stat().st_ino == built


@pytest.mark.parametrize("victim", ["features/c.3.0", "zarr.json"])
def test_a_damaged_cached_store_is_built_again(cache: Path, victim: str) -> None:
    first = load_dataset("wordnet-verbs")
    (first.path / victim).unlink()
    again = load_dataset("wordnet-verbs")
    assert again.fingerprint == first.fingerprint
    assert (again.path / victim).exists()


def test_a_damaged_store_at_a_path_of_the_user_is_left_alone(tmp_path: Path) -> None:
    store = load_dataset("wordnet-verbs", tmp_path / "v.zarr")
    (store.path / "zarr.json").unlink()
    with pytest.raises(StoreError, match="not a graph store"):
        load_dataset("wordnet-verbs", store.path)
    assert (store.path / "features").exists()


def _fingerprint(_: int) -> str:
    return load_dataset("wordnet-verbs").fingerprint


@pytest.mark.slow
def test_two_processes_may_build_at_the_same_time(cache: Path, verbs: GraphStore) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_fingerprint, range(2), chunksize=1) == [verbs.fingerprint] * 2
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".zarr"]


def test_an_unwritable_cache_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLEXGNN_CACHE", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="FLEXGNN_CACHE"):
        load_dataset("wordnet-verbs")


def test_an_unknown_name_lists_those_that_exist() -> None:
    with pytest.raises(PluginError) as caught:
        load_dataset("wordnot")
    assert all(dataset.name in str(caught.value) for dataset in BUILTIN_DATASETS)


def test_the_generator_makes_what_was_asked_for(tmp_path: Path) -> None:
    store = generate(
        tmp_path / "g.zarr", num_nodes=5000, num_edges=60_000, num_features=7, num_classes=3, chunk_rows=999
    )
    info = store.info
    assert (info.num_nodes, info.num_features, info.num_classes, info.chunk_rows) == (5000, 7, 3, 999)
    assert abs(info.num_edges - 60_000) < 0.1 * 60_000
    assert (info.symmetric, info.order) == (True, "community")
    source, destination = store.to_pyg().edge_index
    pairs = set(zip(source.tolist(), destination.tolist(), strict=True))
    assert len(pairs) == info.num_edges
    assert pairs == {(j, i) for i, j in pairs}
    assert all(i != j for i, j in pairs)
    degrees = torch.bincount(source, minlength=5000)
    assert degrees[:4975].max() < 60
    assert degrees[4975] > 300
    assert degrees[4975] == degrees.max()


def test_generated_classes_can_be_learned_from_neighbours(tmp_path: Path) -> None:
    data = generate(tmp_path / "g.zarr", num_nodes=3000, num_edges=30_000, num_classes=3).to_pyg()
    source, destination = data.edge_index
    assert (data.y[source] == data.y[destination]).float().mean() > 0.5


def test_generated_graphs_depend_on_the_seed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"num_nodes": 2000, "num_edges": 20_000, "num_features": 5}
    first = generate(tmp_path / "g.zarr", **numbers).to_pyg()
    monkeypatch.setattr("flexgnn.datasets.synthetic._SORTED_AT_ONCE", 1000)
    again = generate(tmp_path / "h.zarr", chunk_rows=77, **numbers).to_pyg()
    other = generate(tmp_path / "i.zarr", seed=1, **numbers).to_pyg()
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.y, again.y)
    assert torch.equal(first.edge_index, again.edge_index)
    assert first.edge_index.shape != other.edge_index.shape or not torch.equal(first.edge_index, other.edge_index)
    assert not torch.equal(first.x, other.x)


@pytest.mark.parametrize(
    "numbers",
    [
        {"num_nodes": 1, "num_edges": 0},
        {"num_nodes": 10, "num_edges": 46},
        {"num_nodes": 10, "num_edges": -1},
        {"num_nodes": 10, "num_edges": 20, "num_features": 0},
        {"num_nodes": 10, "num_edges": 20, "num_communities": 10},
        {"num_nodes": 10, "num_edges": 20, "hub_exponent": 1.0},
        {"num_nodes": 10, "num_edges": 20, "seed": -1},
    ],
)
def test_the_generator_refuses_impossible_numbers(tmp_path: Path, numbers: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        generate(tmp_path / "g.zarr", **numbers)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["EdgeSorter.add", "EdgeSorter.columns"])
def test_a_full_disk_leaves_nothing_of_a_generated_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"flexgnn.datasets.synthetic.{step}", full)
    with pytest.raises(StoreError, match="No space left on device"):
        generate(tmp_path / "g.zarr", num_nodes=50, num_edges=100)
    assert list(tmp_path.iterdir()) == []


def test_the_generator_replaces_only_when_asked(tmp_path: Path) -> None:
    generate(tmp_path / "g.zarr", num_nodes=50, num_edges=100)
    with pytest.raises(GraphError, match="already exists"):
        generate(tmp_path / "g.zarr", num_nodes=60, num_edges=100)
    assert generate(tmp_path / "g.zarr", num_nodes=60, num_edges=100, overwrite=True).info.num_nodes == 60
    assert [path.name for path in tmp_path.iterdir()] == ["g.zarr"]
