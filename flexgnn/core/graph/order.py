"""In which order nodes are stored: nodes that share neighbours come close together, so that halos stay small.

Shapes: N nodes, E edges.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee

from flexgnn.core.errors import ConfigError
from flexgnn.core.tier import Array

ORDERS = ("auto", "metis", "rcm", "given")
"""What users may ask for."""

_MOST_EDGES_FOR_METIS = 30_000_000
_FEWEST_NODES_OF_A_PART = 16
_SEED = 0


def node_order(source: Array, destination: Array, num_nodes: int, *, chunk_rows: int, order: str) -> tuple[Array, str]:
    """The original id of the node at each position, int64 [N], and the order that was used.

    ``metis`` cuts the graph into parts of about a chunk with few edges between them (METIS, Karypis and Kumar 1998),
    and puts part after part; ``rcm`` is the reverse Cuthill-McKee order, cheap and less good; ``given`` leaves the
    nodes as they are; ``auto`` is ``metis`` where pymetis is installed and the graph has at most 30 million edges,
    else the one of ``rcm`` and ``given`` that leaves fewer edges between chunks. All are deterministic.

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
        return given, "given"
    pattern = _neighbours(source, destination, num_nodes)
    few_edges = len(source) <= _MOST_EDGES_FOR_METIS
    if order == "metis" or (order == "auto" and few_edges and find_spec("pymetis")):
        return np.argsort(_parts(pattern, chunk_rows), kind="stable").astype(np.int64), "metis"
    rcm = reverse_cuthill_mckee(pattern, symmetric_mode=True).astype(np.int64)
    # On graphs of small diameter it is often worse than the order in which the nodes came.
    candidates = {"rcm": rcm, "given": given} if order == "auto" else {"rcm": rcm}
    best = min(candidates, key=lambda name: _edges_between_chunks(pattern, candidates[name], chunk_rows))
    return candidates[best], best


def check_order(order: str) -> None:
    """Refuse an order that can't be made.

    Raises:
        ConfigError: if ``order`` is unknown, or ``metis`` without pymetis.
    """
    if order not in ORDERS:
        raise ConfigError(f"{order!r} is not a node order: choose one of {', '.join(ORDERS)}.")
    if order == "metis" and not find_spec("pymetis"):
        raise ConfigError("The node order 'metis' needs pymetis: pip install 'flexgnn[metis]', or choose 'rcm'.")


def _neighbours(source: Array, destination: Array, num_nodes: int) -> csr_array:
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


def _edges_between_chunks(pattern: csr_array, node_ids: Array, chunk_rows: int) -> int:
    chunks = np.empty(len(node_ids), dtype=np.int32)
    chunks[node_ids] = np.arange(len(node_ids)) // chunk_rows
    return int(np.count_nonzero(np.repeat(chunks, np.diff(pattern.indptr)) != chunks[pattern.indices]))
