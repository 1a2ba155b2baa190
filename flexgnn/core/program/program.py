"""A network as FlexGNN runs it: row-local segments, and aggregations between them.

Shape legend: N nodes, R rows of a tile, D width.

Stage ``k`` of a program is: the aggregations whose result first exists at stage ``k``, then segment ``k``,
which sees only a node's own rows, and moments of values of earlier stages. Stage 0 has no aggregation. A value is an
N x D tensor named by text: ``"x"`` (the input features), a folded aggregation of them, an aggregation's output, or a
segment's output. A segment reads values of its own stage's aggregations and of earlier stages; the last segment's only
output is the logits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from flexgnn.core.program.attention import Attention
from flexgnn.core.program.convolution import Convolution
from flexgnn.core.program.row_context import RowContext

FEATURES = "x"
"""The name of the value that holds the input features."""

Reduce = Literal["sum", "max", "attention", "convolution"]
Normalization = Literal["none", "mean", "gcn"]


def is_stored(value: str) -> bool:
    """Whether a value is kept beside the graph: the features, or a folded aggregation of them."""
    return value == FEATURES or value.startswith(f"{FEATURES}_")


@dataclass(frozen=True, kw_only=True)
class Adjacency:
    """The N x N matrix that an aggregation applies; entry (i, j) weighs what node i receives from node j."""

    weighted: bool
    """Entries are the graph's edge weights, or 1."""
    normalization: Normalization
    """``mean``: rows divided by the number of in-edges (Hamilton et al. 2017). ``gcn``: D^-1/2 A D^-1/2 with D the
    row sums (Kipf and Welling 2017)."""
    self_loop_weight: float | None
    """None: loops are as the graph has them. Else every node has exactly one loop: its own with its weight where the
    graph has one, otherwise one of this weight."""


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """What an aggregation does with its inputs."""

    reduce: Reduce
    """``max`` is elementwise, takes no weights, and shares the gradient equally among ties. ``convolution`` is whatever
    the user's own convolution computes from a node, its in-neighbours and its in-edges."""
    adjacency: Adjacency
    attention: Attention | None = None
    """Of ``attention``, which takes no weights of edges either."""
    convolution: Convolution | None = None
    """Of ``convolution``."""


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """``output[i] = reduce over in-neighbours j of adjacency[i, j] * input[j]``; 0 where there is none."""

    stage: int
    input: str
    output: str
    reduce: Reduce
    adjacency: Adjacency
    attention: Attention | None = None
    query: str | None = None
    """The value that an attention reads at each node itself."""
    convolution: Convolution | None = None


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The mean and the variance of each column of a value over all rows: 2 x D, without rows of its own.

    Segments of later stages than ``stage`` may read it.
    """

    name: str
    value: str
    """A stored one, or an output of segment ``stage``."""
    stage: int
    width: int
    """D of ``value``."""
    in_evaluation: bool
    """Whether evaluation reads it too."""


@dataclass(frozen=True, kw_only=True)
class RunningStatistics:
    """Running statistics that an epoch of training updates, as buffers of the user's own module."""

    norm: torch.nn.Module
    moment: str


@dataclass(frozen=True, kw_only=True)
class Folded:
    """An aggregation of a stored value, which is the same in every epoch: computed once, and stored as well."""

    name: str
    """Says all that it depends on, the graph excepted."""
    input: str
    reduce: Reduce
    adjacency: Adjacency

    @property
    def array(self) -> str:
        """The array of the graph store that holds it."""
        return f"folded/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A row-local function: row i of every output needs only row i of the inputs, and moments."""

    stage: int
    inputs: tuple[str, ...]
    """Values."""
    outputs: tuple[str, ...]
    run: Callable[[Sequence[Tensor], RowContext], tuple[Tensor, ...]]
    """What :attr:`operands` names, inputs R x D and moments 2 x D, to outputs in the order of ``outputs``. Never writes
    to its inputs. An output may be one of the inputs itself, or share its memory."""
    moments: tuple[str, ...] = ()
    """Those that it reads."""
    parameters: tuple[torch.nn.Parameter, ...] = ()
    """The trainable parameters that it uses: the user's own objects."""
    tensors: tuple[Tensor, ...] = ()
    """All that it holds: those, others that are not trained, buffers and constants."""
    differentiate: Callable[..., list[Tensor | None]] | None = None
    """Gradients from :attr:`operands` and :attr:`hidden`; see :func:`~flexgnn.core.program.derivative.derivative`.
    None: it has none."""
    hidden: Mapping[str, int] = field(default_factory=dict)
    """Those of the outputs that its derivative reads beside the inputs, and the width D of each."""
    retaining: Segment | None = None
    """The same with further outputs, its hidden values: its derivative has no matrix product to compute again."""

    @property
    def operands(self) -> tuple[str, ...]:
        """What :attr:`run` takes: inputs, then moments."""
        return (*self.inputs, *self.moments)


@dataclass(frozen=True, kw_only=True)
class Program:
    """A lowered model."""

    segments: tuple[Segment, ...]
    """One a stage, in order."""
    aggregations: tuple[Aggregation, ...]
    """In order of stage."""
    widths: dict[str, int]
    """D of every value."""
    needs_grad: frozenset[str]
    """The values and moments that depend on a trainable parameter."""
    evaluates_apart: bool
    """Whether segments compute something else in training than in evaluation: dropout, or batch norms."""
    moments: tuple[Moment, ...] = ()
    """In order of stage."""
    running: tuple[RunningStatistics, ...] = ()
    """In the order of their updates."""
    folded: tuple[Folded, ...] = ()
    """What segments read instead of computing it. Each comes after what it is made from."""
    fused: bool = True
    """Whether a tile is pulled and computed in one go, not after all tiles were pulled."""
    labelled: bool = True
    """Whether its output is compared with the labels of nodes."""
    rewrites: tuple[str, ...] = ()
    """What each rewrite changed, in words."""

    @property
    def logits(self) -> str:
        """The name of the network's output."""
        return self.segments[-1].outputs[0]

    @property
    def last_stage(self) -> int:
        return len(self.segments) - 1

    def aggregations_at(self, stage: int) -> tuple[Aggregation, ...]:
        """The aggregations whose output first exists at ``stage``."""
        return tuple(a for a in self.aggregations if a.stage == stage)

    @property
    def signature(self) -> str:
        """A hash of what plans depend on: equal for models of the same shape after the same rewrites."""
        parts = [self.widths, self.aggregations, self.folded, sorted(self.needs_grad), self.evaluates_apart]
        parts += [self.fused, self.moments]
        segments = [(s.stage, s.operands, s.outputs, s.retaining and tuple(s.retaining.hidden)) for s in self.segments]
        return hashlib.sha256(repr([*parts, segments]).encode()).hexdigest()[:16]
