"""The places that a run spills to: private, unguessably named, and gone when the run ends.

A run holds a lock in each of its scratch directories. The system releases it when the process ends, however it ends, so
that a later run can tell which directories nobody will come back for, and removes them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flexgnn.core.errors import TierError
from flexgnn.core.runtime.events import Listener, ScratchRemoved

_PREFIX = "flexgnn-"
_LOCK, _TIER = "owner.lock", "tier"
_ATTEMPTS = 10


def check_parent(parent: str | Path | None) -> None:
    """Raise :class:`TierError` if a directory is named that does not exist."""
    if parent is not None and not Path(parent).is_dir():
        raise TierError(f"The scratch directory {parent} does not exist; create it, or name another with --ssd-path.")


def free_bytes(parent: str | Path | None) -> int:
    """Bytes free where a scratch directory below ``parent`` would be; None: the system's temporary directory."""
    return shutil.disk_usage(parent or tempfile.gettempdir()).free


def mount_point(parent: str | Path | None) -> str:
    """Where the file system is mounted that a scratch directory below ``parent`` would be on."""
    path = Path(parent or tempfile.gettempdir()).resolve()
    return str(next(folder for folder in (path, *path.parents) if folder.is_mount() or folder == folder.parent))


@contextmanager
def scratch_location(parent: str | Path | None, listener: Listener, *, local: bool) -> Iterator[str]:
    """A place of its own for a tier: below the directory ``parent``, or, if not ``local``, below what that names.

    A directory is new (mode 0700), and removed on the way out. So are those of runs that have died, on the way in.

    Raises:
        TierError: if ``parent`` is missing, not a directory, or can't be written to.
    """
    if not local:
        yield f"{str(parent).rstrip('/')}/{_PREFIX}{secrets.token_hex(8)}"
        return
    check_parent(parent)
    where = Path(parent or tempfile.gettempdir())
    remove_dead(where, listener)
    try:
        path, lock = _locked_directory(where)
    except OSError as error:
        raise TierError(
            f"The scratch directory {where} can't be written to ({os.strerror(error.errno or 0)}); "
            "name another with --ssd-path."
        ) from error
    try:
        yield str(path / _TIER)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        lock.release()


def remove_dead(parent: Path, listener: Listener) -> None:
    """Remove the scratch directories in ``parent`` whose runs have died, this user's only."""
    for path in parent.glob(f"{_PREFIX}*"):
        if not _is_scratch(path):
            continue
        lock = FileLock(path / _LOCK)
        try:
            lock.acquire(blocking=False)
        except (Timeout, OSError):
            continue
        size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())
        shutil.rmtree(path, ignore_errors=True)
        lock.release()
        listener(ScratchRemoved(path=str(path), size_bytes=size_bytes))


def _locked_directory(parent: Path) -> tuple[Path, FileLock]:
    """A new directory with a folder for the tier, and the lock that tells others that its run is alive."""
    for attempt in range(_ATTEMPTS):
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = FileLock(path / _LOCK)
        try:
            lock.acquire(blocking=False)
            (path / _TIER).mkdir(mode=0o700)
        except (Timeout, FileNotFoundError):
            # Another run looked at the directory between its making and its locking, and took it for dead.
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        except BaseException:  # also Ctrl-C, which comes when it will
            shutil.rmtree(path, ignore_errors=True)
            raise
        return path, lock
    raise AssertionError("the last attempt returns or raises")


def _is_scratch(path: Path) -> bool:
    """Whether ``path`` is a scratch directory of this user: nothing else is ever removed."""
    try:
        status = path.lstat()
        mine = not hasattr(os, "getuid") or status.st_uid == os.getuid()
        private = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == stat.S_IRWXU
        return mine and private and (path / _LOCK).is_file()
    except OSError:
        return False
