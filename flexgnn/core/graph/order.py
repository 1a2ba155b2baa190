"""In which order nodes are stored: nodes that share neighbours come close together, so that halos stay small.

Shapes: N nodes, E edges, M entries of the symmetric pattern.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee

from flexgnn.core.errors import ConfigError
from flexgnn.core.graph.clusters import cluster_order
from flexgnn.core.graph.order_cost import OrderCost, order_cost
from flexgnn.core.tier import Array

ORDERS = ("auto", "clusters", "metis", "rcm", "given")
"""What users may ask for."""

_CLUSTERS_SECONDS, _METIS_SECONDS = 5e-7, 1.3e-6
"""Of an entry of the pattern. METIS took 13 s for 10 million entries on one core, and 0.5e-6 s an entry for 300,000,
where clusters took 0.2e-6: that they slow down as METIS does on larger graphs is assumed."""
_METIS_GAIN = 0.1
"""Of what the best of the other orders saves over the given one. On generated communities METIS saved 7% more than
clusters, on other graphs less than they."""
_MOST_EDGES_FOR_METIS = 30_000_000
"""It takes several times the memory of the graph, and was not tried beyond."""
_FEWEST_NODES_OF_A_PART = 16
_SEED = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class NodeOrder:
    """The order that was chosen, and what it was chosen from."""

    node_ids: Array
    """The original id of the node at each position: int64 [N]."""
    name: str
    """One of :data:`ORDERS`, ``auto`` excepted."""
    costs: dict[str, OrderCost]
    """Of ``given`` and of each order that was made, by name; empty if the nodes stay as given without a look."""
    seconds: float
    """That making and comparing them took."""


def node_order(source: Array, destination: Array, num_nodes: int, *, chunk_rows: int, order: str) -> NodeOrder:
    """The order in which nodes are to be stored.

    ``clusters`` nests clusters of nodes with many edges between them; ``metis`` cuts the graph into parts of about a
    chunk with few edges between them (METIS, Karypis and Kumar 1998), and puts part after part; ``rcm`` is the reverse
    Cuthill-McKee order, cheap, and good for grids; ``given`` leaves the nodes as they are.

    ``auto`` makes the orders that may be worth their time, and takes the one that costs least (``order_cost.py``).
    It makes ``clusters`` and ``rcm`` unless ``given`` leaves too little to save, and ``metis`` if pymetis is installed,
    the graph has at most 30 million edges, and a tenth of what the best of the others saves over ``given`` is more than
    METIS takes; so nodes that came well ordered are left alone. All are deterministic: times are figures, not measured.

    Args:
        source: int32 [E].
        destination: int32 [E].
        num_nodes: N.
        chunk_rows: nodes of a chunk.
        order: one of :data:`ORDERS`.

    Raises:
        ConfigError: if ``order`` is unknown, or ``metis`` without pymetis.
    """
    check_order(order)
    given = np.arange(num_nodes, dtype=np.int64)
    if order == "given" or num_nodes <= 2 or len(source) == 0:
        return NodeOrder(node_ids=given, name="given", costs={}, seconds=0.0)
    began = time.perf_counter()
    pattern = neighbour_pattern(source, destination, num_nodes)
    candidates = _Candidates(pattern, chunk_rows)
    if order == "auto":
        few_edges = len(source) <= _MOST_EDGES_FOR_METIS
        order = _cheapest(candidates, may_partition=few_edges and find_spec("pymetis") is not None)
    else:
        candidates.make(order)
    return NodeOrder(
        node_ids=candidates.orders[order], name=order, costs=candidates.costs, seconds=time.perf_counter() - began
    )


class _Candidates:
    """Orders of one graph, and their costs; ``given`` from the start."""

    def __init__(self, pattern: csr_array, chunk_rows: int) -> None:
        self.pattern = pattern
        self._chunk_rows = chunk_rows
        self.orders: dict[str, Array] = {}
        self.costs: dict[str, OrderCost] = {}
        self.make("given")

    @property
    def best(self) -> str:
        """The cheapest of those that were made; the first of equals."""
        return min(self.costs, key=lambda name: self.costs[name].seconds)

    def make(self, name: str) -> None:
        """Make an order, and count what it costs."""
        node_ids = _make(name, self.pattern, self._chunk_rows)
        self.orders[name] = node_ids
        self.costs[name] = order_cost(self.pattern, node_ids, self._chunk_rows)


def _cheapest(candidates: _Candidates, *, may_partition: bool) -> str:
    """Make the orders that may be worth their time, and name the one that costs least."""
    entries, given = candidates.pattern.nnz, candidates.costs["given"]
    if given.seconds - given.least_seconds > _CLUSTERS_SECONDS * entries:
        candidates.make("clusters")
        candidates.make("rcm")
        saved = given.seconds - candidates.costs[candidates.best].seconds
        if may_partition and _METIS_GAIN * saved > _METIS_SECONDS * entries:
            candidates.make("metis")
    return candidates.best


def _make(name: str, pattern: csr_array, chunk_rows: int) -> Array:
    """The node at each position, int64 [N]."""
    if name == "clusters":
        return cluster_order(pattern)
    if name == "metis":
        return np.argsort(_parts(pattern, chunk_rows), kind="stable").astype(np.int64)
    if name == "rcm":
        rcm: Array = reverse_cuthill_mckee(pattern, symmetric_mode=True).astype(np.int64)
        return rcm
    return np.arange(pattern.shape[0], dtype=np.int64)


def check_order(order: str) -> None:
    """Refuse an order that can't be made.

    Raises:
        ConfigError: if ``order`` is unknown, or ``metis`` without pymetis.
    """
    if order not in ORDERS:
        raise ConfigError(f"{order!r} is not a node order: choose one of {', '.join(ORDERS)}.")
    if order == "metis" and not find_spec("pymetis"):
        raise ConfigError("The node order 'metis' needs pymetis: pip install 'flexgnn[metis]', or choose 'clusters'.")


def neighbour_pattern(source: Array, destination: Array, num_nodes: int) -> csr_array:
    """The pattern of the graph, symmetrised, without self loops and duplicates."""
    other = source != destination
    ends = source[other], destination[other]
    directed = coo_array((np.ones(len(ends[0]), dtype=np.bool_), ends), shape=(num_nodes, num_nodes)).tocsr()
    return directed + directed.T.tocsr()


def _parts(pattern: csr_array, chunk_rows: int) -> Array:
    """The part of every node: about as many parts as chunks."""
    import pymetis  # an optional extra

    num_nodes = pattern.shape[0]
    num_parts = min(-(-num_nodes // chunk_rows), num_nodes // _FEWEST_NODES_OF_A_PART)
    if num_parts < 2:
        return np.zeros(num_nodes, dtype=np.int64)
    index = pymetis.zero_copy_dtype()
    adjacency = pymetis.CSRAdjacency(pattern.indptr.astype(index), pattern.indices.astype(index))
    options = pymetis.Options(seed=_SEED)
    # Recursive bisection halves the graph again and again, so that parts of neighbouring numbers share edges, which
    # serves blocks of several chunks. On WordNet and on a generated graph of 10 million edges its halos were smaller
    # than those of k-way partitioning for blocks of every size, and on the latter it took half the time.
    return np.asarray(pymetis.part_graph(num_parts, adjacency, recursive=True, options=options).vertex_part)
