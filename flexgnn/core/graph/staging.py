"""Directories that appear at once or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flexgnn.core.errors import GraphError, StoreError


@contextmanager
def staged_directory(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """An empty directory beside ``path`` that becomes ``path`` when the block ends well, and vanishes otherwise.

    Raises:
        GraphError: if something is at ``path`` that may not be replaced; see :func:`check_replaceable`.
        StoreError: if the file system refuses: read-only, full, no such parent directory.
    """
    check_replaceable(path, overwrite=overwrite)
    staging = sibling(path)
    try:
        staging.mkdir()
        yield staging
        move_into_place(staging, path)
    except OSError as error:
        raise StoreError(f"Could not write {path}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_replaceable(path: Path, *, overwrite: bool) -> None:
    """Nothing, an empty directory or, with ``overwrite``, a store may be replaced.

    Raises:
        GraphError: if anything else is at ``path``.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise GraphError(f"{path} already exists: choose another path, or pass overwrite=True to replace it.")
    if not (path / "zarr.json").is_file():
        raise GraphError(f"{path} is not a graph store, so overwrite=True does not replace it: choose another path.")


def sibling(path: Path) -> Path:
    """A path beside ``path`` at which there is nothing, hidden, for what is yet to be finished."""
    return path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"


def move_into_place(staging: Path, path: Path) -> None:
    """Rename ``staging`` to ``path``; what was there comes back if that fails."""
    if not path.exists() or not any(path.iterdir()):
        os.rename(staging, path)
        return
    retired = sibling(path)
    os.rename(path, retired)
    try:
        os.rename(staging, path)
    except BaseException:
        os.rename(retired, path)
        raise
    shutil.rmtree(retired, ignore_errors=True)
