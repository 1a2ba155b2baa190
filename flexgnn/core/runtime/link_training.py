"""What training on pairs of nodes needs to know of a graph before it begins."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from flexgnn.core.errors import ConfigError
from flexgnn.core.graph.layout import LINKS
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.program.convolution import Convolution
from flexgnn.core.program.links import LinkPrediction, link_convolution
from flexgnn.core.runtime.splits import count_training_pairs


@dataclass(frozen=True, kw_only=True, eq=False)
class LinkTraining:
    """A loss over the pairs of one graph."""

    convolution: Convolution
    """What is made of the model's output."""
    num_pairs: int
    """Of an epoch, in training: those of the graph, and those that are drawn."""
    decoder: torch.nn.Module | None
    """Where it is a module."""


def links_of(loss: object, store: GraphStore) -> LinkTraining | None:
    """The loss over the pairs of ``store``; None where labels are of nodes.

    Raises:
        ConfigError: if ``loss`` is for the other kind of graph, or there would be nothing but links to learn from.
    """
    if store.info.task != LINKS:
        if isinstance(loss, LinkPrediction):
            raise ConfigError(
                f"The graph {store.info.name!r} has labels of nodes, and no pairs for LinkPrediction: import it with "
                "edge_label_index, as RandomLinkSplit makes it."
            )
        return None
    if loss is not None and not isinstance(loss, LinkPrediction):
        raise ConfigError(
            f"The graph {store.info.name!r} has pairs of nodes in the place of labels: give "
            "loss=LinkPrediction(...), or None."
        )
    links, pairs = loss or LinkPrediction(), count_training_pairs(store)
    negatives = links.negatives
    if negatives is None:
        negatives = 0 if pairs.unlinked else 1
    if not pairs.linked:
        raise ConfigError(
            "No training pair is linked, so there is nothing to learn: correct edge_label and import again."
        )
    if not pairs.unlinked and not negatives:
        raise ConfigError("All training pairs are linked, and negatives=0 draws no others: give 1 or more.")
    return LinkTraining(
        convolution=link_convolution(links, negatives, store.info.num_nodes),
        num_pairs=pairs.linked * (1 + negatives) + pairs.unlinked,
        decoder=links.decoder if isinstance(links.decoder, torch.nn.Module) else None,
    )
