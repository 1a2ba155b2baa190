"""The directory that a run spills to: private, unguessably named, and gone when the run ends."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flexgnn.core.errors import TierError


def check_parent(parent: str | Path | None) -> None:
    """Raise :class:`TierError` if a directory is named that does not exist."""
    if parent is not None and not Path(parent).is_dir():
        raise TierError(f"The scratch directory {parent} does not exist; create it, or name another with --ssd-path.")


@contextmanager
def scratch_directory(parent: str | Path | None) -> Iterator[Path]:
    """A new directory (mode 0700) below ``parent``, or in the system's temporary directory; removed on the way out.

    Raises:
        TierError: if ``parent`` is missing, not a directory, or can't be written to.
    """
    check_parent(parent)
    try:
        path = Path(tempfile.mkdtemp(prefix="flexgnn-", dir=parent))
    except OSError as error:
        where = parent or tempfile.gettempdir()
        raise TierError(
            f"The scratch directory {where} can't be written to ({os.strerror(error.errno or 0)}); "
            "name another with --ssd-path."
        ) from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
