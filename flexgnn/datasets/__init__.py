"""The data sets that come with FlexGNN, public ones, a generator of large graphs, and loading by name."""

from __future__ import annotations

from collections.abc import Sequence

from flexgnn.core.graph.dataset import Dataset
from flexgnn.core.hookspecs import hookimpl
from flexgnn.datasets.cache import load_dataset
from flexgnn.datasets.public import PUBLIC_DATASETS
from flexgnn.datasets.synthetic import generate
from flexgnn.datasets.wordnet import load_verbs, load_wordnet

__all__ = ["BUILTIN_DATASETS", "generate", "load_dataset"]

BUILTIN_DATASETS = (
    Dataset(
        name="wordnet",
        summary="WordNet 3.1: 117,791 synsets, 368,175 relations, 512 hashed gloss words, 45 classes",
        load=load_wordnet,
        version=2,
    ),
    Dataset(
        name="wordnet-verbs",
        summary="the verbs of WordNet 3.1: 13,789 synsets, 512 hashed gloss words, 15 classes",
        load=load_verbs,
        version=2,
    ),
    *PUBLIC_DATASETS,
)


@hookimpl
def flexgnn_list_datasets() -> Sequence[Dataset]:
    """The built-in data sets."""
    return BUILTIN_DATASETS
