"""Pairs of nodes whose links are to be predicted, in the form that is stored.

Shapes: P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from flexgnn.core.errors import GraphError
from flexgnn.core.graph.csr import Csr, csr_both_ways
from flexgnn.core.graph.edge_checks import checked_ends
from flexgnn.core.graph.layout import LINKED
from flexgnn.core.tier import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Pairs of nodes, and what is known of them."""

    source: Array
    """int32 [P]."""
    destination: Array
    """int32 [P]."""
    kinds: Array
    """int32 [P]: a bit of the split, and :data:`~flexgnn.core.graph.layout.LINKED` where there is a link."""

    @classmethod
    def joined(cls, parts: Sequence[Pairs]) -> Pairs:
        """All of ``parts``, one after the other."""
        columns = ([p.source for p in parts], [p.destination for p in parts], [p.kinds for p in parts])
        source, destination, kinds = map(np.concatenate, columns)
        return cls(source=source, destination=destination, kinds=kinds)

    def by_destination(self, positions: Array) -> tuple[Csr, Array]:
        """The pairs of each destination, and their kinds, where nodes are at ``positions`` (int32 [N])."""
        ends = positions[self.source], positions[self.destination]
        # The kinds are small whole numbers, which float32 holds as they are.
        csr, _ = csr_both_ways(*ends, self.kinds.astype(np.float32), len(positions))
        return csr, csr.weights.astype(np.int32)


def checked_pairs(ends: torch.Tensor, labels: torch.Tensor | None, prefix: str, num_nodes: int, split: int) -> Pairs:
    """Pairs of one split.

    Args:
        ends: [2, P].
        labels: [P] of zeros and ones; None: all are linked.
        prefix: of the names that they have in the graph.
        num_nodes: N.
        split: its bit.

    Raises:
        GraphError: if there is no pair, or they are not what training needs.
    """
    source, destination = checked_ends(ends, f"{prefix}edge_label_index", num_nodes)
    if not len(source):
        raise GraphError(f"data.{prefix}edge_label_index has no pair of nodes: give one or more, or delete it.")
    linked = torch.ones(len(source)) if labels is None else labels
    other = linked[(linked != 0) & (linked != 1)]
    if list(linked.shape) != [len(source)] or len(other):
        found = f"has shape {list(linked.shape)}" if not len(other) else f"holds {other[0].item()}"
        raise GraphError(
            f"data.{prefix}edge_label must be 1 for each of the {len(source)} pairs that are linked, and 0 for those "
            f"that are not; it {found}."
        )
    kinds = np.where((linked == 1).numpy(), split | LINKED, split).astype(np.int32)
    return Pairs(source=source, destination=destination, kinds=kinds)
