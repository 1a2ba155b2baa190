"""Whether a convolution gives on parts of a graph what it gives on all of it: tried on a small graph, before planning.

The graph has self loops, duplicate edges, isolated nodes and no order of edges. Outputs and gradients are compared.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.nn.conv import MessagePassing

from flexgnn.core.errors import LoweringError
from flexgnn.core.program.convolution import Convolution, Neighborhood, neighborhood
from flexgnn.core.program.edge_inputs import EdgeInputs
from flexgnn.core.program.refusals import refuse
from flexgnn.core.tier import Array

_NODES, _REACHED, _EDGES = 12, 10, 40
_TILES = ((0, 5), (5, 6), (6, 10), (10, 12))
_TOLERANCE = 1e-4
_NEEDS_MORE = (
    "gives other results on a part of the graph than on all of it: its output at a node must need only the node, its "
    "in-neighbours and its in-edges"
)
_INSTEAD = (
    "if it normalises by degrees, normalise the weights before training (torch_geometric.transforms.GCNNorm) and turn "
    "its own normalisation off; several hops are several convolutions"
)


def checked_width(convolution: Convolution, columns: int) -> int:
    """Columns of the output for D ``columns`` of the input.

    Raises:
        LoweringError: if it can't be run on parts of a graph with the same result, or not with so many columns.
    """
    sample = _Sample(columns, convolution.graph)
    what, probe = convolution.what, copy.deepcopy(convolution.conv)
    with torch.random.fork_rng(devices=[]):
        expected = _whole(convolution, probe.train(), sample, seed=0)
        for seed, training, problem, remedy in (
            (1, True, "draws random numbers", "put dropout outside of it, as torch.nn.Dropout between layers"),
            (1, False, "computes something else in evaluation than in training", "keep norms and dropout outside"),
        ):
            if not _close(_whole(convolution, probe.train(training), sample, seed), expected):
                raise refuse(what, problem, remedy)
        _check_parts(convolution, probe.train(), sample, expected)
    return expected.shape[1]


class _Sample:
    """A small graph: edges in no order, and the same by targets."""

    def __init__(self, columns: int, graph: EdgeInputs) -> None:
        generator = torch.Generator().manual_seed(0)
        edges = torch.randint(0, _REACHED, (2, _EDGES), generator=generator)
        edges[1, :3] = edges[0, :3]
        edges[:, 3:6] = edges[:, 6:9]
        order = torch.argsort(edges[1] * _NODES + edges[0], stable=True)
        self.x = torch.randn(_NODES, columns, generator=generator)
        self.edge_index, self.edge_data = edges, graph.sample(_EDGES)
        self._indices = edges[0, order].numpy()
        self._sorted = {given: tensor[order].numpy() for given, tensor in self.edge_data.items()}
        self._indptr: Array = np.append(0, np.cumsum(np.bincount(edges[1].numpy(), minlength=_NODES)))

    def parts(self) -> Iterator[Neighborhood]:
        for first, stop in _TILES:
            yield neighborhood(self._indptr[first : stop + 1], self._indices, self._sorted, first)


def _whole(convolution: Convolution, conv: MessagePassing, sample: _Sample, seed: int) -> Tensor:
    """The output for the whole graph."""
    torch.manual_seed(seed)
    try:
        # What it writes to its input stays in the copy.
        out: Any = convolution.call(conv, sample.x.clone(), sample.edge_index, sample.edge_data)
    except Exception as error:
        raise LoweringError(f"{convolution.what} doesn't accept its input: {error}") from error
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != _NODES or out.dtype != torch.float32:
        found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise refuse(
            convolution.what,
            f"returns {found} for {_NODES} nodes",
            "it must return one float32 row of features a node",
        )
    return out


@dataclass
class _Gradients:
    of_input: Tensor
    of_parameters: list[Tensor]


def _check_parts(convolution: Convolution, conv: MessagePassing, sample: _Sample, expected: Tensor) -> None:
    probe = replace(convolution, conv=conv, _copies=threading.local())
    weighting = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    total = _Gradients(torch.zeros_like(sample.x), [torch.zeros_like(p) for p in probe.parameters])
    for part in sample.parts():
        targets = part.rows[: part.num_targets]
        try:
            out = probe.forward(sample.x[part.rows], part)
            found, of_parameters = probe.backward(sample.x[part.rows], part, weighting[targets], of_input=True)
        except Exception as error:
            raise refuse(convolution.what, f"can't be run on a part of the graph ({error})", _INSTEAD) from error
        if not _close(out, expected[targets]):
            raise refuse(convolution.what, _NEEDS_MORE, _INSTEAD)
        if found is not None:
            total.of_input[part.rows] += found
        for sums, gradient in zip(total.of_parameters, of_parameters, strict=True):
            sums += 0 if gradient is None else gradient
    _check_gradients(convolution, probe, sample, weighting, total)


def _check_gradients(
    convolution: Convolution, probe: Convolution, sample: _Sample, weighting: Tensor, found: _Gradients
) -> None:
    x = sample.x.clone().requires_grad_()
    out: Tensor = convolution.call(probe.conv, x, sample.edge_index, sample.edge_data)
    if not out.requires_grad:
        return
    gradients = torch.autograd.grad(out, (x, *probe.parameters), weighting, allow_unused=True)
    for expected, ours in zip(gradients, (found.of_input, *found.of_parameters), strict=True):
        if not _close(ours, torch.zeros_like(ours) if expected is None else expected):
            raise refuse(convolution.what, _NEEDS_MORE.replace("results", "gradients"), _INSTEAD)


def _close(ours: Tensor, expected: Tensor) -> bool:
    if ours.shape != expected.shape:
        return False
    scale = max(1.0, float(expected.detach().abs().max())) if expected.numel() else 1.0
    return bool(torch.allclose(ours, expected, rtol=_TOLERANCE, atol=_TOLERANCE * scale, equal_nan=True))
