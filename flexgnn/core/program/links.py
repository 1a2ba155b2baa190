"""Link prediction: a loss over pairs of nodes, as a convolution over these pairs of what a model puts out.

Shape legend: N nodes, P pairs, D columns of a model's output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from flexgnn.core.errors import ConfigError
from flexgnn.core.graph.layout import LINKED, TEST, TRAIN, VAL
from flexgnn.core.program.convolution import Argument, Convolution
from flexgnn.core.program.criterion import TrainingLoss
from flexgnn.core.program.edge_inputs import EdgeInput, EdgeInputs
from flexgnn.core.program.negatives import SAMPLED, NegativeSampler

Decoder = Callable[[Tensor, Tensor], Tensor]
"""From rows of the model's output at sources and at destinations (P x D each) to one score a pair (P)."""

_KINDS = 2 * SAMPLED
"""Kinds of pairs are below it."""


def dot_product(source: Tensor, destination: Tensor) -> Tensor:
    """The product of the two rows of each pair (P x D) with each other: P."""
    return (source * destination).sum(dim=-1)


@dataclass(frozen=True, kw_only=True)
class LinkPrediction:
    """Trains a model to tell which pairs of nodes are linked: the ``loss`` of a trainer.

    The loss is the mean binary cross entropy over the training pairs, of scores that are logits.
    """

    decoder: Decoder = field(default=dot_product)
    """A function or module of torch, from rows at sources and destinations (P x D each) to scores (P)."""
    negatives: int | None = None
    """So many pairs are drawn for each training link, anew in every epoch: from random nodes that have no edge, and no
    training link, to its destination; where 16 draws found none, from the last. None: one if there is no unlinked
    training pair in the graph, else none."""

    def __post_init__(self) -> None:
        if not callable(self.decoder) or isinstance(self.decoder, type):
            raise ConfigError(f"The decoder is {self.decoder!r}: give a function or a module of torch.")
        number = 0 if self.negatives is None else self.negatives
        if not isinstance(number, int) or number < 0:
            raise ConfigError(f"negatives is {number!r}: give a whole number of pairs for each link, or None.")


class _LinkLoss(torch.nn.Module):
    """Scores pairs, and adds up at each destination what comes of them."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, x: Tensor, edge_index: Tensor, kinds: Tensor) -> Tensor:
        """Over the pairs of each node (N x 4): the sum of losses, and right decisions by split."""
        scores = self._scores(x[edge_index[0]], x[edge_index[1]])
        linked, counted = (kinds & LINKED) != 0, (kinds & (TRAIN | SAMPLED)) != 0
        right = (scores.detach() > 0) == linked
        # Pairs for validation and test leave no trace in the gradient, not even where their scores are infinite.
        scores = torch.where(counted, scores, 0.0)
        losses = binary_cross_entropy_with_logits(scores, linked.to(scores), reduction="none")
        columns = [losses * counted]
        columns += [(right & ((kinds & split) != 0)).to(scores) for split in (TRAIN, VAL, TEST)]
        return x.new_zeros(len(x), len(columns)).index_add(0, edge_index[1], torch.stack(columns, dim=1))

    def _scores(self, source: Tensor, destination: Tensor) -> Tensor:
        scores = self.decoder(source, destination)
        if not isinstance(scores, Tensor) or scores.shape not in ((len(source),), (len(source), 1)):
            found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"it gives {found} for {len(source)} pairs, and must give one score each")
        return scores.reshape(-1)


def link_convolution(links: LinkPrediction, negatives: int, num_nodes: int) -> Convolution:
    """What is made of a model's output: four columns, which :data:`LINK_LOSS` reads.

    ``negatives`` are those for each link of a graph of ``num_nodes``.
    """
    return Convolution(
        conv=_LinkLoss(links.decoder),
        what="The decoder of LinkPrediction",
        args=(Argument.NODES, Argument.EDGES, EdgeInput.TYPES),
        kwargs={},
        edges=EdgeInputs(num_types=_KINDS),
        over="pairs",
        sampler=NegativeSampler(number=negatives, num_nodes=num_nodes) if negatives else None,
    )


def _total(outputs: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
    return outputs[:, 0].sum()


LINK_LOSS = TrainingLoss(total=_total, divisor=None)
"""The sum over training pairs, those that were drawn among them."""


def right_decisions(outputs: Tensor) -> Tensor:
    """On training, validation and test pairs of some nodes (R x 4), those that were drawn excepted: float64 [3]."""
    return outputs[:, 1:].sum(0, dtype=torch.float64)
