"""A graph that is not at hand, from its sizes: what planners ask of one, estimated.

It is taken to be symmetric, with edges spread evenly over its nodes. A share of them leads to any node, as drawn at
random; the others stay in their chunk. The share follows from how many rows blocks need of each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flexgnn.core.errors import ConfigError
from flexgnn.core.graph.layout import MAX_NODES, MULTI_CLASS, GraphInfo, choose_chunk_rows
from flexgnn.core.plan.blocks import Blocks
from flexgnn.core.plan.counting import PullCounts
from flexgnn.core.plan.locality import Locality, distance_classes, reach_of

HALO_BLOCKS = 64
"""The halo factor is that of so many blocks."""
FORM = "nodes=N,edges=E,features=F,classes=C[,halo=H]"
"""How the sizes are written on the command line."""


@dataclass(frozen=True, kw_only=True)
class PaperGraph:
    """Sizes in place of a graph store."""

    info: GraphInfo
    halo: float
    """Rows that 64 blocks need of others, in all, in multiples of the number of nodes."""

    @classmethod
    def parse(cls, text: str) -> PaperGraph:
        """The graph that ``text`` describes, as in ``nodes=2449029,edges=123718280,features=100,classes=47,halo=4``.

        Raises:
            ConfigError: if it has another form, or there is no such graph.
        """
        sizes = _parsed(text)
        nodes, edges = int(sizes["nodes"]), int(sizes["edges"])
        if not 2 <= nodes <= MAX_NODES:
            raise ConfigError(f"A graph can't have {nodes} nodes: give from 2 to {MAX_NODES}.")
        info = GraphInfo(
            name="on paper",
            num_nodes=nodes,
            num_edges=edges,
            num_features=int(sizes["features"]),
            num_classes=int(sizes["classes"]),
            task=MULTI_CLASS,
            weighted=False,
            symmetric=True,
            chunk_rows=choose_chunk_rows(nodes, None),
            order="given",
            class_names=(),
        )
        graph = cls(info=info, halo=sizes["halo"])
        if graph.far_share > 1:
            raise ConfigError(
                f"{edges} edges can't make {HALO_BLOCKS} blocks need {graph.halo:g} x {nodes} rows of each other: "
                "give a smaller halo."
            )
        return graph

    @property
    def path(self) -> Path:
        """What takes the place of a store's path in messages."""
        return Path(self.info.name)

    @property
    def fingerprint(self) -> str:
        """The sizes."""
        info = self.info
        return f"{info.num_nodes}-{info.num_edges}-{info.num_features}-{info.num_classes}-{self.halo:g}"

    @property
    def far_share(self) -> float:
        """Of the edges: those that lead to any node."""
        missed = 1 - self.halo / (HALO_BLOCKS - 1)
        return -math.log(missed) * HALO_BLOCKS / self._degree if missed > 0 else math.inf

    def count_pulls(self, blocks: Blocks) -> PullCounts:
        """Of every block, as expected: a node is needed by a block unless all its far edges miss it."""
        from scipy.stats import binom  # takes a second to import, which no run needs

        rows, others = blocks.row_counts, blocks.count - 1
        found = 1 - np.exp(-self.far_share * self._degree * rows / self.info.num_nodes)
        needed = rows[:, None] * found
        np.fill_diagonal(needed, 0)
        # How many blocks need a node is binomial; classes are of powers of two.
        needing = np.arange(1, others + 1)
        chances = binom.pmf(needing, others, float(found.mean()))
        classes = np.floor(np.log2(needing)).astype(np.int64)
        nodes = np.bincount(classes, chances, minlength=blocks.count.bit_length())
        pulls = np.bincount(classes, chances * needing, minlength=blocks.count.bit_length())
        positions = np.rint(np.append(0, np.cumsum(rows)) * self._degree).astype(np.int64)
        return PullCounts(
            edges=tuple(np.diff(positions).tolist()),
            pulled=np.rint(needed[:, :, None] * pulls / max(pulls.sum(), 1e-300)).astype(np.int32),
            nodes=np.rint(rows[:, None] * nodes).astype(np.int64),
        )

    def locality(self, tile_rows: int) -> Locality:
        """Near edges are drawn from a chunk, far ones from all nodes."""
        info = self.info
        bounds = np.append(np.arange(0, info.num_nodes, tile_rows), info.num_nodes)
        edges = np.diff(np.rint(bounds * self._degree).astype(np.int64))
        counts = np.zeros((len(edges), distance_classes()), dtype=np.int64)
        far = np.rint(edges * self.far_share).astype(np.int64)
        counts[:, info.chunk_rows.bit_length()] = edges - far
        counts[:, -1] = far
        return Locality(tile_edges=edges, reach=reach_of(counts, info.num_nodes, info.num_edges))

    @property
    def _degree(self) -> float:
        return self.info.num_edges / self.info.num_nodes


def _parsed(text: str) -> dict[str, float]:
    sizes: dict[str, float] = {"halo": 4.0}
    try:
        sizes |= {name: float(value) for name, value in (pair.split("=") for pair in text.split(","))}
    except ValueError:
        sizes = {}
    wanted = {"nodes", "edges", "features", "classes", "halo"}
    if sizes.keys() != wanted or not all(value > 0 and math.isfinite(value) for value in sizes.values()):
        raise ConfigError(f"{text!r} are no sizes of a graph: write {FORM}, each above 0.")
    return sizes
