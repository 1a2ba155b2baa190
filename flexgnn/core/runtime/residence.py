"""Where parameters are while a plan runs: in the memory of the device, and before and after on the CPU.

Tensors stay the objects that they are, so that it is the user's model that is trained; what changes is their memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from flexgnn.core.errors import ConfigError, LoweringError
from flexgnn.core.program.program import Program


@dataclass(frozen=True, kw_only=True)
class Residents:
    """All that a run needs beside the fields of its plan."""

    modules: Sequence[torch.nn.Module]
    """The model, and others with parameters or buffers."""
    optimizer: torch.optim.Optimizer
    tensors: Sequence[Tensor] = ()
    """Others, such as class weights that a function was given."""

    def check(self) -> None:
        """Refuse what is not on the CPU.

        Raises:
            ConfigError: if there is such a tensor.
        """
        for tensor in self._tensors():
            if tensor.device.type != "cpu":
                raise ConfigError(
                    f"The model, or the loss, has tensors on {tensor.device}: give it on the CPU, with .to('cpu'); "
                    "whatever the device, FlexGNN takes them there for each fit, and brings them back."
                )

    @contextmanager
    def on(self, device: torch.device, program: Program) -> Iterator[None]:
        """Meanwhile they are on ``device``, and so is what the segments of ``program`` hold."""
        try:
            self._move(device, program)
            yield
        finally:
            self._move(torch.device("cpu"), program)

    def _move(self, device: torch.device, program: Program) -> None:
        constants = (tensor for segment in program.segments for tensor in segment.tensors)
        for tensor in (*self._tensors(), *constants, *self._state(back=device.type == "cpu")):
            _move(tensor, device)

    def _tensors(self) -> Iterable[Tensor]:
        for module in self.modules:
            yield from module.parameters()
            yield from module.buffers()
        yield from self.tensors

    def _state(self, *, back: bool) -> Iterable[Tensor]:
        """Of the optimizer; single numbers, such as steps, stay on the CPU unless all of it runs on the device."""
        for group in self.optimizer.param_groups:
            whole = group.get("capturable") or group.get("fused")
            for parameter in group["params"]:
                for value in self.optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and (back or whole or value.ndim > 0):
                        yield value


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


def _move(tensor: Tensor, device: torch.device) -> None:
    if tensor.device.type == device.type:
        return
    gradient, tensor.grad = tensor.grad, None
    tensor.data = tensor.data.to(device)
    if gradient is not None:
        tensor.grad = gradient.to(device)
