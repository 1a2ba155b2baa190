"""A store that is damaged, incomplete or of another version is told of, never read as if it were whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from flexgnn.core.errors import StoreError
from flexgnn.core.graph.store import GraphStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    data = Data(
        x=torch.randn(10, 3),
        edge_index=torch.randint(10, (2, 40)),
        edge_weight=torch.rand(40),
        y=torch.arange(10),
    )
    return GraphStore.from_pyg(data, tmp_path / "g.zarr", chunk_rows=3).path


def chunk_files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("c.*") if file.is_file())


def read_everything(store: GraphStore) -> None:
    store.to_pyg()
    for part in ("indptr", "indices", "weights"):
        store.read(f"out/{part}", 0, store.length(f"out/{part}"))


def test_a_flipped_bit_in_any_chunk_is_found(path: Path) -> None:
    files = chunk_files(path)
    assert len(files) == 4 * 4 + 6
    for file in files:
        whole = file.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(StoreError, match=f"{path}.*array {file.parent.relative_to(path)}"):
                read_everything(GraphStore.open(path))
        file.write_bytes(whole)
    read_everything(GraphStore.open(path))


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-5])])
def test_a_missing_or_short_chunk_is_found_at_opening(path: Path, damage: Callable[[Path], None]) -> None:
    file = path / "features" / "c.2.0"
    damage(file)
    with pytest.raises(StoreError, match="chunk 2 of array features"):
        GraphStore.open(path)


def test_a_chunk_that_vanishes_after_opening_is_found_at_reading(path: Path) -> None:
    store = GraphStore.open(path)
    (path / "labels" / "c.1").unlink()
    np.testing.assert_equal(len(store.read("labels", 0, 3)), 3)
    with pytest.raises(StoreError, match="chunk 1 of array labels"):
        store.read("labels", 2, 5)


def test_a_missing_array_is_found(path: Path) -> None:
    shutil.rmtree(path / "out" / "indices")
    with pytest.raises(StoreError, match="out/indices is missing"):
        GraphStore.open(path)


@pytest.mark.parametrize(("key", "value"), [("shape", [11]), ("data_type", "int32")])
def test_another_shape_or_dtype_is_found(path: Path, key: str, value: object) -> None:
    edit(path / "labels", lambda metadata: metadata.update({key: value}))
    with pytest.raises(StoreError, match="array labels is not int64"):
        GraphStore.open(path)


def edit(directory: Path, change: Callable[[dict[str, object]], object]) -> None:
    file = directory / "zarr.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def attributes(content: dict) -> dict:
    return content["attributes"]["flexgnn"]


@pytest.mark.parametrize("codec", ["zstd", "gzip", "transpose"])
def test_other_codecs_are_refused_before_anything_is_read(path: Path, codec: str) -> None:
    file = path / "features" / "zarr.json"
    metadata = json.loads(file.read_text())
    configuration = {"zstd": {"level": 1, "checksum": False}, "gzip": {"level": 1}, "transpose": {"order": [1, 0]}}
    place = 0 if codec == "transpose" else 1
    metadata["codecs"].insert(place, {"name": codec, "configuration": configuration[codec]})
    file.write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="array features is stored with other codecs"):
        GraphStore.open(path)


def test_a_newer_version_is_refused(path: Path) -> None:
    edit(path, lambda content: attributes(content).update(version=2))
    with pytest.raises(StoreError, match=r"format version 2, .* up to 1"):
        GraphStore.open(path)


CHANGES = {
    "a fact changed": lambda content: attributes(content)["info"].update(num_classes=3),
    "a fact of another type": lambda content: attributes(content)["info"].update(num_nodes="10"),
    "a fact missing": lambda content: attributes(content)["info"].pop("name"),
    "facts missing": lambda content: attributes(content).pop("info"),
    "digest changed": lambda content: attributes(content)["digests"].update(features="0"),
    "fingerprint missing": lambda content: attributes(content).pop("fingerprint"),
    "version missing": lambda content: attributes(content).pop("version"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_attributes_are_found(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    edit(path, change)
    with pytest.raises(StoreError, match="attributes"):
        GraphStore.open(path)


def test_broken_metadata_is_found(path: Path) -> None:
    (path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=r"zarr\.json can't be read"):
        GraphStore.open(path)


def test_what_is_no_store_is_refused(tmp_path: Path, path: Path) -> None:
    with pytest.raises(StoreError, match="no graph store at"):
        GraphStore.open(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="not a graph store"):
        GraphStore.open(tmp_path / "empty")
    with pytest.raises(StoreError, match="not a graph store"):
        GraphStore.open(path / "zarr.json")
    edit(path, lambda content: content.update(attributes={}))
    with pytest.raises(StoreError, match="not a graph store of FlexGNN"):
        GraphStore.open(path)
