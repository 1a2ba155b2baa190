"""The command line as a user meets it: in a process of its own where it matters how that ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_model
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.nn import GraphSAGE

import flexgnn
from flexgnn import GraphStore
from flexgnn.cli import main
from flexgnn.models import NORMS
from flexgnn.testing import mounted_disk
from tests.graphs import small_graph, store_of
from tests.machine import keep_stated_profile
from tests.processes import running, wait_until

MACHINES = Path(flexgnn.__file__).parent / "machines"

SPILLING = "16KB"
"""Too little for the small graph and 8 hidden channels to stay in memory."""

FLEXGNN = [sys.executable, "-c", "from flexgnn.cli import main; main()"]


@dataclass(frozen=True)
class Finished:
    """What a command printed."""

    stdout: str
    stderr: str


Run = Callable[..., Finished]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(path))
    return path


@pytest.fixture
def run(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line; whatever happens, nothing is left in the scratch directory."""
    monkeypatch.setenv("FLEXGNN_CACHE", str(tmp_path / "cache"))
    keep_stated_profile()
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    terminate = signal.getsignal(signal.SIGTERM)

    def call(*arguments: object, code: int = 0) -> Finished:
        monkeypatch.setattr(sys, "argv", ["flexgnn", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        signal.signal(signal.SIGTERM, terminate)
        printed = capsys.readouterr()
        assert (ended.value.code or 0) == code, printed
        assert not list(scratch.glob("flexgnn-*"))
        return Finished(printed.out, printed.err)

    return call


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return store_of(small_graph(), tmp_path / "graph").path


def refused(run: Run, *arguments: object) -> str:
    """The one sentence of a refusal."""
    finished = run(*arguments, code=2)
    lines = finished.stderr.strip().splitlines()
    assert len(lines) == 1, finished.stderr
    assert "Traceback" not in finished.stderr
    return lines[0]


def test_a_run_shows_epochs_peaks_and_accuracy(run: Run, graph: Path) -> None:
    shown = run("run", "--dataset", graph, "--epochs", 3, "--hidden", 8, "--device-memory", SPILLING).stdout
    epochs = [line for line in shown.splitlines() if line.strip()[:1].isdigit()]
    assert [int(line.split()[0]) for line in epochs] == [1, 2, 3]
    assert all(len(line.split()) == 6 for line in epochs)
    for part in ("ram", "arrow", "15.6 KiB", "arrow write", "test accuracy: 0."):
        assert part in shown


def test_a_recorded_run_can_be_reported_and_predicts(run: Run, graph: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run("run", "--dataset", graph, "--epochs", 2, "--hidden", 8, "--output", output, "--device-memory", SPILLING)
    assert len((output / "history.jsonl").read_text().splitlines()) == 2
    assert json.loads((output / "plan.json").read_text())["budget_bytes"] == 16_000
    report = run("report", output).stdout
    assert "2 epochs" in report
    assert "backward" in report
    assert "40 nodes x 3 values (480 B)" in run("predict", output, "-o", tmp_path / "logits.npy").stdout
    assert np.load(tmp_path / "logits.npy").shape == (40, 3)
    embeddings = ("predict", output, "-o", tmp_path / "embeddings.zarr", "--module", "convs.1")
    assert "40 nodes x 8 values" in run(*embeddings).stdout
    assert "already exists" in refused(run, *embeddings)
    run(*embeddings, "--overwrite")
    assert "there are: convs.0.lin, convs.0," in refused(run, "predict", output, "-o", "x.npy", "--module", "convs.8")
    assert not Path("x.npy").exists()
    assert "is not empty" in refused(run, "run", "--dataset", graph, "--output", output)


def val_accuracy(run: Run, output: Path, data: Data) -> float:
    """Of the recorded model."""
    logits = output / "logits.npy"
    run("predict", output, "-o", logits)
    right = np.load(logits).argmax(axis=1) == data.y.numpy()
    return float(right[data.val_mask.numpy()].mean())


@pytest.mark.parametrize(("epochs", "dropout", "stops"), [(200, 0, True), (200, 0.5, True), (4, 0.5, False)])
def test_with_patience_the_model_of_the_best_epoch_is_kept(
    epochs: int, dropout: float, stops: bool, run: Run, graph: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    options = ("--hidden", 8, "--lr", 0.05, "--dropout", dropout, "--epochs", epochs, "--patience", 5)
    shown = run("run", "--dataset", graph, *options, "--output", output).stdout
    history = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    best = max(history, key=lambda record: record["val_accuracy"])
    assert (len(history) < epochs) == stops
    assert best["epoch"] < len(history)
    line = f"the model of epoch {best['epoch']} is kept, with the best val_accuracy: {best['val_accuracy']:.4f}"
    for text in (shown, run("report", output).stdout):
        assert line in text
        assert (f"stopped after epoch {len(history)}; " in text) == stops
    assert val_accuracy(run, output, small_graph()) == pytest.approx(best["val_accuracy"])


@pytest.mark.parametrize("norm", NORMS)
def test_a_model_with_norms_is_planned_trained_and_restored_with_its_statistics(
    norm: str, run: Run, graph: Path, tmp_path: Path
) -> None:
    options = ("--dataset", graph, "--hidden", 8, "--norm", norm, "--model", "sage", "--dropout", 0)
    assert "loss of stage 4" in run("plan", *options, "-o", tmp_path / "plan.json").stdout
    run("run", *options, "--epochs", 2, "--plan", tmp_path / "plan.json", "--output", tmp_path / "out")
    run("predict", tmp_path / "out", "-o", tmp_path / "logits.npy")
    data, model = small_graph(), GraphSAGE(5, 8, 3, 3, norm=norm)
    load_model(model, tmp_path / "out" / "model.safetensors")
    with torch.no_grad():
        expected = model.eval()(data.x, data.edge_index)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-4, atol=1e-5)


def test_plan_shows_and_saves_without_training(run: Run, graph: Path, tmp_path: Path) -> None:
    shown = run("plan", "--dataset", graph, "--hidden", 8, "-o", tmp_path / "plan.json").stdout
    assert "loss of stage 2" in shown
    assert "fold: x_gcn_loop1 (5 columns)" in shown
    assert not (graph / "folded").exists()
    shown = run("plan", "--dataset", graph, "--hidden", 8, "--no-rewrite", "fold", "--no-rewrite", "order").stdout
    assert "loss of stage 3" in shown
    assert json.loads((tmp_path / "plan.json").read_text())["flexgnn_plan"] == 5


def test_plan_for_a_machine_and_a_graph_that_are_not_at_hand(run: Run, graph: Path, tmp_path: Path) -> None:
    saved = ("-o", tmp_path / "plan.json")
    shown = run("plan", "--dataset", graph, "--machine", "laptop-nvme", "--hidden", 8, *saved).stdout
    assert "32.0 GiB" in shown
    assert "data sheet" in shown
    sizes = "nodes=200000,edges=3000000,features=64,classes=10,halo=3"
    own = tmp_path / "own.json"
    own.write_text((MACHINES / "h100-nvme.json").read_text())
    shown = run("plan", "--machine", own, "--graph-size", sizes, "--device-memory", "160MiB", *saved).stdout
    assert "200,000 nodes" in shown
    assert "spilled" in shown
    assert json.loads((tmp_path / "plan.json").read_text())["compute_tier"] == "cuda"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--machine", "abacus"), "laptop-nvme"),
        (("--machine", "data.json"), "not the profile of a machine"),
        (("--graph-size", "nodes=9,edges=9,features=9,classes=9"), "--machine"),
        (("--machine", "laptop-nvme", "--graph-size", "nodes=many"), "nodes=N,edges=E"),
        (("--machine", "laptop-nvme", "--graph-size", "nodes=1,edges=9,features=9,classes=9"), "from 2 to"),
        (("--machine", "laptop-nvme", "--graph-size", "nodes=99,edges=9,features=9,classes=9"), "smaller halo"),
    ],
)
def test_bad_machines_and_sizes_get_one_sentence(
    run: Run, graph: Path, tmp_path: Path, options: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "data.json").write_text('{"flexgnn_profile": 3}')
    assert sentence in refused(run, "plan", "--dataset", graph, *options)


def test_plugins_lists_the_built_in_ones(run: Run) -> None:
    shown = run("plugins").stdout
    for name in ("arrow", "ram", "greedy", "wordnet-verbs"):
        assert name in shown


def test_import_and_generate_make_stores(run: Run, tmp_path: Path) -> None:
    torch.save(small_graph(num_nodes=600, num_edges=900, weighted=True), tmp_path / "data.pt")
    shown = run("import", tmp_path / "data.pt", tmp_path / "imported", "--order", "rcm").stdout
    assert "600 nodes" in shown
    between = re.search(r"node order: rcm, of given, rcm; edges between chunks: (\d+)%, (\d+)% as given; \d", shown)
    assert between is not None
    assert 0 < int(between[1]) < int(between[2])
    assert GraphStore.open(tmp_path / "imported").info.weighted
    graph = small_graph()
    graph.y = torch.arange(40)
    torch.save(graph, tmp_path / "numbers.pt")
    arguments = "import", tmp_path / "numbers.pt", tmp_path / "numbers", "--task", "regression"
    assert "5 features, 1 number to predict" in run(*arguments).stdout
    made = run("generate", tmp_path / "made", "--nodes", 3000, "--edges", 20000, "--features", 8, "--classes", 4)
    assert "3,000 nodes" in made.stdout


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--dataset", "wordnot", "wordnet"),
        ("--dataset", "/nowhere/graph", "no graph store at /nowhere/graph"),
        ("--model", "mlp", "gcn, gin, sage, gat, gatv2"),
        ("--heads", "0", "must be at least 1"),
        ("--norm", "batchnorm", "batch_norm, graph_norm, instance_norm, layer_norm"),
        ("--planner", "ilq", "greedy"),
        ("--no-rewrite", "folding", "order, fold, fuse, gradients"),
        ("--storage-dtype", "bf16", "float32 and bfloat16 are accepted"),
        ("--ssd-backend", "arow", "Did you mean 'arrow'"),
        ("--matmul-precision", "low", "highest and high are accepted"),
        ("--matmul-precision", "high", "is for --device cuda"),
        ("--device", "tpu", "'cpu' and 'cuda'"),
        ("--device", "cuda", "cuda"),
        ("--device-memory", "12 parsecs", "is not a size"),
        ("--device-memory", "1KiB", "the smallest that works is"),
        ("--host-memory", "1GiB", "--device cuda"),
        ("--ssd-path", "/nowhere", "/nowhere does not exist"),
        ("--layers", "0", "must be at least 1"),
        ("--dropout", "1", "dropout"),
        ("--lr", "0", "learning rate"),
        ("--epochs", "0", "must be at least 1"),
        ("--patience", "0", "at least 1"),
    ],
)
def test_bad_settings_get_one_sentence(run: Run, graph: Path, option: str, value: str, sentence: str) -> None:
    others = () if option == "--dataset" else ("--dataset", graph)
    assert sentence in refused(run, "run", *others, option, value)


def test_a_budget_that_was_too_small_says_one_that_works(run: Run, graph: Path) -> None:
    sentence = refused(run, "run", "--dataset", graph, "--device-memory", "1KiB")
    budget = sentence.split("smallest that works is ")[1].split()[0]
    run("run", "--dataset", graph, "--epochs", 1, "--device-memory", budget)


def broken(change: Callable[[Data], None]) -> Data:
    data = small_graph()
    change(data)
    return data


BAD_GRAPHS: dict[str, tuple[Callable[[Data], None], str]] = {
    "edges out of range": (lambda d: d.edge_index.__setitem__((0, 3), 99), "99"),
    "features with NaN": (lambda d: d.x.__setitem__((2, 1), float("nan")), "x"),
    "features of the wrong length": (lambda d: setattr(d, "x", d.x[:-1]), "39"),
    "no labels": (lambda d: delattr(d, "y"), "y"),
    "labels out of range": (lambda d: d.y.__setitem__(0, -4), "-4"),
    "no training nodes": (lambda d: d.train_mask.fill_(False), "train_mask"),
}


@pytest.mark.parametrize("case", BAD_GRAPHS)
def test_bad_graphs_get_one_sentence_and_leave_nothing(case: str, run: Run, tmp_path: Path) -> None:
    change, part = BAD_GRAPHS[case]
    folder = tmp_path / "import"
    folder.mkdir()
    torch.save(broken(change), tmp_path / "data.pt")
    assert part in refused(run, "import", tmp_path / "data.pt", folder / "store")
    assert not list(folder.iterdir())


def test_damaged_and_newer_stores_get_one_sentence(run: Run, graph: Path) -> None:
    chunk = next(path for path in (graph / "features" / "c.0.0", graph / "features" / "c" / "0" / "0") if path.exists())
    chunk.write_bytes(b"short")
    assert "damaged" in refused(run, "run", "--dataset", graph)
    text = (graph / "zarr.json").read_text()
    assert '"version": 1' in text
    (graph / "zarr.json").write_text(text.replace('"version": 1', '"version": 2'))
    assert "newer FlexGNN" in refused(run, "run", "--dataset", graph)


def test_a_file_that_is_no_graph_gets_one_sentence(run: Run, tmp_path: Path) -> None:
    file, store = tmp_path / "data.pt", tmp_path / "store"
    file.write_bytes(b"not a graph")
    assert "PyG Data" in refused(run, "import", file, store)
    assert Data in torch.serialization.get_safe_globals(), "as PyG has it"
    torch.save(Batch.from_data_list([small_graph()]), file)
    assert "it holds a torch_geometric.data.batch." in refused(run, "import", file, store)
    typed = HeteroData(paper={"x": torch.ones(2, 3)}, paper__cites__paper={"edge_index": torch.tensor([[0], [1]])})
    torch.save(typed, file)
    assert "is a HeteroData" in refused(run, "import", file, store)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    with mounted_disk(tmp_path / "small", 2**16) as disk:
        yield disk


def test_a_scratch_directory_that_is_too_small_is_refused_before_training(
    run: Run, tmp_path: Path, small_disk: Path
) -> None:
    store = store_of(small_graph(num_nodes=2000, num_edges=9000), tmp_path / "larger", chunk_rows=128)
    sentence = refused(run, "run", "--dataset", store.path, "--device-memory", "1KB")
    budget = sentence.split("smallest that works is ")[1].split()[0]
    arguments = ("--dataset", store.path, "--device-memory", budget, "--ssd-path", small_disk)
    assert "give more --device-memory" in refused(run, "run", *arguments)
    assert not list(small_disk.iterdir())


def test_a_saved_plan_is_followed_and_planners_compared(run: Run, graph: Path, tmp_path: Path) -> None:
    settings = ("--dataset", graph, "--hidden", 8, "--device-memory", SPILLING)
    shown = run("plan", *settings, "--planner", "ilp", "--compare", "-o", tmp_path / "plan.json").stdout
    for part in ("above the lower bound", "no plan moves less than", "greedy", "ilp", "learned", "limited by"):
        assert part in shown
    followed = run("run", "--dataset", graph, "--hidden", 8, "--epochs", 2, "--plan", tmp_path / "plan.json").stdout
    assert "plan (ilp)" in followed
    assert "measured s" in followed
    planned = run("run", *settings, "--epochs", 2, "--planner", "ilp").stdout
    assert losses_of(followed) == losses_of(planned)
    sentence = refused(run, "run", "--dataset", graph, "--hidden", 9, "--plan", tmp_path / "plan.json")
    assert "was made for another model" in sentence


def test_the_storage_dtype_is_recorded_and_a_plan_is_for_one(run: Run, graph: Path, tmp_path: Path) -> None:
    model, halved = ("--dataset", graph, "--hidden", 8), ("--storage-dtype", "bfloat16")
    shown = run("plan", *model, *halved, "--device-memory", SPILLING, "-o", tmp_path / "plan.json").stdout
    assert "values and gradients as bfloat16" in shown
    followed = ("--epochs", 2, "--plan", tmp_path / "plan.json")
    assert "--storage-dtype bfloat16, not float32" in refused(run, "run", *model, *followed)
    spilled = run("run", *model, *halved, *followed, "--output", tmp_path / "out").stdout
    in_memory = run("run", *model, *halved, "--epochs", 2).stdout
    assert losses_of(spilled) == losses_of(in_memory)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["storage_dtype"] == "bfloat16"
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["storage_dtype"] == "bfloat16"
    run("predict", tmp_path / "out", "-o", tmp_path / "logits.npy")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    (tmp_path / "out" / "config.json").write_text(json.dumps({**config, "storage_dtype": "float32"}))
    run("predict", tmp_path / "out", "-o", tmp_path / "other.npy")
    logits, other = np.load(tmp_path / "logits.npy"), np.load(tmp_path / "other.npy")
    assert not np.array_equal(logits, other), "predictions are made as the run was"
    np.testing.assert_allclose(logits, other, atol=2**-6 * float(np.abs(other).max()))


def losses_of(shown: str) -> list[str]:
    """The epochs' lines of a run, without their seconds."""
    return [line.rsplit(maxsplit=1)[0] for line in shown.splitlines() if line.strip()[:1].isdigit()]


def test_a_read_only_scratch_directory_is_refused(run: Run, graph: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    arguments = ("--dataset", graph, "--device-memory", SPILLING, "--hidden", 8, "--ssd-path", small_disk)
    assert "can't be written to" in refused(run, "run", *arguments)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_no_scratch_files(
    sent: signal.Signals, code: int, graph: Path, scratch: Path
) -> None:
    arguments = ["run", "--dataset", graph, "--epochs", 100_000, "--hidden", 8, "--device-memory", SPILLING]
    with running([*FLEXGNN, *arguments, "--ssd-path", scratch], stdout=subprocess.PIPE) as process:
        wait_until(lambda: list(scratch.glob("flexgnn-*/*")), process)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert not list(scratch.glob("flexgnn-*"))


def test_an_interrupted_run_with_patience_leaves_its_best_model(run: Run, graph: Path, tmp_path: Path) -> None:
    output, epochs = tmp_path / "out", ("--epochs", 100_000, "--patience", 100_000)
    history = output / "history.jsonl"
    with running([*FLEXGNN, "run", "--dataset", graph, "--hidden", 8, *epochs, "--output", output]) as process:
        wait_until(lambda: history.exists() and len(history.read_text().splitlines()) > 20, process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    best = max(map(json.loads, history.read_text().splitlines()), key=lambda record: record["val_accuracy"])
    assert f"the model of epoch {best['epoch']} is kept" in run("report", output).stdout
    assert val_accuracy(run, output, small_graph()) == pytest.approx(best["val_accuracy"])
