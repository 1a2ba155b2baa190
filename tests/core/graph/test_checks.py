"""Graphs that can't be trained on are refused in one sentence, and nothing is left on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Data, HeteroData

from flexgnn.core.errors import ConfigError, FlexGNNError, GraphError, StoreError
from flexgnn.core.graph import importing
from flexgnn.core.graph.store import GraphStore


def good_graph() -> Data:
    mask = torch.arange(6) < 3
    return Data(
        x=torch.arange(12.0).reshape(6, 2),
        edge_index=torch.tensor([[0, 1, 2, 5], [1, 2, 3, 0]]),
        edge_weight=torch.ones(4),
        y=torch.tensor([0, 1, 2, 0, 1, 2]),
        train_mask=mask,
        val_mask=~mask,
        test_mask=~mask,
    )


def put(**values: Any) -> Callable[[Data], None]:
    def change(data: Data) -> None:
        for key, value in values.items():
            data[key] = value

    return change


def at(key: str, index: Any, value: Any) -> Callable[[Data], None]:
    def change(data: Data) -> None:
        data[key][index] = value

    return change


ONES = torch.ones(6, dtype=torch.bool)
MULTI = torch.zeros(6, 3)

BAD = {
    "no edges": (put(edge_index=None), "has no edges: set data.edge_index"),
    "edges transposed": (put(edge_index=torch.zeros(4, 2, dtype=torch.long)), r"edge_index has shape \[4, 2\]"),
    "edges not integer": (put(edge_index=torch.zeros(2, 4)), "edge_index has dtype torch.float32"),
    "edge to nowhere": (at("edge_index", (1, 2), 6), r"edge_index\[1, 2\] is 6, .* from 0 to 5"),
    "edge from below": (at("edge_index", (0, 3), -1), r"edge_index\[0, 3\] is -1"),
    "no features": (put(x=None, num_nodes=6), "has no features: set data.x"),
    "features of one dimension": (put(x=torch.zeros(6)), r"data.x has shape \[6\]"),
    "features of another number of nodes": (put(num_nodes=7), "data.x has 6 rows, but data.num_nodes is 7"),
    "features sparse": (put(x=torch.eye(6).to_sparse()), "data.x is a sparse tensor"),
    "feature NaN": (at("x", (4, 1), float("nan")), r"data.x\[4, 1\] is nan"),
    "feature infinite as float32": (put(x=torch.full((6, 2), 1e39, dtype=torch.float64)), r"data.x\[0, 0\] is 1e\+39"),
    "attributes too few": (
        put(edge_attr=torch.ones(3, 2)),
        r"edge_attr has shape \[3, 2\].* it must be \[4, columns\]",
    ),
    "attributes a vector": (put(edge_attr=torch.ones(4)), r"edge_attr has shape \[4\].*view\(-1, 1\)"),
    "attribute infinite": (put(edge_attr=torch.full((4, 2), float("inf"))), r"edge_attr\[0, 0\] is inf"),
    "types of fractions": (put(edge_type=torch.ones(4)), "edge_type has shape .* dtype torch.float32"),
    "types below zero": (put(edge_type=torch.tensor([0, -1, 2, 0])), "edge_type has values from -1 to 2"),
    "weights too few": (put(edge_weight=torch.ones(3)), "each of the 4 edges"),
    "weight infinite": (at("edge_weight", 2, float("inf")), r"edge_weight\[2\] is inf"),
    "no labels": (put(y=None), "has no labels: set data.y"),
    "labels too few": (put(y=torch.zeros(5, dtype=torch.long)), "each of the 6 nodes"),
    "label missing in a mask": (at("y", 5, -1), r"data.y\[5\] is -1"),
    "label NaN in a mask": (put(y=torch.full((6,), float("nan"))), r"data.y\[0\] is nan"),
    "label neither 0 nor 1": (put(y=MULTI + 2), r"data.y\[0, 0\] is 2; .* 0 or 1"),
    "mask too short": (put(val_mask=ONES[:5]), r"data.val_mask has shape \[5\]"),
    "mask of ids": (put(train_mask=torch.arange(6)), "dtype torch.int64; it must be torch.bool"),
    "several splits": (put(train_mask=ONES.repeat(10, 1).T), r"which is 10 splits: pick one.*\[:, 0\]"),
    "train mask missing": (put(train_mask=None), "but no train_mask"),
    "train mask empty": (put(train_mask=~ONES), "No node is in the training set"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_graph_is_refused_and_leaves_nothing(
    tmp_path: Path, change: Callable[[Data], None], message: str
) -> None:
    data = good_graph()
    change(data)
    with pytest.raises(GraphError, match=message) as caught:
        GraphStore.from_pyg(data, tmp_path / "g.zarr")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_good_graph_is_accepted(tmp_path: Path) -> None:
    assert GraphStore.from_pyg(good_graph(), tmp_path / "g.zarr").info.num_classes == 3


def test_class_names_bound_the_labels(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"data.y\[2\] is 2.* from 0 to 1"):
        GraphStore.from_pyg(good_graph(), tmp_path / "g.zarr", class_names=["a", "b"])
    data = good_graph()
    data.y = MULTI
    with pytest.raises(GraphError, match=r"2 class names, but data.y has 3 columns"):
        GraphStore.from_pyg(data, tmp_path / "g.zarr", class_names=["a", "b"])


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        (HeteroData(), r"is a HeteroData, .* import data.to_homogeneous\(\), which has them all as one type"),
        ({"x": 1}, "is a dict, and only torch_geometric.data.Data"),
        (None, "is a NoneType, and only torch_geometric.data.Data"),
    ],
)
def test_only_pyg_data_is_imported(tmp_path: Path, graph: object, sentence: str) -> None:
    with pytest.raises(GraphError, match=sentence):
        GraphStore.from_pyg(graph, tmp_path / "g.zarr")


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="auto, clusters, metis, rcm, given"):
        GraphStore.from_pyg(good_graph(), tmp_path / "g.zarr", order="best")
    with pytest.raises(ConfigError, match="chunk_rows is 0"):
        GraphStore.from_pyg(good_graph(), tmp_path / "g.zarr", chunk_rows=0)
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "g.zarr"
    GraphStore.from_pyg(good_graph(), path, name="old")
    with pytest.raises(GraphError, match="already exists"):
        GraphStore.from_pyg(good_graph(), path, name="new")
    assert GraphStore.open(path).info.name == "old"
    GraphStore.from_pyg(good_graph(), path, name="new", overwrite=True)
    assert GraphStore.open(path).info.name == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_is_no_store_is_never_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter").write_text("one")
    with pytest.raises(GraphError, match="not a graph store"):
        GraphStore.from_pyg(good_graph(), precious, overwrite=True)
    assert (precious / "chapter").read_text() == "one"


def test_a_missing_parent_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Could not write"):
        GraphStore.from_pyg(good_graph(), tmp_path / "missing" / "g.zarr")


@pytest.mark.parametrize(
    ("failure", "expected"), [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left"), StoreError)]
)
@pytest.mark.parametrize("existing", [False, True])
def test_an_import_that_breaks_off_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, expected: type, existing: bool
) -> None:
    path = tmp_path / "g.zarr"
    if existing:
        GraphStore.from_pyg(good_graph(), path, name="old")

    def broken(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(importing, "_write_csr", broken)
    with pytest.raises(expected):
        GraphStore.from_pyg(good_graph(), path, name="new", overwrite=True)
    assert list(tmp_path.iterdir()) == ([path] if existing else [])
    if existing:
        assert GraphStore.open(path).info.name == "old"


def test_every_refusal_is_an_error_with_exit_code_2() -> None:
    assert all(error.exit_code == 2 for error in (GraphError, StoreError, ConfigError, FlexGNNError))
