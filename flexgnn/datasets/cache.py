"""Data sets by name: built once, then opened from a cache."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from filelock import FileLock

from flexgnn.core.cache import cache_directory
from flexgnn.core.errors import StoreError
from flexgnn.core.graph.dataset import Dataset
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plugins import load_plugins


def load_dataset(name: str, path: str | os.PathLike[str] | None = None) -> GraphStore:
    """The data set ``name``, built on first use and opened afterwards.

    Args:
        name: a data set that ``flexgnn plugins`` lists.
        path: where its store is, or is to be built. None: in the directory that the environment variable
            ``FLEXGNN_CACHE`` names, else in the user's cache directory; there a damaged store is built again.

    Raises:
        PluginError: if there is no such data set.
        StoreError: if the store can't be written or, at a ``path`` of yours, can't be read.
    """
    dataset = load_plugins().dataset(name)
    if path is None:
        return _cached(dataset)
    directory = Path(path)
    return GraphStore.open(directory) if directory.exists() else dataset.load(directory)


def _cached(dataset: Dataset) -> GraphStore:
    path = cache_directory() / "datasets" / f"{dataset.name}-{dataset.version}.zarr"
    if store := _opened(path):
        return store
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Processes that start together wait here for the first one to build.
        with FileLock(path.with_suffix(".lock")):
            return _opened(path) or _built(dataset, path)
    except OSError as error:
        raise StoreError(
            f"The cache directory {path.parent} can't be written ({error.strerror}): "
            "set the environment variable FLEXGNN_CACHE to one that can."
        ) from error


def _opened(path: Path) -> GraphStore | None:
    """The store at ``path``; None if it is missing, damaged or of another version."""
    try:
        return GraphStore.open(path)
    except StoreError:
        return None


def _built(dataset: Dataset, path: Path) -> GraphStore:
    """The store made anew, in place of what is at ``path``."""
    if path.exists():
        shutil.rmtree(path)
    return dataset.load(path)
