"""Training in memory apart from the host's, over pinned RAM, over an SSD: on a stand-in, and on a GPU where one is."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch_geometric.nn import GAT, GCN, GIN, GraphSAGE

from flexgnn import GraphStore, Trainer
from flexgnn.backends.pinned_memory import PinnedMemoryBackend
from flexgnn.core.blob import Array
from flexgnn.core.compute import ComputeBackend
from flexgnn.core.copies import PIECE_BYTES
from flexgnn.core.errors import BudgetError, ConfigError, DeviceError
from flexgnn.core.free_memory import free_memory_bytes
from flexgnn.core.pinned_pages import pinned_pages
from flexgnn.core.program.cpu_kernels import CpuKernels
from flexgnn.planners.greedy import GreedyPlanner
from tests.devices import DEVICES, NewDevice
from tests.graphs import (
    Outcome,
    assert_close,
    small_graph,
    smallest_budget,
    store_of,
    train_with_flexgnn,
    train_with_pyg,
)
from tests.stand_in import StandInBackend, keep_stand_in_profile

MODELS = {
    "gcn": lambda dropout=0.5: GCN(5, 8, num_layers=3, out_channels=3, dropout=dropout),
    "sage-max": lambda dropout=0.0: GraphSAGE(5, 8, num_layers=2, out_channels=3, aggr="max", dropout=dropout),
    "gin": lambda dropout=0.0: GIN(5, 8, num_layers=2, out_channels=3, norm="batch_norm", dropout=dropout),
    "gat": lambda dropout=0.3: GAT(5, 8, num_layers=2, out_channels=3, heads=2, dropout=dropout),
}
EPOCHS = 3
STAGED_BYTES = 3 * 2 * PIECE_BYTES
"""Of those who read: the setup, the store's thread and that of ``arrow``."""
PINNED_BYTES = 10_000
"""For blobs, and what ``arrow`` is written from."""


@pytest.fixture(autouse=True)
def _stated_rates() -> None:
    keep_stand_in_profile()


@pytest.fixture
def store(tmp_path: Path) -> GraphStore:
    return store_of(small_graph(num_nodes=140, num_edges=900), tmp_path / "graph")


def trained(model: torch.nn.Module, store: GraphStore, **settings: object) -> tuple[Outcome, Trainer]:
    seen: list[Trainer] = []
    outcome = train_with_flexgnn(copy.deepcopy(model), store, EPOCHS, inspect=seen.append, **settings)  # type: ignore[arg-type]
    return outcome, seen[0]


def smallest(model: torch.nn.Module, store: GraphStore, device: ComputeBackend, num_blocks: int = 7) -> int:
    """The least memory of ``device`` that so many blocks can do with."""
    return smallest_budget(model, store, GreedyPlanner(num_blocks), device=device)


def assert_same(ours: Outcome, expected: Outcome) -> None:
    """Bit by bit."""
    assert ours.losses == expected.losses
    assert torch.equal(ours.logits, expected.logits)
    for key, value in expected.parameters.items():
        assert torch.equal(ours.parameters[key], value), key


def assert_three_tiers(trainer: Trainer, budget: int) -> None:
    """In 7 blocks, over pinned RAM and ``arrow``, within the budget."""
    record = trainer.history[-1]
    assert trainer.plan.num_blocks == 7
    assert record.moved_bytes["pinned write"] > 0
    assert record.moved_bytes["arrow write"] > 0
    assert record.peak_bytes[trainer.plan.compute_tier] <= budget
    assert record.peak_bytes["pinned"] <= trainer.plan.stored_bytes["pinned"] <= PINNED_BYTES


def spilled_settings(budget: int, storage_dtype: str) -> dict[str, object]:
    """Three tiers: too little memory of the device, and too little pinned RAM for what does not fit there."""
    return {
        "device_memory": budget,
        "host_memory": STAGED_BYTES + PINNED_BYTES,
        "planner": GreedyPlanner(7),
        "storage_dtype": storage_dtype,
    }


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("storage_dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("new_device", DEVICES)
def test_three_tiers_give_the_bits_of_one(
    name: str, storage_dtype: str, new_device: NewDevice, store: GraphStore
) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    in_memory, alone = trained(model, store, device=new_device(), storage_dtype=storage_dtype)
    assert alone.plan.stored_bytes == {}
    budget = smallest(model, store, new_device()) + 2048
    spilled, trainer = trained(model, store, device=new_device(), **spilled_settings(budget, storage_dtype))
    assert_three_tiers(trainer, budget)
    assert_same(spilled, in_memory)


@pytest.mark.parametrize("name", MODELS)
def test_the_stand_in_gives_the_bits_of_the_cpu(name: str, store: GraphStore) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    on_cpu, _ = trained(model, store)
    budget, device = smallest(model, store, StandInBackend()) + 2048, StandInBackend(bytes_per_second=5e8)
    spilled, trainer = trained(model, store, device=device, **spilled_settings(budget, "float32"))
    assert_three_tiers(trainer, budget)
    assert_same(spilled, on_cpu)
    buffer_bytes = max(copies.buffer_bytes for copies in device.opened)
    assert buffer_bytes <= STAGED_BYTES + PINNED_BYTES - trainer.history[-1].peak_bytes["pinned"]
    assert sum(copies.lent for copies in device.opened) > 0


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("new_device", DEVICES)
def test_tiles_of_several_chunks_agree_with_pyg(name: str, new_device: NewDevice, tmp_path: Path) -> None:
    data = small_graph(num_nodes=140, num_edges=900)
    store = store_of(data, tmp_path / "graph")
    torch.manual_seed(0)
    model = MODELS[name](dropout=0.0)
    ours, trainer = trained(model, store, device=new_device(20))
    assert trainer.plan.workload.blocks.tile_rows == 21
    assert_close(ours, train_with_pyg(model, data, EPOCHS))
    budget = 2 * smallest(model, store, new_device(20))
    spilled, trainer = trained(model, store, device=new_device(20), device_memory=budget, planner=GreedyPlanner(7))
    assert trainer.plan.num_blocks == 7
    assert trainer.history[-1].moved_bytes["pinned write"] > 0
    assert_same(spilled, ours)


def test_too_little_host_memory_for_copies_is_refused(store: GraphStore) -> None:
    model = GCN(5, 8, num_layers=3, out_channels=3)
    budget = smallest(model, store, StandInBackend())
    with pytest.raises(ConfigError, match=r"Copies to and from the stand-in tier .* --host-memory is 64.0 KiB"):
        trained(model, store, device=StandInBackend(), device_memory=budget, host_memory="64KiB")


def test_too_little_host_memory_to_set_up_is_refused(store: GraphStore) -> None:
    model = GCN(5, 8, num_layers=3, out_channels=3)
    with pytest.raises(
        BudgetError, match=r"Setting up takes [0-9.]+ KiB of host memory, and pinned has room for 1.0 KiB"
    ):
        trained(model, store, device=StandInBackend(), host_memory="1KiB", planner=GreedyPlanner(7))


def test_without_budgets_parameters_and_others_have_room(store: GraphStore) -> None:
    model = GCN(5, 8, num_layers=3, out_channels=3)
    trainer = Trainer(model, store, torch.optim.Adam(model.parameters()), device=StandInBackend(free_bytes=2**20))
    assert trainer.plan.budget_bytes == 2**20 - 4 * sum(parameter.nbytes for parameter in model.parameters())
    capacity = trainer.plan.capacities["pinned"]
    assert capacity is not None
    assert 0.5 * free_memory_bytes() < capacity < 0.8 * free_memory_bytes()


def test_memory_that_is_full_is_named(store: GraphStore) -> None:
    def no_kernels() -> CpuKernels:
        raise torch.OutOfMemoryError

    model = GCN(5, 8, num_layers=3, out_channels=3)
    with pytest.raises(DeviceError, match=r"stand-in has too little memory beside the plan's 1.0 MiB, for parameters"):
        trained(model, store, device=StandInBackend(kernels=no_kernels), device_memory="1MiB")


def test_pages_are_locked_once(store: GraphStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is room for blobs of all sizes; not in every epoch anew."""
    taken: list[int] = []

    def new_memory(tier: PinnedMemoryBackend, size_bytes: int) -> Array:
        taken.append(size_bytes)
        return pinned_pages(size_bytes)

    monkeypatch.setattr(PinnedMemoryBackend, "new_memory", new_memory)
    model = MODELS["gcn"]()
    counts: list[int] = []
    trainer = Trainer(
        model,
        store,
        torch.optim.Adam(model.parameters()),
        device=StandInBackend(),
        device_memory=smallest(model, store, StandInBackend()),
        host_memory="64MiB",
        planner=GreedyPlanner(7),
    )
    trainer.fit(3, callbacks=[lambda trainer, record: counts.append(len(taken))])
    assert len(set(taken)) > 1
    assert counts[0] > 0
    assert counts[1:] == [counts[0]] * 2


def test_a_model_on_another_device_is_refused(store: GraphStore) -> None:
    model = GCN(5, 8, num_layers=2, out_channels=3).to("meta")
    with pytest.raises(ConfigError, match=r"on meta: give it on the CPU"):
        Trainer(model, store, torch.optim.Adam(model.parameters()))


@pytest.mark.parametrize("name", ["gcn", "sage-max", pytest.param("gat", marks=pytest.mark.slow)])
def test_training_with_the_kernels_of_a_gpu(name: str, tmp_path: Path) -> None:
    """In their interpreter, where there is no GPU."""
    pytest.importorskip("triton", reason="there is no Triton for this machine")
    from flexgnn.core.gpu.kernels import TritonKernels

    if torch.cuda.is_available():
        pytest.skip("they run on the GPU, in the tests above")
    store = store_of(small_graph(num_nodes=28, num_edges=60), tmp_path / "graph")
    torch.manual_seed(0)
    model = MODELS[name]()
    on_cpu = train_with_flexgnn(model, store, 1)
    budget = smallest(model, store, StandInBackend(), 4)
    in_memory = train_with_flexgnn(model, store, 1, device=StandInBackend(kernels=TritonKernels))
    spilled = train_with_flexgnn(
        model,
        store,
        1,
        device=StandInBackend(kernels=TritonKernels),
        device_memory=budget,
        planner=GreedyPlanner(4),
    )
    assert_close(in_memory, on_cpu)
    assert_same(spilled, in_memory)


def test_what_is_verified_goes_through_buffers_within_host_memory(store: GraphStore) -> None:
    torch.manual_seed(0)
    model, device = MODELS["gcn"](), StandInBackend()
    budget, host_memory = smallest(model, store, device), STAGED_BYTES + 2 * PIECE_BYTES + PINNED_BYTES
    optimizer = torch.optim.Adam(model.parameters())
    trainer = Trainer(
        copy.deepcopy(model),
        store,
        optimizer,
        device=device,
        device_memory=budget,
        host_memory=host_memory,
        planner=GreedyPlanner(7),
        verify=True,
    )
    record = trainer.fit(2)[-1]
    assert record.moved_bytes["pinned write"] > 0
    assert sum(copies.lent for copies in device.opened) == 0
    buffer_bytes = max(copies.buffer_bytes for copies in device.opened)
    assert buffer_bytes + record.peak_bytes["pinned"] <= host_memory


def test_class_weights_that_a_function_was_given_are_taken_along(store: GraphStore) -> None:
    """So they have to be on the CPU as well."""
    loss = partial(cross_entropy, weight=torch.ones(3, device="meta"))
    model = GCN(5, 8, num_layers=2, out_channels=3)
    with pytest.raises(ConfigError, match=r"on meta: give it on the CPU"):
        Trainer(model, store, torch.optim.Adam(model.parameters()), loss=loss)


def test_a_second_tier_called_pinned_is_refused(store: GraphStore) -> None:
    model = GCN(5, 8, num_layers=2, out_channels=3)
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(ConfigError, match=r"'pinned' is there by itself with this device"):
        Trainer(model, store, optimizer, device=StandInBackend(), tiers=["pinned=arrow"])
