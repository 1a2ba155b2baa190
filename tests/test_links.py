"""Link prediction: losses and gradients of full-batch PyG, over pairs that the graph has and pairs that are drawn."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GCN, GraphSAGE
from typer.testing import CliRunner

from flexgnn import EarlyStopping, GraphStore, LinkPrediction, Trainer
from flexgnn.cli import app
from flexgnn.core.errors import ConfigError, GraphError, LoweringError
from flexgnn.core.graph.layout import LINKED, TRAIN
from flexgnn.core.program.links import dot_product
from flexgnn.core.program.negatives import SAMPLED, NegativeSampler, PairRows
from flexgnn.core.program.row_context import RowContext
from flexgnn.launch import import_file
from tests.graphs import (
    Outcome,
    assert_close,
    link_graph,
    relative_error,
    small_graph,
    store_of,
    train_spilled,
    train_with_flexgnn,
)

NUM_NODES = 60


class PairNet(nn.Module):
    """A decoder with parameters, whose scores depend on the direction of a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, source: Tensor, destination: Tensor) -> Tensor:
        out: Tensor = self.layers(torch.cat([source, destination], dim=-1))
        return out


PairsOf = Callable[[int], tuple[Tensor, Tensor]]
"""From an epoch to its training pairs, and which of them are linked."""


def train_pairs_with_pyg(
    model: nn.Module, data: Data, epochs: int, decoder: Callable[[Tensor, Tensor], Tensor], pairs_of: PairsOf
) -> Outcome:
    """Full-batch training, as in PyG's examples of link prediction."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.Adam([*model.parameters(), *_parameters(decoder)], lr=0.01, eps=1e-4)
    losses, gradients = [], dict[str, Tensor]()
    for epoch in range(1, epochs + 1):
        optimizer.zero_grad()
        z, (pairs, linked) = model(data.x, data.edge_index), pairs_of(epoch)
        loss = binary_cross_entropy_with_logits(decoder(z[pairs[0]], z[pairs[1]]).view(-1), linked)
        loss.backward()
        named = model.named_parameters()
        gradients = gradients or {name: p.grad.clone() for name, p in named if p.grad is not None}
        optimizer.step()
        losses.append(float(loss.detach()))
    model.eval()
    with torch.no_grad():
        return Outcome(losses, gradients, model(data.x, data.edge_index), model.state_dict())


def _parameters(decoder: object) -> list[nn.Parameter]:
    return list(decoder.parameters()) if isinstance(decoder, nn.Module) else []


def stored_pairs(data: Data) -> PairsOf:
    return lambda epoch: (data.edge_label_index, data.edge_label)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "sage": lambda: GraphSAGE(5, 8, 2, 6, aggr="max"),
    "gcn": lambda: GCN(5, 8, 3, 6, norm="batch_norm"),
    "gat": lambda: GAT(5, 8, 2, 6, heads=2),
}


@pytest.mark.parametrize("name", MODELS)
def test_links_are_learned_as_by_pyg_and_with_the_same_bits_under_every_budget(name: str, tmp_path: Path) -> None:
    data = link_graph(undirected=name != "sage")
    torch.manual_seed(0)
    model = MODELS[name]()
    store = store_of(data, tmp_path / "graph", chunk_rows=12)
    expected = train_pairs_with_pyg(model, data, 4, dot_product, stored_pairs(data))
    whole = train_with_flexgnn(model, store, 4)
    assert_close(whole, expected)
    assert_same_bits_spilled(whole, model, store, None)


def assert_same_bits_spilled(whole: Outcome, model: nn.Module, store: GraphStore, loss: LinkPrediction | None) -> None:
    small = train_spilled(model, store, len(whole.losses), loss=loss)
    assert small.losses == whole.losses
    assert torch.equal(small.logits, whole.logits)
    assert all(torch.equal(small.gradients[n], whole.gradients[n]) for n in whole.gradients)


def test_a_decoder_is_trained_with_the_model(tmp_path: Path) -> None:
    data, decoder = link_graph(), PairNet()
    torch.manual_seed(0)
    model, store = MODELS["sage"](), store_of(data, tmp_path / "graph", chunk_rows=12)
    theirs, ours = copy.deepcopy(decoder), [copy.deepcopy(decoder) for _ in range(2)]
    expected = train_pairs_with_pyg(model, data, 4, theirs, stored_pairs(data))
    for own, budget in zip(ours, (None, "1MiB"), strict=True):
        trained = copy.deepcopy(model)
        optimizer = torch.optim.Adam([*trained.parameters(), *own.parameters()], lr=0.01, eps=1e-4)
        trainer = Trainer(trained, store, optimizer, loss=LinkPrediction(decoder=own), device_memory=budget)
        losses = [record.loss for record in trainer.fit(4)]
        assert losses == pytest.approx(expected.losses, rel=1e-4)
        assert relative_error(trainer.predict(), expected.logits) < 1e-4
        for name, weight in own.state_dict().items():
            assert relative_error(weight, theirs.state_dict()[name]) < 1e-4, name
    assert all(torch.equal(a, b) for a, b in zip(ours[0].parameters(), ours[1].parameters(), strict=True))


def drawn_pairs(store: GraphStore, number: int) -> PairsOf:
    """What is drawn over the whole graph as one tile, in the original ids of nodes."""
    node_ids = store.read("node_ids", 0, NUM_NODES)
    given, kinds = rows_of(store, "pairs"), store.read("pairs/types", 0, store.info.num_pairs)

    def pairs_of(epoch: int) -> tuple[Tensor, Tensor]:
        rows = RowContext(start=0, seed=0, epoch=epoch, training=True)
        sampler = NegativeSampler(number=number, num_nodes=NUM_NODES)
        found, of_found = sampler.extend(given, kinds, rows_of(store, "in"), rows, 0)
        used = (of_found & (TRAIN | SAMPLED)) != 0
        ends = np.stack([node_ids[found.sources], node_ids[found.destinations()]])[:, used]
        return torch.from_numpy(ends), torch.from_numpy((of_found[used] & LINKED) != 0).float()

    return pairs_of


def rows_of(store: GraphStore, direction: str) -> PairRows:
    indptr = store.read(f"{direction}/indptr", 0, NUM_NODES + 1)
    return PairRows(indptr=indptr, sources=store.read(f"{direction}/indices", 0, int(indptr[-1])))


def test_drawn_pairs_are_the_same_under_every_blocking_and_learned_from_as_by_pyg(tmp_path: Path) -> None:
    data = link_graph(negatives=0)
    torch.manual_seed(0)
    model, store = MODELS["gat"](), store_of(data, tmp_path / "graph", chunk_rows=12)
    loss = LinkPrediction(negatives=3)
    expected = train_pairs_with_pyg(model, data, 4, dot_product, drawn_pairs(store, 3))
    whole = train_with_flexgnn(model, store, 4, loss=loss)
    assert_close(whole, expected)
    assert_same_bits_spilled(whole, model, store, loss)


def test_one_pair_is_drawn_for_each_link_where_the_graph_has_no_others(tmp_path: Path) -> None:
    data = link_graph(negatives=0)
    model, store = MODELS["sage"](), store_of(data, tmp_path / "graph", chunk_rows=12)
    expected = train_pairs_with_pyg(model, data, 2, dot_product, drawn_pairs(store, 1))
    assert train_with_flexgnn(model, store, 2).losses == pytest.approx(expected.losses, rel=1e-4)


def test_drawn_pairs_have_no_link_and_differ_from_epoch_to_epoch(tmp_path: Path) -> None:
    data = link_graph(negatives=0)
    store = store_of(data, tmp_path / "graph")
    edges = {tuple(edge) for edge in data.edge_index.T.tolist()} | {tuple(e) for e in data.edge_label_index.T.tolist()}
    seen = []
    for epoch in range(1, 40):
        pairs, linked = drawn_pairs(store, 2)(epoch)
        assert int((linked == 0).sum()) == 2 * data.edge_label_index.shape[1]
        drawn = [tuple(pair) for pair in pairs[:, linked == 0].T.tolist()]
        assert not edges & set(drawn)
        assert all(source != destination for source, destination in drawn)
        seen.append(drawn)
    assert len(set(map(tuple, seen))) == len(seen)
    sources = torch.tensor([source for drawn in seen for source, _ in drawn])
    counts = torch.bincount(sources, minlength=NUM_NODES).double()
    # Nodes with more edges are drawn less often, none of them much.
    assert float(counts.min()) > 0.5 * float(counts.mean())


@pytest.mark.parametrize("norm", [None, "batch_norm"])
def test_accuracies_are_of_the_pairs_of_each_split(norm: str | None, tmp_path: Path) -> None:
    data = link_graph()
    model, store = GCN(5, 8, 2, 6, norm=norm), store_of(data, tmp_path / "graph", chunk_rows=12)
    trainer = Trainer(model, store, torch.optim.SGD(model.parameters(), lr=0.0))
    (record,) = trainer.fit(1)
    z = trainer.predict()
    for split, prefix in (("train", ""), ("val", "val_"), ("test", "test_")):
        pairs, linked = data[f"{prefix}edge_label_index"], data[f"{prefix}edge_label"]
        right = (dot_product(z[pairs[0]], z[pairs[1]]) > 0) == (linked == 1)
        assert getattr(record, f"{split}_accuracy") == pytest.approx(float(right.float().mean())), split


def test_early_stopping_keeps_the_best_weights_of_the_decoder_too(tmp_path: Path) -> None:
    store = store_of(link_graph(), tmp_path / "graph")
    model, decoder = MODELS["sage"](), PairNet()
    seen = []

    def remember(trainer: Trainer, record: object) -> None:
        seen.append(copy.deepcopy(decoder.state_dict()))

    optimizer = torch.optim.Adam([*model.parameters(), *decoder.parameters()], lr=0.1)
    trainer = Trainer(model, store, optimizer, loss=LinkPrediction(decoder=decoder))
    stopping = EarlyStopping(patience=3)
    before = copy.deepcopy(decoder.state_dict())
    trainer.fit(12, callbacks=[remember, stopping])
    assert stopping.best is not None
    best = [before, *seen][stopping.best.epoch - 1]  # scored before the update
    assert all(torch.equal(weight, best[name]) for name, weight in decoder.state_dict().items())


def test_pairs_come_back_from_a_store(tmp_path: Path) -> None:
    data = link_graph()
    store = store_of(data, tmp_path / "graph")
    assert (store.info.task, store.info.num_classes) == ("links", 0)
    found = store.to_pyg()
    for prefix in ("", "val_", "test_"):
        pairs, linked = f"{prefix}edge_label_index", f"{prefix}edge_label"
        assert _sorted(found[pairs], found[linked]) == _sorted(data[pairs], data[linked])
    assert found.y is None


def _sorted(pairs: Tensor, linked: Tensor) -> list[tuple[float, ...]]:
    return sorted((*pair, one) for pair, one in zip(pairs.T.tolist(), linked.tolist(), strict=True))


def test_the_command_line_imports_plans_learns_and_predicts(tmp_path: Path) -> None:
    def run(*arguments: object) -> str:
        ended = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert ended.exit_code == 0, ended.output
        return ended.output

    file, graph, output, z = (tmp_path / name for name in ("data.pt", "links", "out", "z.npy"))
    torch.save(data := link_graph(), file)
    options: dict[str, Any] = {"order": "auto", "task": None, "overwrite": False, "on_order": lambda order: None}
    with pytest.raises(GraphError, match=r"save Data.from_dict\(data.to_dict\(\)\)"):
        import_file(file, graph, **options)
    torch.save(Data.from_dict(data.to_dict()), file)
    assert "pairs" in run("import", file, graph)
    settings = ("--dataset", graph, "--hidden", 8)
    assert "GFLOP" in run("plan", *settings, "--machine", "laptop-nvme", "-o", tmp_path / "plan.json")
    run("run", *settings, "--epochs", 2, "--patience", 1, "--device-memory", "200KB", "--output", output)
    run("predict", output, "-o", z)
    assert np.load(z).shape == (60, 8)


def test_labels_of_nodes_can_be_chosen_in_place_of_pairs(tmp_path: Path) -> None:
    data = link_graph()
    data.y = torch.arange(NUM_NODES) % 3
    assert GraphStore.from_pyg(data, tmp_path / "nodes", task="multi-class").info.num_pairs == 0
    assert GraphStore.from_pyg(data, tmp_path / "pairs").info.num_pairs > 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"edge_label_index": torch.tensor([[0], [99]])}, r"edge_label_index\[1, 0\] is 99"),
        ({"edge_label_index": torch.zeros(3, 4).long()}, r"edge_label_index has shape \[3, 4\]"),
        ({"edge_label_index": torch.zeros(2, 0).long()}, "edge_label_index has no pair"),
        ({"edge_label": torch.tensor([1.0])}, r"edge_label must be 1 for each .* it has shape \[1\]"),
        ({"edge_label": torch.empty(0)}, r"edge_label must be 1 for each .* it has shape \[0\]"),
        ({"val_edge_label": torch.full((40,), 2.0)}, "val_edge_label must be 1 for each .* it holds 2.0"),
    ],
)
def test_pairs_that_can_t_be_used_are_refused(changes: dict[str, Tensor], sentence: str, tmp_path: Path) -> None:
    data = link_graph()
    data.val_edge_label_index, data.val_edge_label = data.edge_label_index[:, :40], data.edge_label[:40]
    with pytest.raises(GraphError, match=sentence):
        store_of(data.update(changes), tmp_path / "graph")
    with pytest.raises(GraphError, match="Pairs have no classes"):
        GraphStore.from_pyg(data, tmp_path / "graph", class_names=["a", "b"])
    del data.edge_label_index
    with pytest.raises(GraphError, match="has edge_label, but no edge_label_index"):
        store_of(data, tmp_path / "graph")
    with pytest.raises(GraphError, match="no pairs of nodes to train on"):
        GraphStore.from_pyg(data, tmp_path / "graph", task="links")


HIDDEN = nn.Linear(6, 6)


def centred(source: Tensor, destination: Tensor) -> Tensor:
    return ((source - source.mean(0)) * destination).sum(-1)


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (nn.CrossEntropyLoss(), r"has pairs of nodes in the place of labels: give loss=LinkPrediction\(...\)"),
        (LinkPrediction(negatives=0), "All training pairs are linked, and negatives=0 draws no others"),
    ],
)
def test_losses_that_don_t_suit_pairs_are_refused(loss: Any, sentence: str, tmp_path: Path) -> None:
    model, store = MODELS["sage"](), store_of(link_graph(negatives=0), tmp_path / "graph")
    with pytest.raises(ConfigError, match=sentence):
        Trainer(model, store, torch.optim.Adam(model.parameters()), loss=loss)


@pytest.mark.parametrize(
    ("decoder", "sentence"),
    [
        (centred, "gives other results on a part.*score each pair by the two rows"),
        (lambda source, destination: HIDDEN(source - destination).sum(-1), "not its own.*give a module itself"),
        (lambda source, destination: nn.Linear(5, 1)(source), r"shapes cannot be multiplied \(\d+x6 and 5x1\)$"),
        (lambda source, destination: source * destination, r"gives \(\d+, 6\) for \d+ pairs, and must give one score"),
        (lambda source, destination: torch.rand(len(source)) + dot_product(source, destination), "random numbers"),
    ],
)
def test_decoders_that_can_t_be_run_pair_by_pair_are_refused(decoder: Any, sentence: str, tmp_path: Path) -> None:
    model, store = MODELS["sage"](), store_of(link_graph(), tmp_path / "graph")
    with pytest.raises(LoweringError, match=f"The decoder of LinkPrediction.*{sentence}"):
        Trainer(model, store, torch.optim.Adam(model.parameters()), loss=LinkPrediction(decoder=decoder))


def test_settings_of_link_prediction_are_checked(tmp_path: Path) -> None:
    for number in (-1, 1.5, "2"):
        with pytest.raises(ConfigError, match=f"negatives is {number!r}"):
            LinkPrediction(negatives=number)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="The decoder is"):
        LinkPrediction(decoder=nn.Bilinear)  # type: ignore[arg-type]
    data = link_graph()
    model, store = MODELS["sage"](), store_of(data, tmp_path / "pairs")
    with pytest.raises(ConfigError, match="The optimizer lacks parameters of the decoder"):
        Trainer(model, store, torch.optim.Adam(model.parameters()), loss=LinkPrediction(decoder=PairNet()))
    data.edge_label = torch.zeros_like(data.edge_label)
    store = store_of(data, tmp_path / "pairs")
    with pytest.raises(ConfigError, match="No training pair is linked"):
        Trainer(model, store, torch.optim.Adam(model.parameters()))
    model, store = GraphSAGE(5, 8, 2, 3), store_of(small_graph(), tmp_path / "graph")
    with pytest.raises(ConfigError, match="has labels of nodes, and no pairs for LinkPrediction"):
        Trainer(model, store, torch.optim.Adam(model.parameters()), loss=LinkPrediction())
