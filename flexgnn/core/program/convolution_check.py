"""Whether a convolution gives on parts of a graph what it gives on all of it: tried on a small graph, before planning.

The graph has self loops, duplicate edges, isolated nodes, a hub and no order of edges. Outputs and gradients are
compared, and nothing may be left behind in the convolution or its input. It is a trial and no proof: what a convolution
does at sizes or values that the trial doesn't have is not seen.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.nn.conv import MessagePassing

from flexgnn.core.errors import LoweringError
from flexgnn.core.program.convolution import Convolution, Neighborhood, Tried, neighborhood
from flexgnn.core.program.edge_inputs import EdgeInput, EdgeInputs
from flexgnn.core.program.refusals import refuse
from flexgnn.core.tier import Array

_NODES, _REACHED, _EDGES, _HUB_EDGES = 48, 44, 160, 96
"""Nodes beyond those that are reached are isolated; the hub has its edges each way."""
_TILES = ((0, 1), (1, 20), (20, 44), (44, 48))
"""The hub by itself, many nodes, and the isolated ones."""
_SCALE = 3.0
"""Of inputs, so that some are large."""
_TOLERANCE, _ROUNDING = 1e-4, 1e-3
"""Relative to the largest of a tensor; what is smaller than that share of the largest gradient may be rounding."""
_SEEDS = 8
"""Runs of a convolution that draws random numbers, to see whether its output depends on them."""

_NEEDS_MORE = (
    "gives other results on a part of the graph than on all of it: its output at a node must need only the node, its "
    "in-neighbours and its in-edges"
)
_OF_PAIRS = "score each pair by the two rows that it is called with, and give a module itself as the decoder"
_INSTEAD = (
    "if it normalises by degrees, normalise the weights before training (torch_geometric.transforms.GCNNorm) and turn "
    "its own normalisation off; several hops are several convolutions"
)


def checked_width(convolution: Convolution, columns: int) -> int:
    """Columns of the output for D ``columns`` of the input.

    Raises:
        LoweringError: if it can't be run on parts of graphs with the same result, or not with so many columns.
    """
    if columns in convolution.tried:
        return convolution.tried[columns].width
    with torch.random.fork_rng(devices=[]):
        trial = _Trial(convolution, _Sample(columns, convolution.edges, positive=False))
        if not trial.finite:  # of what takes roots or logarithms
            trial = _Trial(convolution, _Sample(columns, convolution.edges, positive=True))
        trial.check()
        bipartite = trial.is_bipartite()
    convolution.tried[columns] = Tried(width=trial.expected.shape[1], bipartite=bipartite)
    return convolution.tried[columns].width


class _Sample:
    """A small graph: edges in no order, and the same by targets."""

    def __init__(self, columns: int, inputs: EdgeInputs, *, positive: bool) -> None:
        generator = torch.Generator().manual_seed(0)
        edges = torch.randint(0, _REACHED, (2, _EDGES), generator=generator)
        edges[1, :3] = edges[0, :3]
        edges[:, 3:6] = edges[:, 6:9]
        hub = torch.randint(0, _REACHED, (_HUB_EDGES,), generator=generator)
        edges = torch.cat([edges, torch.stack([hub, 0 * hub]), torch.stack([0 * hub, hub])], dim=1)
        edges = edges[:, torch.randperm(edges.shape[1], generator=generator)]
        x = _SCALE * torch.randn(_NODES, columns, generator=generator)
        self.x = x.abs() if positive else x
        self.edge_index = edges
        self.edge_data = inputs.sample(edges.shape[1], positive=positive)
        order = torch.argsort(edges[1] * _NODES + edges[0], stable=True)
        self._indices = edges[0, order].numpy()
        self._sorted = {given: tensor[order].numpy() for given, tensor in self.edge_data.items()}
        self._indptr: Array = np.append(0, np.cumsum(np.bincount(edges[1].numpy(), minlength=_NODES)))

    def parts(self) -> Iterator[Neighborhood]:
        for first, stop in _TILES:
            yield neighborhood(self._indptr[first : stop + 1], self._indices, self._sorted, first)

    def copies(self) -> tuple[Tensor, Tensor, dict[EdgeInput, Tensor]]:
        """What a convolution is called with, for it to spoil."""
        return self.x.clone(), self.edge_index.clone(), {name: t.clone() for name, t in self.edge_data.items()}


class _Trial:
    """Runs of a copy of a convolution."""

    def __init__(self, convolution: Convolution, sample: _Sample) -> None:
        self._what, self._sample = convolution.what, sample
        try:
            conv = copy.deepcopy(convolution.conv)
        except RuntimeError as error:  # torch copies no tensor that was computed
            raise refuse(self._what, f"can't be copied ({error})", "don't keep computed tensors in it") from error
        self._probe = convolution.with_conv(conv.train())
        self.expected = self._whole(seed=0)
        self._weighting = torch.randn(self.expected.shape, generator=torch.Generator().manual_seed(1))
        """A gradient of the output."""

    @property
    def _instead(self) -> str:
        return _INSTEAD if self._probe.over == "in" else _OF_PAIRS

    @property
    def finite(self) -> bool:
        return bool(torch.isfinite(self.expected).all())

    def check(self) -> None:
        """Refuse a convolution that can't be run on parts."""
        if not self.finite:
            problem = "gives infinite numbers, or none, for random features"
            raise refuse(self._what, problem, "bound what it takes logarithms, roots or quotients of")
        self._check_repeats()
        self._check_parts(self._probe)

    def is_bipartite(self) -> bool:
        """Whether it takes sources and targets apart; asked of one that passed the check."""
        tried = {self._sample.x.shape[1]: Tried(width=self.expected.shape[1], bipartite=True)}
        try:
            self._check_parts(replace(self._probe, tried=tried))
        except LoweringError:
            return False
        return True

    def _whole(self, seed: int) -> Tensor:
        """The output for the whole graph; nothing else may change."""
        torch.manual_seed(seed)
        x, edge_index, edge_data = self._sample.copies()
        before = _state(self._probe.conv)
        try:
            out: Any = self._probe.call(self._probe.conv, x, edge_index, edge_data)
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise LoweringError(f"{self._what} doesn't accept its input: {reason}{self._missing()}") from error
        if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != _NODES or out.dtype != torch.float32:
            found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            problem = f"returns {found} for {_NODES} nodes"
            raise refuse(self._what, problem, "it must return one float32 row of features a node")
        given = (self._sample.x, self._sample.edge_index, *self._sample.edge_data.values())
        if not all(map(torch.equal, given, (x, edge_index, *edge_data.values()))):
            raise refuse(self._what, "writes to its input", "have it write to a copy")
        if not _same_state(before, _state(self._probe.conv)):
            problem = "changes its buffers or numbers when it is called"
            raise refuse(
                self._what,
                problem,
                "FlexGNN calls it once a tile: keep norms with running statistics, and counts, outside",
            )
        return out.detach()

    def _missing(self) -> str:
        """What the graph does not have, in words."""
        of_edges = EdgeInput if self._probe.over == "in" else ()
        missing = [given.value for given in of_edges if given not in self._sample.edge_data]
        return f" (the graph has no {', '.join(missing)})" if missing else ""

    def _check_repeats(self) -> None:
        """Nothing random, and the same in evaluation."""
        torch.manual_seed(1)
        before = torch.get_rng_state()
        runs = [self._whole(seed=1)]
        if not torch.equal(before, torch.get_rng_state()):
            runs += [self._whole(seed) for seed in range(2, 2 + _SEEDS)]
        if not all(_close(out, self.expected) for out in runs):
            instead = "put dropout outside of it, as torch.nn.Dropout between layers"
            raise refuse(self._what, "draws random numbers", instead)
        self._probe.conv.eval()
        if not _close(self._whole(seed=0), self.expected):
            problem = "computes something else in evaluation than in training"
            raise refuse(self._what, problem, "keep norms and dropout outside")
        self._probe.conv.train()

    def _check_parts(self, probe: Convolution) -> None:
        """Compare outputs, and gradients of input and parameters, added up."""
        sample = self._sample
        of_input, of_parameters = torch.zeros_like(sample.x), [torch.zeros_like(p) for p in probe.parameters]
        for part in sample.parts():
            targets = part.rows[: part.num_targets]
            try:
                out = probe.forward(sample.x[part.rows], part)
                found, further = probe.backward(sample.x[part.rows], part, self._weighting[targets], of_input=True)
            except Exception as error:
                problem = f"can't be run on a part of the graph, which may have no edges ({error})"
                raise refuse(self._what, problem, self._instead) from error
            if not _close(out, self.expected[targets], float(self.expected.abs().max())):
                raise refuse(self._what, _NEEDS_MORE, self._instead)
            if found is not None:
                of_input[part.rows] += found
            for sums, gradient in zip(of_parameters, further, strict=True):
                sums += 0 if gradient is None else gradient
        self._check_gradients(of_input, of_parameters)

    def _check_gradients(self, of_input: Tensor, of_parameters: Sequence[Tensor]) -> None:
        x, edge_index, edge_data = self._sample.copies()
        with torch.enable_grad():  # models are lowered without
            out: Tensor = self._probe.call(self._probe.conv, x.requires_grad_(), edge_index, edge_data)
        if not out.requires_grad:
            return
        own = {id(tensor) for tensor in (x, *self._probe.conv.parameters())}
        if any(id(leaf) not in own for leaf in _leaves(out)):
            problem = "reads parameters that are not its own"
            instead = "register the module that holds them in the convolution"
            raise refuse(self._what, problem, instead if self._probe.over == "in" else _OF_PAIRS)
        wanted = (x, *self._probe.parameters)
        gradients = torch.autograd.grad(out, wanted, self._weighting, allow_unused=True)
        expected = [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, gradients, strict=True)]
        least = _ROUNDING * max(float(gradient.abs().max()) for gradient in expected if gradient.numel())
        for gradient, ours in zip(expected, (of_input, *of_parameters), strict=True):
            if not _close(ours, gradient, least):
                raise refuse(self._what, _NEEDS_MORE.replace("results", "gradients"), self._instead)


def _leaves(out: Tensor) -> Iterator[Tensor]:
    """The tensors that autograd would leave gradients at."""
    pending, seen = [out.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if hasattr(node, "variable"):
                yield node.variable
            pending += [following for following, _ in node.next_functions]


def _state(conv: MessagePassing) -> dict[str, Any]:
    """Buffers, and numbers among the attributes of all modules."""
    found: dict[str, Any] = {name: buffer.clone() for name, buffer in conv.named_buffers()}
    for path, module in conv.named_modules():
        numbers = {name: value for name, value in vars(module).items() if type(value) in (int, float)}
        found |= {f"{path}.{name}": value for name, value in numbers.items()}
    return found


def _same_state(before: dict[str, Any], after: dict[str, Any]) -> bool:
    def same(a: Any, b: Any) -> bool:
        both = isinstance(a, Tensor) and isinstance(b, Tensor)
        return torch.equal(a, b) if both else type(a) is type(b) and a == b

    return all(same(value, after.get(name)) for name, value in before.items())


def _close(ours: Tensor, expected: Tensor, least: float = 0.0) -> bool:
    """Relative to the largest of ``expected``, which counts as ``least`` at the least."""
    if ours.shape != expected.shape:
        return False
    if not expected.numel():
        return True
    scale = max(float(expected.abs().max()), least)
    return float((ours - expected).abs().max()) <= _TOLERANCE * scale
