"""What a pass adds up over all rows for norms: moments, and gradients of moments."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from flexgnn.core.errors import GraphError
from flexgnn.core.plan.moments import differentiated_moments, moments_made
from flexgnn.core.plan.workload import Phase
from flexgnn.core.program.moments import Moments, moments_gradient, moments_of_rows
from flexgnn.core.program.norms import update_running
from flexgnn.core.program.program import Program


class MomentSums:
    """Sums over the tiles of one pass, by moment. Once a stage is done, those of its moments are complete."""

    def __init__(self) -> None:
        self._moments: dict[str, Moments] = {}
        self._gradients: dict[str, Tensor] = {}

    def add(self, moments: Mapping[str, Moments], gradients: Mapping[str, Tensor]) -> None:
        """Add those of a tile; gradients are 2 x D."""
        for name, found in moments.items():
            self._moments[name] = self._moments[name] + found if name in self._moments else found
        for name, gradient in gradients.items():
            before = self._gradients.get(name)
            self._gradients[name] = gradient.double() if before is None else before.add_(gradient)

    def tensors(self, program: Program, device: torch.device) -> dict[str, Tensor]:
        """The moments as segments read them (2 x D, float32); zeros where none were added, and no one looks at them."""
        return {
            m.name: self._moments[m.name].tensor if m.name in self._moments else torch.zeros(2, m.width, device=device)
            for m in program.moments
        }

    def shares(self) -> dict[str, Tensor]:
        """What :func:`~flexgnn.core.program.moments.moments_gradient` takes of their gradients."""
        return {n: _shares(g, self._moments[n].count) for n, g in self._gradients.items()}

    def update_running(self, program: Program) -> None:
        """Update the running statistics of the norms of ``program``, after all its tiles were added."""
        for running in program.running:
            update_running(running.norm, self._moments[running.moment])


def _shares(gradient: Tensor, count: int) -> Tensor:
    return (torch.stack([gradient[0], 2 * gradient[1]]) / count).float()


def tile_moments(program: Program, phase: Phase, value_of: Callable[[str], Tensor]) -> dict[str, Moments]:
    """The moments that ``phase`` makes, of the rows of one tile; ``value_of`` gives a value there, as it is stored."""
    return {m.name: moments_of_rows(value_of(m.value)) for m in moments_made(program, phase.stage, phase.kind)}


def add_moments_gradients(
    program: Program,
    name: str,
    total: Tensor,
    moments: Mapping[str, Tensor],
    shares: Mapping[str, Tensor],
    value_of: Callable[[], Tensor],
) -> None:
    """Add to ``total``, the gradient of value ``name`` (T x D), what reaches it through moments of it."""
    found = [m.name for m in differentiated_moments(program, name)]
    if found:
        value = value_of()
        for moment in found:
            total.add_(moments_gradient(value, moments[moment], shares[moment]))


def check_rows_for_moments(program: Program, num_nodes: int) -> None:
    """Refuse to take statistics of a single row.

    Raises:
        GraphError: if that is what ``program`` would do.
    """
    if program.moments and num_nodes < 2:
        raise GraphError("The model has a norm over all nodes, but the graph has one node; use torch.nn.LayerNorm.")
