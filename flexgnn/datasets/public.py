"""Public data sets by name, read by PyG's own classes or by the ``ogb`` package, which download what is missing.

Files are looked for in the directory that the environment variable ``FLEXGNN_DATA`` names, else in ``public`` of the
cache directory. Edges are as the source gives them: those of ``ogbn-arxiv`` lead one way, of all others both ways.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexgnn.core.cache import cache_directory
from flexgnn.core.errors import ConfigError
from flexgnn.core.graph.dataset import Dataset

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from flexgnn.core.graph.store import GraphStore


@dataclass(frozen=True)
class _Public:
    """Where a data set comes from."""

    summary: str
    read: Callable[[Path], Data]
    """Reads it below a directory, downloading what is missing."""
    folder: str
    """Of its files, below that directory."""


def _planetoid(name: str, root: Path) -> Data:
    from torch_geometric.datasets import Planetoid

    return Planetoid(str(root), name)[0]


def _of_pyg(name: str, root: Path) -> Data:
    """Of a class of PyG that has a folder of its own."""
    from torch_geometric import datasets

    return getattr(datasets, name)(str(root / name))[0]


def _ogb(name: str, root: Path) -> Data:
    import numpy as np
    import torch
    from ogb.nodeproppred import NodePropPredDataset
    from torch_geometric.data import Data

    # Arrays that ogb saved with pickle are read by torch only where these are named.
    named: list[Any] = [np.ndarray, np.dtype, np.empty(0).__reduce__()[0]]
    named += [type(np.dtype(kind)) for kind in (np.int64, np.float32)]
    with torch.serialization.safe_globals(named):
        source = NodePropPredDataset(name, root=str(root))
        graph, labels = source[0]
        split = source.get_idx_split()
    data = Data(
        x=torch.from_numpy(graph["node_feat"]),
        edge_index=torch.from_numpy(graph["edge_index"]),
        y=torch.from_numpy(labels),
    )
    for mask, part in (("train_mask", "train"), ("val_mask", "valid"), ("test_mask", "test")):
        data[mask] = torch.zeros(data.num_nodes, dtype=torch.bool)
        data[mask][torch.as_tensor(split[part])] = True
    return data


_PUBLIC = {
    "cora": _Public("Cora, PyG's public split: 2,708 papers, 7 classes", partial(_planetoid, "Cora"), "Cora/raw"),
    "citeseer": _Public(
        "CiteSeer, PyG's public split: 3,327 papers, 6 classes", partial(_planetoid, "CiteSeer"), "CiteSeer/raw"
    ),
    "pubmed": _Public(
        "PubMed, PyG's public split: 19,717 papers, 3 classes", partial(_planetoid, "PubMed"), "PubMed/raw"
    ),
    "flickr": _Public("Flickr of GraphSAINT: 89,250 images, 7 classes", partial(_of_pyg, "Flickr"), "Flickr/raw"),
    "yelp": _Public("Yelp of GraphSAINT: 716,847 users, 100 labels each", partial(_of_pyg, "Yelp"), "Yelp/raw"),
    "reddit": _Public("Reddit of GraphSAGE: 232,965 posts, 41 classes", partial(_of_pyg, "Reddit"), "Reddit/raw"),
    "ogbn-arxiv": _Public(
        "OGB's arXiv: 169,343 papers, directed, 40 classes", partial(_ogb, "ogbn-arxiv"), "ogbn_arxiv"
    ),
    "ogbn-products": _Public(
        "OGB's products: 2,449,029 products, 47 classes", partial(_ogb, "ogbn-products"), "ogbn_products"
    ),
}


def data_directory() -> Path:
    """Where files of public data sets are: what ``FLEXGNN_DATA`` names, else ``public`` of the cache directory."""
    override = os.environ.get("FLEXGNN_DATA")
    return Path(override) if override else cache_directory() / "public"


def _load(name: str, path: Path) -> GraphStore:
    # These take seconds to import; listing the data sets needs none of them.
    from flexgnn.core.graph.store import GraphStore

    return GraphStore.from_pyg(_read(name), path, name=name)


def _read(name: str) -> Data:
    public, root = _PUBLIC[name], data_directory()
    try:
        # What readers print, and what ogb asks before it downloads much, is no output of a command.
        with redirect_stdout(sys.stderr):
            return public.read(root)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The data set {name!r} needs the package {error.name!r}: pip install 'flexgnn[ogb]'; its files are then "
            f"looked for in {root / public.folder}."
        ) from error
    except (Exception, SystemExit) as error:  # whatever readers and downloads raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ConfigError(
            f"The data set {name!r} can't be read or downloaded ({reason}): put its files into {root / public.folder}, "
            "or set the environment variable FLEXGNN_DATA to the directory that has that folder."
        ) from error


PUBLIC_DATASETS = tuple(
    Dataset(name=name, summary=public.summary, load=partial(_load, name)) for name, public in _PUBLIC.items()
)
