"""Predictions in files and of modules, against those in memory and against the model itself."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import zarr
from pyarrow import parquet
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import GCN, GIN, GCNConv, GraphSAGE

from flexgnn import GraphStore, Trainer
from flexgnn.core.errors import BudgetError, ConfigError
from flexgnn.core.runtime.events import Event, PredictionsConverted, PredictionsSaved, StepFinished, TransferFinished
from flexgnn.core.runtime.prediction_files import CONVERTERS, PredictionFile
from flexgnn.core.tier import Array
from flexgnn.planners.greedy import GreedyPlanner
from tests.graphs import relative_error, small_graph, store_of


class Deepen(torch.nn.Module):
    """Not one row a node."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(1)


class Chained(torch.nn.Module):
    """What its modules return is worked on in place, called again, or is no row a node."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = torch.nn.Linear(5, 8)
        self.conv = GCNConv(8, 8, bias=False)
        self.act = torch.nn.ELU()
        self.deepen = Deepen()
        self.unused = torch.nn.Linear(8, 8)
        self.leave = torch.nn.Linear(8, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.act(self.enter(x))
        h = self.act(self.conv(h, edge_index).relu_())
        return self.leave(self.deepen(h).squeeze(1))


MODELS: dict[str, tuple[Callable[[], torch.nn.Module], tuple[str, ...]]] = {
    "gcn": (lambda: GCN(5, 8, 3, 3, dropout=0.4), ("convs.0", "convs.0.lin", "convs.1", "convs.2")),
    "sage": (lambda: GraphSAGE(5, 8, 2, 3, aggr="max", act_kwargs={"inplace": True}), ("convs.0", "convs.1.lin_l")),
    "gin": (lambda: GIN(5, 8, 2, 3, jk="cat"), ("convs.0.nn.lins.0", "convs.1", "jk", "lin")),
    "chained": (Chained, ("enter", "conv", "leave")),
}


@pytest.fixture
def data() -> Data:
    return small_graph(num_nodes=60, num_edges=300)


@pytest.fixture
def store(data: Data, tmp_path: Path) -> GraphStore:
    store = store_of(data, tmp_path / "graph")
    assert not np.array_equal(store.read("node_ids", 0, 60), np.arange(60)), "rows have to be put back"
    return store


def spilling_trainer(
    model: torch.nn.Module, store: GraphStore, listen: Callable[[Event], None], module: str | None = None
) -> Trainer:
    """In the least memory that predicting takes."""
    planner, optimizer = GreedyPlanner(4), torch.optim.Adam(model.parameters())
    with pytest.raises(BudgetError) as refusal:
        Trainer(model, store, optimizer, device_memory=1, planner=planner).predict(module=module)
    budget = refusal.value.smallest_bytes
    return Trainer(model, store, optimizer, device_memory=budget, planner=planner, listeners=[listen])


def read(path: Path) -> Array:
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".zarr":
        return np.asarray(zarr.open_array(path, mode="r")[:])
    table = parquet.read_table(path)
    assert table["node"].to_pylist() == list(range(len(table)))
    return np.array(table["values"].to_pylist(), dtype=np.float32)


def output_of(model: torch.nn.Module, module: str, data: Data) -> Tensor:
    """What PyG's own forward has ``module`` return."""
    found: list[Tensor] = []
    hook = model.get_submodule(module).register_forward_hook(lambda _module, _given, out: found.append(out.clone()))
    model.eval()
    with torch.no_grad():
        model(data.x, data.edge_index)
    model.train()
    hook.remove()
    (output,) = found
    return output


@pytest.mark.parametrize("suffix", CONVERTERS)
def test_files_hold_the_bits_of_the_logits_in_memory(
    suffix: str, store: GraphStore, data: Data, tmp_path: Path
) -> None:
    events: list[Event] = []
    model = GCN(5, 8, 3, 3)
    trainer = spilling_trainer(model, store, events.append)
    path = tmp_path / f"logits{suffix}"
    trainer.predict(path)
    assert any(isinstance(event, TransferFinished) and event.channel == "arrow write" for event in events)
    assert events[-1] == PredictionsSaved(path=str(path), num_rows=60, width=3, size_bytes=60 * 3 * 4)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["graph", path.name]
    logits = read(path)
    np.testing.assert_array_equal(logits, trainer.predict().numpy())
    np.testing.assert_array_equal(logits, Trainer(model, store, torch.optim.Adam(model.parameters())).predict())
    assert relative_error(torch.from_numpy(logits), model.eval()(data.x, data.edge_index).detach()) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_outputs_of_modules_are_those_of_the_model(name: str, store: GraphStore, data: Data, tmp_path: Path) -> None:
    make, modules = MODELS[name]
    torch.manual_seed(0)
    model = make()
    in_memory = Trainer(model, store, torch.optim.Adam(model.parameters()))
    for module in modules:
        spilling = spilling_trainer(model, store, lambda event: None, module)
        output = spilling.predict(module=module)
        assert relative_error(output, output_of(model, module, data)) < 1e-5, module
        assert torch.equal(output, in_memory.predict(module=module)), module
        spilling.predict(tmp_path / f"{module}.npy", module=module)
        np.testing.assert_array_equal(output, np.load(tmp_path / f"{module}.npy"))
    assert model.training


def test_the_output_of_the_last_layer_is_the_logits(store: GraphStore) -> None:
    model = GCN(5, 8, 3, 3)
    trainer = Trainer(model, store, torch.optim.Adam(model.parameters()))
    assert torch.equal(trainer.predict(module="convs.2"), trainer.predict())


def test_no_more_is_computed_than_a_module_needs(store: GraphStore) -> None:
    events: list[Event] = []
    model = GCN(5, 8, 3, 3)
    trainer = Trainer(
        model, store, torch.optim.Adam(model.parameters()), rewrites=("order",), listeners=[events.append]
    )

    def stages() -> set[int]:
        found = {event.stage for event in events if isinstance(event, StepFinished)}
        events.clear()
        return found

    trainer.predict()
    assert stages() == {0, 1, 2, 3}
    trainer.predict(module="convs.0")
    assert stages() == {0, 1}
    trainer.predict(module="convs.0.lin")
    assert stages() == {0}


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("convs.7", "does not exist in the model"),
        ("", "is not called by itself"),
        ("unused", "is not called by itself"),
        ("act", "is called 2 times"),
        ("deepen", "does not return one float32 row a node"),
    ],
)
def test_modules_whose_output_can_not_be_had_are_refused(module: str, reason: str, store: GraphStore) -> None:
    model = Chained()
    trainer = Trainer(model, store, torch.optim.Adam(model.parameters()))
    with pytest.raises(ConfigError, match=reason) as refusal:
        trainer.predict(module=module)
    assert str(refusal.value).endswith("there are: enter, conv.lin, conv, leave.")


def test_a_file_that_is_there_is_only_replaced_when_asked_to(store: GraphStore, tmp_path: Path) -> None:
    model = GCN(5, 8, 3, 3)
    trainer = Trainer(model, store, torch.optim.Adam(model.parameters()))
    for suffix in CONVERTERS:
        path = tmp_path / f"out{suffix}"
        trainer.predict(path)
        with pytest.raises(ConfigError, match="already exists"):
            trainer.predict(path, module="convs.0")
        assert read(path).shape == (60, 3)
        trainer.predict(path, module="convs.0", overwrite=True)
        assert read(path).shape == (60, 8)


def test_nothing_else_is_ever_replaced(store: GraphStore, tmp_path: Path) -> None:
    model = GCN(5, 8, 3, 3)
    trainer = Trainer(model, store, torch.optim.Adam(model.parameters()))
    graph = store_of(small_graph(), tmp_path / "other.zarr")
    (tmp_path / "directory.npy").mkdir()
    for name in ("other.zarr", "directory.npy"):
        with pytest.raises(ConfigError, match="is not a file of predictions"):
            trainer.predict(tmp_path / name, overwrite=True)
    assert GraphStore.open(graph.path).fingerprint == graph.fingerprint
    with pytest.raises(ConfigError, match=r"must end in \.npy, \.zarr, \.parquet"):
        trainer.predict(tmp_path / "out.csv")
    with pytest.raises(ConfigError, match="there is no directory"):
        trainer.predict(tmp_path / "missing" / "out.npy")


@pytest.mark.parametrize("interrupting", [StepFinished, PredictionsConverted])
def test_an_interruption_leaves_what_was_there(interrupting: type[Event], store: GraphStore, tmp_path: Path) -> None:
    model, path = GCN(5, 8, 3, 3), tmp_path / "out.parquet"

    def listen(event: Event) -> None:
        if stopping and isinstance(event, interrupting):
            raise KeyboardInterrupt

    stopping = False
    trainer = spilling_trainer(model, store, listen)
    trainer.predict(path)
    before = path.read_bytes()
    stopping = True
    with pytest.raises(KeyboardInterrupt):
        trainer.predict(path, module="convs.0", overwrite=True)
    assert path.read_bytes() == before
    assert sorted(found.name for found in tmp_path.iterdir()) == ["graph", "out.parquet"]


@pytest.mark.parametrize("suffix", CONVERTERS)
def test_no_more_than_a_batch_is_held(suffix: str, tmp_path: Path) -> None:
    num_rows, width, tile = 300_000, 64, 1000
    path, done = tmp_path / f"large{suffix}", list[int]()
    order = np.random.default_rng(0).permutation(num_rows)
    arrow_before = pa.default_memory_pool().max_memory()
    tracemalloc.start()
    with PredictionFile.checked(path, overwrite=False).written((num_rows, width), done.append) as rows:
        for start in range(0, num_rows, tile):
            nodes = order[start : start + tile]
            rows.write(nodes, np.repeat(nodes[:, None], width, axis=1).astype(np.float32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    arrow = max(0, pa.default_memory_pool().max_memory() - arrow_before)
    assert peak + arrow < num_rows * width * 4 // 2
    assert done == sorted(done)
    assert done[-1:] == ([] if suffix == ".npy" else [num_rows])
    if suffix == ".parquet":
        for group in (first := parquet.ParquetFile(path)).iter_batches(2**14):
            values = group["values"].flatten().to_numpy().reshape(-1, width)
            assert np.array_equal(values, np.repeat(group["node"].to_numpy()[:, None], width, axis=1))
        assert first.metadata.num_rows == num_rows
    else:
        assert np.array_equal(read(path), np.repeat(np.arange(num_rows)[:, None], width, axis=1))
