"""Rewrites: what may be changed about a program without changing its result. Each can be switched off.

=============  ===================================================================================================
``order``      ``A(HW) = (AH)W``: sums over neighbours are made on the side of a linear layer where they cost less
``fold``       aggregations of the features are computed once, kept beside the graph, and read in every epoch
``fuse``       a tile is pulled and computed in one go, while it is in the cache
``gradients``  gradients that no parameter needs are not computed
=============  ===================================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx import Graph, Node

from flexgnn.core.errors import ConfigError
from flexgnn.core.program.convs import AGGREGATION, aggregated
from flexgnn.core.program.folding import fold, is_foldable
from flexgnn.core.program.program import FEATURES, Folded
from flexgnn.core.program.reorder import Swap, possible_swaps
from flexgnn.core.program.row_local import Fact, check_rows

ALL_REWRITES = ("order", "fold", "fuse", "gradients")


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """What is known of a graph after its rewrites."""

    facts: dict[Node, Fact]
    folded: tuple[Folded, ...]
    notes: tuple[str, ...]
    """What was changed, in words."""


def checked_rewrites(names: Sequence[str]) -> frozenset[str]:
    """``names`` as a set.

    Raises:
        ConfigError: if there is no such rewrite.
    """
    for name in names:
        if name not in ALL_REWRITES:
            raise ConfigError(f"There is no rewrite {name!r}; there are: {', '.join(ALL_REWRITES)}.")
    return frozenset(names)


def all_but(names: Sequence[str]) -> tuple[str, ...]:
    """The rewrites that are left when ``names`` are switched off.

    Raises:
        ConfigError: if there is no such rewrite.
    """
    off = checked_rewrites(names)
    return tuple(name for name in ALL_REWRITES if name not in off)


def rewrite(root: torch.nn.Module, graph: Graph, num_features: int, rewrites: frozenset[str]) -> Rewritten:
    """Change ``graph``, a functional graph over ``root``, by the ``rewrites`` that concern it: order and fold.

    Raises:
        LoweringError: as :func:`~flexgnn.core.program.row_local.check_rows`, of the graph as it is given.
    """
    widths = {FEATURES: num_features}
    facts = check_rows(root, graph, widths)
    notes: list[str] = []
    while (swap := _next_swap(root, graph, facts, rewrites)) is not None:
        if "fold" not in rewrites or not is_foldable(swap.input):
            notes.append(f"order: layer {swap.layer} aggregates {swap.width_after} columns instead of {swap.width}")
        swap.make(graph)
        facts = check_rows(root, graph, widths)
    folded = fold(graph) if "fold" in rewrites else ()
    notes += [f"fold: {f.name} ({num_features} columns), aggregated features, is read, not computed" for f in folded]
    _separate_scaled_inputs(graph)
    widths |= {f.name: num_features for f in folded}
    return Rewritten(facts=check_rows(root, graph, widths), folded=folded, notes=tuple(notes))


def _next_swap(root: torch.nn.Module, graph: Graph, facts: dict[Node, Fact], rewrites: frozenset[str]) -> Swap | None:
    """A swap that lets an aggregation be folded; then one that makes an aggregation cheaper that can't be."""
    swaps = list(possible_swaps(root, graph, facts))
    if "fold" in rewrites:
        chosen = next((s for s in swaps if s.aggregates_first and is_foldable(s.input)), None)
        if chosen is not None:
            return chosen
        swaps = [s for s in swaps if not is_foldable(s.input)]
    return next((s for s in swaps if s.saves), None) if "order" in rewrites else None


def _separate_scaled_inputs(graph: Graph) -> None:
    """Copy stored values before aggregations that scale what they pull: only what a segment puts out can be scaled."""
    for node in list(graph.nodes):
        if node.target is aggregated and node.meta[AGGREGATION].adjacency.normalization == "gcn":
            (value,) = node.all_input_nodes
            if value.op == "placeholder":
                with graph.inserting_before(node):
                    node.replace_input_with(value, graph.call_function(torch.clone, (value,)))
