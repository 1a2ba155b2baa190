"""Convolutions without a rule, run as they are on parts of the graph: some nodes, in-neighbours, the edges between.

Exact for every convolution whose output at a node needs no more than the node, its in-neighbours and its in-edges:
:mod:`flexgnn.core.program.convolution_check` tries that.

Shape legend: T nodes of a tile, H further in-neighbours of theirs, E edges into the tile, D and C columns of the input
and of the output.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from flexgnn.core.program.edge_inputs import EdgeInput, EdgeInputs
from flexgnn.core.program.negatives import NegativeSampler
from flexgnn.core.tier import Array


class Argument(Enum):
    """What a convolution is called with that differs from tile to tile, beside what edges hold."""

    NODES = "x"
    EDGES = "edge_index"


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighborhood:
    """The part of the graph that a tile needs: rows of the tile first, then those of its other in-neighbours."""

    rows: Array
    """int64 [T + H]: positions in the graph."""
    num_targets: int
    """T."""
    edge_index: Tensor
    """int64 [2, E]: sources and targets among ``rows``, in the order of the graph's in-edges."""
    edge_data: Mapping[EdgeInput, Tensor]
    """Of these edges."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What a try of a convolution tells."""

    width: int
    """Columns of the output."""
    bipartite: bool
    """Whether it takes rows of sources and of targets apart, as ``(x, x[:T])``, with the same result: it is called so
    then, since it computes no output for other sources than targets."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution:
    """A call of a convolution that is run as it is."""

    conv: torch.nn.Module = field(repr=False)
    """The user's own module, or a loss over pairs."""
    what: str
    """In messages."""
    args: tuple[Any, ...]
    """With :class:`Argument` and :class:`EdgeInput` in the place of tensors."""
    kwargs: Mapping[str, Any]
    edges: EdgeInputs
    """What there is for each edge, read or not."""
    over: Literal["in", "pairs"] = "in"
    """What its edges are: those of the graph, or pairs of nodes whose links are predicted."""
    sampler: NegativeSampler | None = None
    """Draws further pairs in training."""
    tried: dict[int, Tried] = field(default_factory=dict, repr=False)
    """By columns of the input, once it was tried: a model's graph is looked at several times."""

    @property
    def parameters(self) -> tuple[torch.nn.Parameter, ...]:
        """Those that are trained."""
        return tuple(parameter for parameter in self.conv.parameters() if parameter.requires_grad)

    def with_conv(self, conv: torch.nn.Module) -> Convolution:
        """The same call of another module."""
        return replace(self, conv=conv)

    @property
    def edge_inputs(self) -> tuple[EdgeInput, ...]:
        """What it reads of edges."""
        return tuple(given for given in EdgeInput if given in (*self.args, *self.kwargs.values()))

    def call(
        self,
        conv: torch.nn.Module,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor,
        edge_data: Mapping[EdgeInput, Tensor],
    ) -> Any:
        """``conv``, one like :attr:`conv`, with these tensors."""
        tensors = {Argument.NODES: x, Argument.EDGES: edge_index}

        def filled(value: Any) -> Any:
            if isinstance(value, EdgeInput):
                return edge_data[value]
            return tensors[value] if isinstance(value, Argument) else value

        return conv(*map(filled, self.args), **{name: filled(value) for name, value in self.kwargs.items()})

    def forward(self, x: Tensor, part: Neighborhood) -> Tensor:
        """T x C, from ``x`` at the rows of ``part`` ((T + H) x D)."""
        with torch.no_grad():
            return self._run(x, part)

    def backward(
        self, x: Tensor, part: Neighborhood, gradient: Tensor, *, of_input: bool
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Gradients of ``x`` ((T + H) x D, if ``of_input``) and of :attr:`parameters`, from that of the output (T x C).

        None for what the output does not depend on.
        """
        with torch.enable_grad():
            x = x.requires_grad_(of_input)
            out = self._run(x, part)
            wanted = ((x,) if of_input else ()) + self.parameters
            if not out.requires_grad:  # a part without edges may have nothing to differentiate
                return None, [None] * len(self.parameters)
            found = torch.autograd.grad(out, wanted, gradient, allow_unused=True)
        return (found[0] if of_input else None), list(found[len(wanted) - len(self.parameters) :])

    def _run(self, x: Tensor, part: Neighborhood) -> Tensor:
        # Some keep tensors while they run, and tiles run side by side.
        shared = {id(tensor): tensor for tensor in (*self.conv.parameters(), *self.conv.buffers())}
        tried = self.tried.get(x.shape[1])
        nodes = (x, x[: part.num_targets]) if tried is not None and tried.bipartite else x
        out: Tensor = self.call(copy.deepcopy(self.conv, shared), nodes, part.edge_index, part.edge_data)
        return out[: part.num_targets]


def neighborhood(indptr: Array, indices: Array, edge_data: Mapping[EdgeInput, Array], first: int) -> Neighborhood:
    """The neighbourhood of a tile.

    Args:
        indptr: int64 [T + 1], where the in-edges of each of its nodes begin in ``indices``.
        indices: sources, as positions in the graph.
        edge_data: of the same edges.
        first: position of the tile's first node.
    """
    count = len(indptr) - 1
    edges = slice(int(indptr[0]), int(indptr[-1]))
    sources = indices[edges].astype(np.int64) - first
    outside = (sources < 0) | (sources >= count)
    others, places = np.unique(sources[outside], return_inverse=True)
    sources[outside] = count + places
    targets = np.repeat(np.arange(count), np.diff(indptr))
    return Neighborhood(
        rows=np.concatenate([np.arange(count), others]) + first,
        num_targets=count,
        edge_index=torch.from_numpy(np.stack([sources, targets])),
        edge_data={given: _as_tensor(array[edges]) for given, array in edge_data.items()},
    )


def _as_tensor(array: Array) -> Tensor:
    """A copy, so that nothing can write to the graph's; types are int64, as PyG has them."""
    tensor = torch.from_numpy(array)
    return tensor.clone() if tensor.is_floating_point() else tensor.long()
