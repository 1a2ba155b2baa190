"""What goes into a store comes out again."""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from flexgnn.core.graph.store import GraphStore


@st.composite
def graphs(draw: st.DrawFn) -> Data:
    """Directed graphs with duplicates, self loops, isolated nodes; some undirected, weighted, multi-label."""
    num_nodes = draw(st.integers(1, 12))
    node = st.integers(0, num_nodes - 1)
    edges = draw(st.lists(st.tuples(node, node), max_size=30))
    if draw(st.booleans()):
        edges += [(j, i) for i, j in edges]
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    data = Data(
        x=torch.from_numpy(rng.standard_normal((num_nodes, draw(st.integers(1, 5)))).astype(np.float32)),
        edge_index=torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T.contiguous(),
        y=torch.from_numpy(rng.integers(3, size=num_nodes)),
        train_mask=torch.from_numpy(rng.random(num_nodes) < 0.5),
        val_mask=torch.from_numpy(rng.random(num_nodes) < 0.3),
        test_mask=torch.from_numpy(rng.random(num_nodes) < 0.3),
    )
    data.train_mask[0] = True
    if draw(st.booleans()):
        data.edge_weight = torch.from_numpy(rng.standard_normal(len(edges)).astype(np.float32))
    if draw(st.booleans()):
        data.y = torch.from_numpy(rng.integers(2, size=(num_nodes, 4)).astype(np.float32))
    return data


def edge_list(data: Data) -> list[tuple[float, ...]]:
    """Edges by source and destination; duplicates in the order given."""
    weights = data.edge_weight.tolist() if data.edge_weight is not None else [1.0] * data.edge_index.shape[1]
    rows = zip(*data.edge_index.tolist(), weights, strict=True)
    return sorted(rows, key=lambda row: row[:2])


@settings(max_examples=60, deadline=None)
@given(
    data=graphs(), chunk_rows=st.sampled_from([None, 1, 2, 3, 5, 100]), order=st.sampled_from(["auto", "rcm", "given"])
)
def test_import_then_export_gives_the_same_graph(data: Data, chunk_rows: int | None, order: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = GraphStore.from_pyg(data, Path(directory) / "graph.zarr", chunk_rows=chunk_rows, order=order)
        back = store.to_pyg()
        in_csr = read_csr(store, "in")
        out_csr = read_csr(store, "out")
        node_ids = store.read("node_ids", 0, store.info.num_nodes)

    assert torch.equal(back.x, data.x)
    assert torch.equal(back.y, data.y)
    for mask in ("train_mask", "val_mask", "test_mask"):
        assert torch.equal(back[mask], data[mask])
    assert (back.edge_weight is None) == (data.edge_weight is None)
    assert list(zip(*back.edge_index.tolist(), strict=True)) == [row[:2] for row in edge_list(data)]
    assert edge_list(back) == edge_list(data)

    positions = np.argsort(node_ids)
    source, destination = (positions[ends.numpy()] for ends in data.edge_index)
    weights = np.ones(len(source)) if data.edge_weight is None else data.edge_weight.numpy()
    assert in_csr == rows_of(destination, source, weights, data.num_nodes)
    assert out_csr == rows_of(source, destination, weights, data.num_nodes)
    assert store.info.symmetric == (in_csr == out_csr)


def read_csr(store: GraphStore, direction: str) -> list[list[tuple[int, float]]]:
    indptr, indices = (store.read(f"{direction}/{part}", 0, store.length(f"{direction}/{part}")) for part in CSR_PARTS)
    weights = store.read(f"{direction}/weights", 0, len(indices)) if store.info.weighted else np.ones(len(indices))
    return [list(zip(indices[a:b].tolist(), weights[a:b].tolist(), strict=True)) for a, b in pairwise(indptr)]


CSR_PARTS = ("indptr", "indices")


def rows_of(
    rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, num_nodes: int
) -> list[list[tuple[int, float]]]:
    """The neighbours of every node, ascending, duplicates as given."""
    result: list[list[tuple[int, float]]] = [[] for _ in range(num_nodes)]
    for row, column, weight in zip(rows.tolist(), columns.tolist(), weights.tolist(), strict=True):
        result[row].append((column, weight))
    return [sorted(row, key=lambda entry: entry[0]) for row in result]


def small_graph(num_nodes: int = 10, num_edges: int = 40) -> Data:
    generator = torch.Generator().manual_seed(7)
    return Data(
        x=torch.randn(num_nodes, 3, generator=generator),
        edge_index=torch.randint(num_nodes, (2, num_edges), generator=generator),
        y=torch.randint(4, (num_nodes,), generator=generator),
    )


def test_facts_of_a_graph_are_kept(tmp_path: Path) -> None:
    GraphStore.from_pyg(small_graph(), tmp_path / "g.zarr", chunk_rows=3, class_names=["a", "b", "c", "d", "e"])
    info = GraphStore.open(tmp_path / "g.zarr").info
    assert (info.name, info.num_nodes, info.num_edges, info.num_features) == ("g", 10, 40, 3)
    assert (info.num_classes, info.class_names) == (5, ("a", "b", "c", "d", "e"))
    assert (info.chunk_rows, info.weighted, info.task, info.symmetric) == (3, False, "multi-class", False)


def test_a_symmetric_graph_is_stored_once(tmp_path: Path) -> None:
    data = small_graph()
    data.edge_index = torch.cat([data.edge_index, data.edge_index.flip(0)], dim=1)
    store = GraphStore.from_pyg(data, tmp_path / "g.zarr")
    assert store.info.symmetric
    assert not (tmp_path / "g.zarr" / "out").exists()
    np.testing.assert_array_equal(store.read("out/indices", 5, 30), store.read("in/indices", 5, 30))


def test_unequal_weights_make_a_graph_asymmetric(tmp_path: Path) -> None:
    data = small_graph()
    data.edge_index = torch.tensor([[0, 1], [1, 0]])
    data.edge_weight = torch.tensor([1.0, 2.0])
    assert not GraphStore.from_pyg(data, tmp_path / "g.zarr").info.symmetric


def test_without_masks_labelled_nodes_are_split_60_20_20(tmp_path: Path) -> None:
    data = small_graph(num_nodes=110)
    data.y[100:] = -1
    back = GraphStore.from_pyg(data, tmp_path / "g.zarr").to_pyg()
    again = GraphStore.from_pyg(data, tmp_path / "h.zarr", order="given").to_pyg()
    masks = [back.train_mask, back.val_mask, back.test_mask]
    assert [int(mask.sum()) for mask in masks] == [60, 20, 20]
    assert not torch.stack(masks)[:, 100:].any()
    assert torch.stack(masks).sum(dim=0).max() == 1
    assert torch.equal(back.train_mask, again.train_mask)


@pytest.mark.parametrize("missing", [-1.0, float("nan")])
def test_labels_outside_all_masks_may_be_missing(tmp_path: Path, missing: float) -> None:
    data = small_graph()
    data.y = data.y.to(torch.float32)
    data.y[3] = missing
    data.y = data.y[:, None]
    data.train_mask = torch.arange(10) != 3
    back = GraphStore.from_pyg(data, tmp_path / "g.zarr").to_pyg()
    assert back.y[3] == -1
    assert torch.equal(back.y[data.train_mask], data.y[data.train_mask, 0].long())
    assert not back.val_mask.any()


def test_the_fingerprint_tells_graphs_apart(tmp_path: Path) -> None:
    data = small_graph()
    first = GraphStore.from_pyg(data, tmp_path / "a.zarr", name="g")
    same = GraphStore.from_pyg(data, tmp_path / "b.zarr", name="g")
    data.x[4, 1] += 1
    other = GraphStore.from_pyg(data, tmp_path / "c.zarr", name="g")
    assert first.fingerprint == same.fingerprint == GraphStore.open(tmp_path / "a.zarr").fingerprint
    assert other.fingerprint != first.fingerprint


def test_every_range_of_rows_is_the_same_part_of_the_array(tmp_path: Path) -> None:
    """Whole chunks are read in another way than parts of them; the last chunk is padded."""
    store = GraphStore.from_pyg(small_graph(num_nodes=23), tmp_path / "graph", chunk_rows=5)
    for name in ("features", "in/indptr", "split"):
        rows = store.length(name)
        single = np.concatenate([store.read(name, row, row + 1) for row in range(rows)])
        for start in range(rows):
            for stop in range(start + 1, rows + 1):
                assert np.array_equal(store.read(name, start, stop), single[start:stop]), (name, start, stop)


def test_reading_fills_a_given_buffer_across_chunks(tmp_path: Path) -> None:
    store = GraphStore.from_pyg(small_graph(), tmp_path / "g.zarr", chunk_rows=3)
    whole = store.read("features", 0, 10)
    buffer = np.full((6, 3), np.nan, dtype=np.float32)
    assert store.read("features", 2, 8, out=buffer) is buffer
    np.testing.assert_array_equal(buffer, whole[2:8])
    assert store.read("features", 4, 4).shape == (0, 3)


@pytest.mark.parametrize("buffer", [np.empty((5, 3), np.float32), np.empty((6, 3)), np.empty((3, 6), np.float32).T])
def test_a_buffer_that_does_not_fit_is_refused(tmp_path: Path, buffer: np.ndarray) -> None:
    store = GraphStore.from_pyg(small_graph(), tmp_path / "g.zarr")
    with pytest.raises(ValueError, match="buffer"):
        store.read("features", 2, 8, out=buffer)


def test_rows_and_arrays_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    store = GraphStore.from_pyg(small_graph(), tmp_path / "g.zarr")
    with pytest.raises(ValueError, match="rows 5:11"):
        store.read("features", 5, 11)
    with pytest.raises(KeyError, match="in/weights"):
        store.read("in/weights", 0, 1)
