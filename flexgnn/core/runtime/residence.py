"""Where parameters are while a plan runs: in the memory of the device, and before and after on the CPU.

Tensors stay the objects that they are, so that it is the user's model that is trained; what changes is their memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from flexgnn.core.compute import ComputeBackend
from flexgnn.core.errors import ConfigError, DeviceError, LoweringError
from flexgnn.core.program.program import Program


@dataclass(frozen=True, kw_only=True)
class Residents:
    """All that a run needs beside the fields of its plan."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    tensors: Sequence[Tensor] = ()
    """Of the loss, such as class weights."""

    def check(self) -> None:
        """Refuse what is not on the CPU.

        Raises:
            ConfigError: if there is such a tensor.
        """
        for tensor, _ in self._tensors():
            if tensor.device.type != "cpu":
                raise ConfigError(
                    f"The model, or the loss, has tensors on {tensor.device}: give it on the CPU, with .to('cpu'); "
                    "whatever the device, FlexGNN takes them there for each fit, and brings them back."
                )

    @property
    def training_bytes(self) -> int:
        """What they take in training: with gradients, and two numbers of state a parameter, as Adam has."""
        tensors = {id(tensor): tensor for tensor, _ in self._tensors()}.values()
        return sum(tensor.nbytes * (4 if tensor.requires_grad else 1) for tensor in tensors)

    @contextmanager
    def on(self, backend: ComputeBackend, program: Program, *, training: bool) -> Iterator[None]:
        """Meanwhile they are on the device of ``backend``, and so is what the segments of ``program`` hold.

        Args:
            backend: of the compute tier; where it computes in host memory, nothing is moved.
            program: what is run.
            training: whether the optimizer is used.

        Raises:
            DeviceError: if they can't be brought back: then all are again what they were before.
        """
        if not backend.separate:
            yield
            return
        homes: dict[int, _Home] = {}
        state = {parameter: dict(values) for parameter, values in self.optimizer.state.items()}
        constants = ((tensor, False) for segment in program.segments for tensor in segment.tensors)
        try:
            for tensor, stays in (*self._tensors(), *constants, *(self._state() if training else ())):
                if id(tensor) not in homes:  # some are constants and buffers
                    homes[id(tensor)] = _Home.leave(tensor, tensor.device if stays else backend.device)
            yield
        finally:
            try:
                self._bring_back(list(homes.values()))
            except RuntimeError as error:
                for home in homes.values():
                    home.restore()
                self.optimizer.state.clear()
                self.optimizer.state.update(state)
                raise DeviceError(
                    f"The device {backend.name} has failed ({str(error).partition(chr(10))[0]}): parameters and the "
                    "optimizer's state are those from before this call. Start a new process, from your last checkpoint "
                    "if there is one."
                ) from error

    def _bring_back(self, homes: Sequence[_Home]) -> None:
        """All, or after an error none."""
        known = {id(home.tensor) for home in homes}
        new = [value for value, _ in self._state() if id(value) not in known]
        found, of_new = [home.values() for home in homes], [value.data.cpu() for value in new]
        for home, (data, gradient) in zip(homes, found, strict=True):
            home.enter(data, gradient)
        for value, data in zip(new, of_new, strict=True):
            value.data = data

    def _tensors(self) -> Iterable[tuple[Tensor, bool]]:
        """Of model and loss; none of them stays on the CPU."""
        for tensor in (*self.model.parameters(), *self.model.buffers(), *self.tensors):
            yield tensor, False

    def _state(self) -> Iterable[tuple[Tensor, bool]]:
        """Of the optimizer, and whether it stays on the CPU.

        Single numbers do, such as steps, unless the optimizer as a whole runs on the device.
        """
        for group in self.optimizer.param_groups:
            whole = group.get("capturable") or group.get("fused")
            for parameter in group["params"]:
                for value in self.optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor):
                        yield value, not whole and value.ndim == 0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Home:
    """The memory on the CPU of a tensor that is in other memory meanwhile."""

    tensor: Tensor
    data: Tensor
    gradient: Tensor | None

    @classmethod
    def leave(cls, tensor: Tensor, device: torch.device) -> _Home:
        """Have ``tensor`` in memory of ``device``, if only in another part of the CPU's."""
        home = cls(tensor=tensor, data=tensor.data, gradient=tensor.grad)
        gradient = None if tensor.grad is None else tensor.grad.to(device, copy=True)
        home._replace(tensor.data.to(device, copy=True), gradient)
        return home

    def values(self) -> tuple[Tensor, Tensor | None]:
        """Values and gradient, on the CPU."""
        return self.tensor.data.cpu(), None if self.tensor.grad is None else self.tensor.grad.cpu()

    def enter(self, data: Tensor, gradient: Tensor | None) -> None:
        """Be at home again, with these values and this gradient."""
        same = self.data.shape == data.shape and self.data.dtype == data.dtype
        if same and self.data.is_contiguous():  # what was expanded can't be written to
            self.data.copy_(data)  # other tensors may be views of the same memory
            data = self.data
        self._replace(data, gradient)

    def restore(self) -> None:
        """Be what it was."""
        self._replace(self.data, self.gradient)

    def _replace(self, data: Tensor, gradient: Tensor | None) -> None:
        self.tensor.grad = None  # it has to be where the tensor is
        self.tensor.data = data
        self.tensor.grad = gradient


@contextmanager
def full_memory_named(backend: ComputeBackend, purpose: str) -> Iterator[None]:
    """Say in a sentence that the memory of ``backend`` is full; ``purpose``: what for, as in ``"beside the plan"``.

    Raises:
        DeviceError: in the place of torch's error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"{backend.name} has too little memory {purpose}: lower --device-memory, or free some."
        ) from error


def check_device(program: Program, device: str) -> None:
    """Refuse convolutions that are run as they are, which only a CPU adds up in one order.

    Raises:
        LoweringError: if ``program`` has one.
    """
    for aggregation in program.aggregations:
        if aggregation.convolution is not None:
            raise LoweringError(
                f"{aggregation.convolution.what} is run as it is, which on {device} would sum in an order that changes "
                "from run to run: use a convolution that has a rule (docs/models.md), or --device cpu"
            )
