"""Where parameters and the optimizer's state are in the course of a run: on a stand-in, and on a GPU where one is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GCN

from flexgnn import Trainer
from flexgnn.backends.ram import RamBackend
from flexgnn.core.errors import DeviceError
from flexgnn.core.program.program import Program
from flexgnn.core.runtime import residence
from flexgnn.core.runtime.residence import Residents
from tests.devices import DEVICES, NewDevice
from tests.graphs import small_graph, store_of
from tests.stand_in import StandInBackend


class Trained:
    """A model after a step of Adam, and what a run of it needs."""

    def __init__(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        self.model = GCN(5, 8, num_layers=2, out_channels=3, norm="batch_norm")
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.step()
        self.residents = Residents(model=self.model, optimizer=self.optimizer)
        store = store_of(small_graph(), tmp_path / "graph")
        self.program: Program = Trainer(self.model, store, self.optimizer).plan.workload.program

    def step(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = parameter.detach().sin()
        self.optimizer.step()

    def tensors(self) -> list[Tensor]:
        """All but single numbers of the optimizer."""
        averages = [values["exp_avg"] for values in self.optimizer.state.values()]
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        return [*self.model.parameters(), *self.model.buffers(), *gradients, *averages]

    def places(self) -> list[int]:
        """Of what has to stay the same object in the same memory."""
        return [tensor.data_ptr() for tensor in (*self.model.parameters(), *self.model.buffers())]

    def state(self) -> dict[str, Tensor]:
        """Copies of all."""
        found = dict(self.model.state_dict())
        for number, values in enumerate(self.optimizer.state.values()):
            found |= {f"{number}/{name}": value for name, value in values.items()}
        return {name: value.clone() for name, value in found.items()}


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    return Trained(tmp_path)


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


class LostError(RuntimeError):
    """What CUDA says for ever after a fault."""


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes back from the device: there is no way to break a real one in a test that others follow."""

    def fail(home: object) -> None:
        raise LostError("unspecified launch failure\nand more lines")

    monkeypatch.setattr(residence._Home, "values", fail)


def test_a_run_in_host_memory_moves_nothing(trained: Trained) -> None:
    before = trained.places()
    with trained.residents.on(RamBackend(), trained.program, training=True):
        assert trained.places() == before


@pytest.mark.parametrize("new_device", DEVICES)
def test_what_was_trained_elsewhere_is_back_in_the_same_memory(
    new_device: NewDevice, trained: Trained, tmp_path: Path
) -> None:
    backend, before = new_device(), trained.places()
    with trained.residents.on(backend, trained.program, training=True):
        assert not set(trained.places()) & set(before)
        assert {tensor.device for tensor in trained.tensors()} == {backend.device}
        assert {values["step"].device.type for values in trained.optimizer.state.values()} == {"cpu"}
        trained.step()
    (tmp_path / "twin").mkdir()
    twin = Trained(tmp_path / "twin")
    twin.step()
    assert trained.places() == before
    torch.testing.assert_close(trained.state(), twin.state())
    trained.step()


def test_a_weight_that_was_expanded_is_taken_along(trained: Trained) -> None:
    weight = torch.ones(1).expand(3)
    residents = Residents(model=trained.model, optimizer=trained.optimizer, tensors=[weight])
    with residents.on(StandInBackend(), trained.program, training=True):
        pass
    assert weight.tolist() == [1.0, 1.0, 1.0]


def test_without_training_the_optimizer_is_left_alone(trained: Trained) -> None:
    averages = [values["exp_avg"].data_ptr() for values in trained.optimizer.state.values()]
    with trained.residents.on(StandInBackend(), trained.program, training=False):
        assert [values["exp_avg"].data_ptr() for values in trained.optimizer.state.values()] == averages


@pytest.mark.usefixtures("lost")
def test_after_a_fault_all_is_as_it_was_before(trained: Trained) -> None:
    before, places = trained.state(), trained.places()
    gradients = [parameter.grad for parameter in trained.model.parameters()]
    with (
        pytest.raises(DeviceError, match=r"stand-in has failed \(unspecified launch failure\): .* before this call"),
        trained.residents.on(StandInBackend(), trained.program, training=True),
    ):
        trained.step()
    assert_equal(trained.state(), before)
    assert trained.places() == places
    for parameter, gradient in zip(trained.model.parameters(), gradients, strict=True):
        assert parameter.grad is gradient


@pytest.mark.usefixtures("lost")
def test_after_a_fault_there_is_no_state_that_was_not_there_before(trained: Trained) -> None:
    trained.optimizer.state.clear()
    with pytest.raises(DeviceError), trained.residents.on(StandInBackend(), trained.program, training=True):
        trained.step()
    assert len(trained.optimizer.state) == 0
    trained.step()


def test_training_needs_parameters_gradients_and_two_numbers_each(trained: Trained) -> None:
    parameters = sum(parameter.nbytes for parameter in trained.model.parameters())
    buffers = sum(buffer.nbytes for buffer in trained.model.buffers())
    assert trained.residents.training_bytes == 4 * parameters + buffers
