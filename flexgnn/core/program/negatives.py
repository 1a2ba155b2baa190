"""Pairs of nodes without a link, drawn anew in every epoch, as functions of a counter.

Shape legend: T nodes of a tile, P pairs into it, E edges into it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flexgnn.core.graph.layout import LINKED, TRAIN
from flexgnn.core.program.dropout import draw, key_of
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.tier import Array

SAMPLED = 16
"""Bit of the kinds of pairs that were drawn: they count in the loss, and in no score."""

_ATTEMPTS = 16
"""How often a node is drawn, if those before are linked."""
_SITE = 2**31
"""Apart from the sites of dropout."""


@dataclass(frozen=True, kw_only=True)
class PairRows:
    """Pairs, or edges, by destination."""

    indptr: Array
    """int64 [T + 1]: where those of each node begin, from 0."""
    sources: Array
    """int32 [P]."""

    def keys(self, num_nodes: int) -> Array:
        """int64 [P]: one number for each source and destination."""
        keys: Array = self.destinations() * np.int64(num_nodes) + self.sources
        return keys

    def destinations(self) -> Array:
        """int64 [P], counted from the tile's first node."""
        return np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))


@dataclass(frozen=True, kw_only=True)
class NegativeSampler:
    """Draws sources for the destinations of links."""

    number: int
    """For each link."""
    num_nodes: int
    """To draw from."""

    def extend(
        self, pairs: PairRows, kinds: Array, edges: PairRows, rows: RowContext, first_pair: int
    ) -> tuple[PairRows, Array]:
        """``pairs`` of a tile and their ``kinds`` (int32 [P]), with those that are drawn behind each node's own.

        Args:
            pairs: those that the graph has.
            kinds: of them.
            edges: of the graph, which are not drawn, and neither are training links. Of other links nothing is told.
            rows: the tile.
            first_pair: position of the first of ``pairs`` in the graph.
        """
        links = np.flatnonzero((kinds & (TRAIN | LINKED)) == (TRAIN | LINKED))
        destinations = pairs.destinations()
        known = np.concatenate([pairs.keys(self.num_nodes)[links], edges.keys(self.num_nodes)])
        drawn_to = np.repeat(destinations[links], self.number)
        known.sort()
        # Those of the draws for all pairs of the tile that are for links.
        chosen = (links[:, None] * self.number + np.arange(self.number)).reshape(-1)
        drawn = self._draw(known, drawn_to, chosen, rows, first_pair)
        order = np.argsort(np.concatenate([destinations, drawn_to]), kind="stable")
        counts = np.diff(pairs.indptr) + np.bincount(drawn_to, minlength=len(pairs.indptr) - 1)
        sources = np.concatenate([pairs.sources, drawn])[order]
        kinds = np.concatenate([kinds, np.full(len(drawn), SAMPLED, dtype=kinds.dtype)])[order]
        return PairRows(indptr=np.append(0, np.cumsum(counts)), sources=sources), kinds

    def _draw(self, known: Array, destinations: Array, chosen: Array, rows: RowContext, first_pair: int) -> Array:
        """A source for each of ``destinations``: another node, whose key is not among ``known``, which ascend.

        Where none was found in so many attempts, as for a node that almost all others lead to, it is the last drawn.
        """
        sources = np.empty(len(destinations), dtype=np.int32)
        pending = np.arange(len(destinations))
        for attempt in range(_ATTEMPTS):
            if not len(pending):
                break
            sources[pending] = self._uniform(chosen[pending], rows, first_pair, attempt)
            keys = destinations[pending] * np.int64(self.num_nodes) + sources[pending]
            itself = sources[pending] == destinations[pending] + rows.start
            pending = pending[itself | _is_among(keys, known)]
        return sources

    def _uniform(self, chosen: Array, rows: RowContext, first_pair: int, attempt: int) -> Array:
        first, stop = int(chosen.min()), int(chosen.max()) + 1
        words = np.empty(4 * (stop - first), dtype=np.uint32)
        counter = np.uint64(first_pair * self.number + first)
        draw(counter, stop - first, np.uint32(attempt), np.uint32(_SITE), *key_of(rows.seed, rows.epoch), words)
        upper, lower = words[: stop - first].astype(np.uint64), words[stop - first : 2 * (stop - first)]
        wide = (upper << np.uint64(32)) | lower
        nodes: Array = (wide % np.uint64(self.num_nodes)).astype(np.int32)[chosen - first]
        return nodes


def _is_among(keys: Array, known: Array) -> Array:
    """bool, for each of ``keys``: whether it is one of ``known``, which ascend."""
    if not len(known):
        return np.zeros(len(keys), dtype=bool)
    found: Array = known[np.searchsorted(known, keys).clip(max=len(known) - 1)] == keys
    return found
