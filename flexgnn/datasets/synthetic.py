"""Generates graphs of any size: communities, and hubs whose degrees follow a power law.

Shapes: N nodes, E directed edges, F features, C classes.

Nodes of a community have consecutive ids, and hubs come last, so the order is a good one from the start. Everything is
made in pieces, each from a random generator of its own, and goes to disk at once: memory holds a few vectors over nodes
and one piece of edges or features.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from flexgnn.core.errors import ConfigError, StoreError
from flexgnn.core.graph.layout import MAX_NODES, MULTI_CLASS, GraphInfo, choose_chunk_rows
from flexgnn.core.graph.split import seeded_split
from flexgnn.core.graph.staging import check_replaceable
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.graph.writer import writing_store
from flexgnn.core.tier import Array
from flexgnn.datasets.edge_sort import EdgeSorter

_HUBS_PER_NODE = 0.005
_INSIDE, _TO_HUBS = 0.8, 0.1
"""Shares of the edges that stay in a community and that lead to a hub; the others join any two nodes."""
_PURITY = 0.9
"""Share of a community's nodes that have its class."""
_SIGNAL = 0.15
"""Standard deviation of the class means of a feature, whose noise has 1."""
_PIECE_PAIRS = 2**18
_PIECE_ROWS = 4096
_SORTED_AT_ONCE = 2**20
_EDGES, _FEATURES, _LABELS, _MEANS = range(4)
"""Streams of random numbers."""


def generate(
    path: str | os.PathLike[str],
    *,
    num_nodes: int,
    num_edges: int,
    num_features: int = 128,
    num_classes: int = 47,
    num_communities: int | None = None,
    hub_exponent: float = 2.2,
    seed: int = 0,
    chunk_rows: int | None = None,
    overwrite: bool = False,
) -> GraphStore:
    """Write a random symmetric graph to a new store at ``path``; the same arguments give the same graph.

    Four in five edges join nodes of one community, one in ten leads to a hub, and one in ten joins any two nodes.
    Nine in ten nodes have the class of their community, and features are noise around a mean of the class.

    Args:
        path: where the store is to be.
        num_nodes: N.
        num_edges: about how many directed edges; pairs that are drawn twice are dropped.
        num_features: F.
        num_classes: C.
        num_communities: None: communities of about a thousand nodes, larger if the graph is dense.
        hub_exponent: of the power law that the degrees of the hubs follow; above 1.
        seed: of everything random.
        chunk_rows: nodes of a chunk; None: about 64 chunks.
        overwrite: whether a store at ``path`` may be replaced.

    Raises:
        ConfigError: if a number is not accepted.
        GraphError: if something is at ``path``.
        StoreError: if the file system refuses.
    """
    directory = Path(path)
    if not 2 <= num_nodes <= MAX_NODES:
        raise ConfigError(f"A generated graph can't have {num_nodes} nodes: give from 2 to {MAX_NODES}.")
    if not 0 <= num_edges <= num_nodes * (num_nodes - 1) // 2:
        raise ConfigError(
            f"A generated graph of {num_nodes} nodes can't have {num_edges} edges: "
            f"give from 0 to {num_nodes * (num_nodes - 1) // 2}, half of all pairs."
        )
    if num_communities is None:
        num_communities = max(1, num_nodes // max(1000, 10 * num_edges // num_nodes))
    graph = _SyntheticGraph(
        num_nodes=num_nodes,
        num_edges=num_edges,
        num_features=num_features,
        num_classes=num_classes,
        num_communities=num_communities,
        hub_exponent=hub_exponent,
        seed=seed,
    )
    check_replaceable(directory, overwrite=overwrite)
    _write(graph, directory, choose_chunk_rows(num_nodes, chunk_rows), overwrite=overwrite)
    return GraphStore.open(directory)


@dataclass(frozen=True, kw_only=True, eq=False)
class _SyntheticGraph:
    """The random choices behind a graph, each made when asked for."""

    num_nodes: int
    num_edges: int
    num_features: int
    num_classes: int
    num_communities: int
    hub_exponent: float
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.num_communities <= self.num_members:
            raise ConfigError(f"There can't be {self.num_communities} communities: give from 1 to {self.num_members}.")
        if self.num_features < 1 or self.num_classes < 1:
            raise ConfigError("A generated graph needs at least 1 feature and 1 class.")
        if self.hub_exponent <= 1:
            raise ConfigError(f"hub_exponent is {self.hub_exponent}: degrees follow a power law only above 1.")
        if self.seed < 0:
            raise ConfigError(f"The seed is {self.seed}: give 0 or more.")

    @property
    def num_hubs(self) -> int:
        return max(1, int(self.num_nodes * _HUBS_PER_NODE))

    @property
    def num_members(self) -> int:
        """Nodes that are no hubs; their ids come first."""
        return self.num_nodes - self.num_hubs

    @cached_property
    def community_starts(self) -> Array:
        """First node of each community, and the first hub: int64."""
        return np.arange(self.num_communities + 1, dtype=np.int64) * self.num_members // self.num_communities

    @cached_property
    def hub_shares(self) -> Array:
        """Share of the edges to hubs that each hub gets; degrees of the power law with that exponent, by rank."""
        shares: Array = np.arange(1, self.num_hubs + 1, dtype=np.float64) ** (-1 / (self.hub_exponent - 1))
        shares /= shares.sum()
        return shares

    @cached_property
    def labels(self) -> Array:
        """int64 [N]."""
        rng = self._rng(_LABELS)
        labels = rng.integers(self.num_classes, size=self.num_nodes)
        community = np.repeat(np.arange(self.num_communities), np.diff(self.community_starts))
        typical = rng.random(self.num_members) < _PURITY
        labels[: self.num_members][typical] = community[typical] % self.num_classes
        return labels

    def pairs(self) -> Iterator[tuple[Array, Array]]:
        """The undirected edges with repetitions, in pieces: two int64 vectors each."""
        wanted = self.num_edges // 2
        for piece, start in enumerate(range(0, wanted, _PIECE_PAIRS)):
            rng = self._rng(_EDGES, piece)
            count = min(_PIECE_PAIRS, wanted - start)
            kind = rng.random(count)
            first = rng.integers(self.num_members, size=count)
            second = rng.integers(self.num_members, size=count)
            inside = kind < _INSIDE
            community = np.searchsorted(self.community_starts, first[inside], side="right") - 1
            begin, end = self.community_starts[community], self.community_starts[community + 1]
            second[inside] = rng.integers(begin, end)
            to_hub = kind >= 1 - _TO_HUBS
            second[to_hub] = self.num_members + rng.choice(self.num_hubs, size=to_hub.sum(), p=self.hub_shares)
            proper = first != second
            yield first[proper], second[proper]

    def features(self) -> Iterator[Array]:
        """float32 rows, in pieces."""
        means = self._rng(_MEANS).normal(scale=_SIGNAL, size=(self.num_classes, self.num_features)).astype(np.float32)
        for piece, start in enumerate(range(0, self.num_nodes, _PIECE_ROWS)):
            labels = self.labels[start : start + _PIECE_ROWS]
            noise = self._rng(_FEATURES, piece).standard_normal((len(labels), self.num_features), dtype=np.float32)
            yield means[labels] + noise

    def row_bounds(self) -> Array:
        """Ranges of rows with about ``_SORTED_AT_ONCE`` edges each: int64, from 0 to N."""
        degrees = np.full(self.num_nodes, self.num_edges * (1 - _TO_HUBS / 2) / self.num_members)
        degrees[self.num_members :] = self.num_edges * _TO_HUBS / 2 * self.hub_shares
        filled = np.cumsum(degrees)
        cuts = np.searchsorted(filled, np.arange(_SORTED_AT_ONCE, self.num_edges, _SORTED_AT_ONCE))
        return np.unique(np.concatenate([[0], cuts, [self.num_nodes]])).astype(np.int64)

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *stream])


def _write(graph: _SyntheticGraph, path: Path, chunk_rows: int, *, overwrite: bool) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent) as scratch:
            sorter = EdgeSorter(Path(scratch), graph.row_bounds())
            for first, second in graph.pairs():
                sorter.add(np.concatenate([first, second]), np.concatenate([second, first]))
            _write_store(graph, sorter, path, chunk_rows, overwrite=overwrite)
    except OSError as error:
        raise StoreError(f"Could not write {path}: {error.strerror or error}.") from error


def _write_store(graph: _SyntheticGraph, sorter: EdgeSorter, path: Path, chunk_rows: int, *, overwrite: bool) -> None:
    indptr = sorter.sort()
    info = GraphInfo(
        name=path.stem,
        num_nodes=graph.num_nodes,
        num_edges=int(indptr[-1]),
        num_features=graph.num_features,
        num_classes=graph.num_classes,
        task=MULTI_CLASS,
        weighted=False,
        symmetric=True,
        chunk_rows=chunk_rows,
        order="community",
        class_names=tuple(map(str, range(graph.num_classes))),
    )
    with writing_store(path, info, overwrite=overwrite) as writer:
        writer.write("features", graph.features())
        writer.write("labels", [graph.labels])
        writer.write("split", [seeded_split(np.ones(graph.num_nodes, dtype=bool))])
        writer.write("node_ids", [np.arange(graph.num_nodes)])
        writer.write("in/indptr", [indptr])
        writer.write("in/indices", sorter.columns())
