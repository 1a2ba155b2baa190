"""Public data sets, from files in the formats of their sources; nothing is downloaded."""

from __future__ import annotations

import gzip
import importlib.util
import json
import pickle
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from flexgnn.core.errors import ConfigError
from flexgnn.datasets import load_dataset
from flexgnn.datasets.public import PUBLIC_DATASETS, data_directory

NODES, TRAINING, TEST = 700, 20, 100
RANDOM = np.random.default_rng(0)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLEXGNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FLEXGNN_DATA", str(tmp_path / "files"))
    return tmp_path / "files"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a network, these tests must not use it."""

    def unresolved(*_: object, **__: object) -> None:
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)


def test_a_planetoid_set_is_read_from_its_raw_files(root: Path) -> None:
    """As Yang et al. published them: pickles of SciPy matrices, one-hot labels and lists of neighbours."""
    raw = root / "Cora" / "raw"
    raw.mkdir(parents=True)
    classes = np.arange(NODES) % 3
    features = RANDOM.random((NODES, 6)).astype(np.float32)
    one_hot = np.eye(3, dtype=np.int32)[classes]
    others = NODES - TEST
    files: dict[str, Any] = {
        "x": sp.csr_matrix(features[:TRAINING]),
        "allx": sp.csr_matrix(features[:others]),
        "tx": sp.csr_matrix(features[others:]),
        "y": one_hot[:TRAINING],
        "ally": one_hot[:others],
        "ty": one_hot[others:],
        "graph": {node: [(node + 1) % NODES, (node - 1) % NODES] for node in range(NODES)},
    }
    for name, content in files.items():
        (raw / f"ind.cora.{name}").write_bytes(pickle.dumps(content))
    (raw / "ind.cora.test.index").write_text("".join(f"{node}\n" for node in range(others, NODES)))
    store = load_dataset("cora")
    info, data = store.info, store.to_pyg()
    assert (info.name, info.num_nodes, info.num_edges, info.num_classes) == ("cora", NODES, 2 * NODES, 3)
    assert info.symmetric
    assert torch.equal(data.y, torch.from_numpy(classes))
    assert torch.equal(data.x, torch.from_numpy(features))
    assert [int(data[f"{part}_mask"].sum()) for part in ("train", "val", "test")] == [TRAINING, 500, TEST]


def test_a_set_of_graphsaint_with_several_labels_is_read_from_its_raw_files(root: Path) -> None:
    raw = root / "Yelp" / "raw"
    raw.mkdir(parents=True)
    labels = RANDOM.integers(0, 2, (30, 4))
    sp.save_npz(raw / "adj_full.npz", sp.eye(30, k=1, format="csr"))
    np.save(raw / "feats.npy", np.ones((30, 2)))
    (raw / "class_map.json").write_text(json.dumps({str(n): labels[n].tolist() for n in range(30)}))
    roles = {"tr": list(range(10)), "va": list(range(10, 20)), "te": list(range(20, 30))}
    (raw / "role.json").write_text(json.dumps(roles))
    store = load_dataset("yelp")
    assert (store.info.task, store.info.num_classes) == ("multi-label", 4)
    assert torch.equal(store.to_pyg().y, torch.from_numpy(labels).float())


@pytest.mark.skipif(importlib.util.find_spec("ogb") is None, reason="the package ogb is not installed")
@pytest.mark.filterwarnings("ignore")  # of ogb's own dependencies
def test_a_set_of_ogb_is_read_from_its_raw_files(root: Path) -> None:
    folder = root / "ogbn_arxiv"
    edges = np.stack([np.arange(29), np.arange(1, 30)], axis=1)
    features = RANDOM.random((30, 2)).astype(np.float32)
    classes = np.arange(30) % 4
    files: dict[str, np.ndarray] = {
        "raw/edge": edges,
        "raw/num-node-list": np.array([[30]]),
        "raw/num-edge-list": np.array([[29]]),
        "raw/node-feat": features,
        "raw/node_year": np.full((30, 1), 2013),
        "raw/node-label": classes[:, None],
        "split/time/train": np.arange(10)[:, None],
        "split/time/valid": np.arange(10, 20)[:, None],
        "split/time/test": np.arange(20, 30)[:, None],
    }
    for name, array in files.items():
        path = folder / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt") as file:
            np.savetxt(file, array, delimiter=",", fmt="%.9g" if array.dtype == np.float32 else "%d")
    (folder / "processed").mkdir()
    (folder / "RELEASE_v1.txt").touch()
    for path in (None, root / "again.zarr"):  # the second time from what ogb saved
        store = load_dataset("ogbn-arxiv", path)
        data = store.to_pyg()
        assert (store.info.num_classes, store.info.symmetric) == (4, False)
        assert torch.equal(data.y, torch.from_numpy(classes))
        assert torch.equal(data.x, torch.from_numpy(features))
        assert torch.equal(data.edge_index, torch.from_numpy(edges.T))
        assert data.test_mask.nonzero().flatten().tolist() == list(range(20, 30))


@pytest.mark.usefixtures("offline")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [dataset.name for dataset in PUBLIC_DATASETS])
def test_files_that_are_missing_are_named_at_once(name: str, root: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        load_dataset(name)
    assert time.monotonic() - started < 30
    sentence = str(caught.value)
    assert f"The data set {name!r}" in sentence
    assert str(root) in sentence
    assert "flexgnn[ogb]" in sentence or "FLEXGNN_DATA" in sentence
    assert "\n" not in sentence


def test_without_a_directory_of_data_files_are_in_the_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_directory() == root
    monkeypatch.delenv("FLEXGNN_DATA")
    assert data_directory() == root.parent / "cache" / "public"
