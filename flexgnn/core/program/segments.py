"""Running one segment on one tile, forward and backward.

Shape legend: R rows of a tile, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from flexgnn.core.program.program import RowContext, Segment

NamedTensors = dict[str, Tensor]


def run_forward(segment: Segment, values: Mapping[str, Tensor], rows: RowContext) -> NamedTensors:
    """The segment's outputs (each R x D) from its inputs among ``values``, without autograd."""
    with torch.no_grad():
        outputs = segment.run([values[name] for name in segment.inputs], rows)
    return dict(zip(segment.outputs, outputs, strict=True))


def run_backward(
    segment: Segment,
    values: Mapping[str, Tensor],
    rows: RowContext,
    needs_grad: frozenset[str],
    gradients_of: Callable[[NamedTensors], NamedTensors],
) -> tuple[NamedTensors, list[Tensor | None]]:
    """Run the segment again and differentiate it.

    Args:
        values: at least the segment's inputs, each R x D.
        needs_grad: names of the values that depend on parameters.
        gradients_of: given the outputs, the gradients of those that have one.

    Returns:
        Gradients of the inputs that need one (zeros where the outputs don't depend on them), and one entry for each of
        ``segment.parameters``: its gradient, or None.
    """
    leaves = {name: values[name].detach().requires_grad_(name in needs_grad) for name in segment.inputs}
    with torch.enable_grad():
        outputs = dict(zip(segment.outputs, segment.run(list(leaves.values()), rows), strict=True))
    gradients = gradients_of({name: output.detach() for name, output in outputs.items()})
    wanted = [name for name in leaves if name in needs_grad]
    targets = [*(leaves[name] for name in wanted), *segment.parameters]
    roots = [name for name in gradients if outputs[name].requires_grad]
    found: list[Tensor | None] = [None] * len(targets)
    if roots and targets:
        found = list(
            torch.autograd.grad(
                [outputs[name] for name in roots], targets, [gradients[name] for name in roots], allow_unused=True
            )
        )
    inputs = {
        name: torch.zeros_like(leaves[name]) if gradient is None else gradient
        for name, gradient in zip(wanted, found, strict=False)
    }
    return inputs, found[len(wanted) :]
