"""Running one segment on one tile, forward and backward.

Shape legend: R rows of a tile, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from flexgnn.core.program.program import Segment
from flexgnn.core.program.row_context import RowContext

NamedTensors = dict[str, Tensor]


def run_forward(segment: Segment, values: Mapping[str, Tensor], rows: RowContext) -> NamedTensors:
    """The segment's outputs (each R x D) from its inputs and moments among ``values``, without autograd."""
    with torch.no_grad():
        outputs = segment.run([values[name] for name in segment.operands], rows)
    return dict(zip(segment.outputs, outputs, strict=True))


def run_backward(
    segment: Segment,
    values: Mapping[str, Tensor],
    rows: RowContext,
    needs_grad: frozenset[str],
    gradients_of: Callable[[NamedTensors], Mapping[str, Tensor]],
) -> tuple[NamedTensors, list[Tensor | None]]:
    """Differentiate the segment.

    Args:
        segment: one that has a derivative.
        values: at least the segment's inputs, and its hidden values if it reads any, each R x D, and its moments.
        rows: which rows these are.
        needs_grad: names of the values and moments that depend on parameters.
        gradients_of: returns the gradients of those of the outputs that need one. It is given the outputs of the last
            segment, and nothing in others, whose outputs are not computed again.

    Returns:
        Gradients of the inputs and moments that need one (zeros where the outputs don't depend on them), and one entry
        for each of ``segment.parameters``: its gradient, or None.
    """
    assert segment.differentiate is not None, "only segments of networks without parameters have no derivative"

    def named(outputs: Sequence[Tensor]) -> Mapping[str, Tensor]:
        return gradients_of(dict(zip(segment.outputs, outputs, strict=False)))

    with torch.no_grad():
        hidden = [values[name] for name in segment.hidden]
        found = segment.differentiate(*(values[name] for name in segment.operands), rows, named, *hidden)
    wanted = [name for name in segment.operands if name in needs_grad]
    inputs = {
        name: torch.zeros_like(values[name]) if gradient is None else gradient
        for name, gradient in zip(wanted, found, strict=False)
    }
    return inputs, found[len(wanted) :]
