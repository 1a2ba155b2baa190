"""What backends have in common that keep each blob in a file, or a folder, of one directory."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import shutil
import threading
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote_to_bytes

from flexgnn.core.blob import Array, Blob
from flexgnn.core.errors import DamagedBlobError, TierError, TierFullError
from flexgnn.core.spare_files import SpareFiles
from flexgnn.core.tier import TierBackend, TierOptions

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")
_MAX_NAME_CHARACTERS = 200
_NAMED, _HASHED, _UNFINISHED, _RETIRED = "key-", "hash-", "unfinished-", "retired-"
_FULL = "free some space, or choose a larger disk with --ssd-path"
_FORBIDDEN = "choose a directory that can be written with --ssd-path"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _FORBIDDEN,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
}
_serial = itertools.count()


class DirectoryBackend(TierBackend):
    """A tier over one directory; a backend says how one blob becomes a file (or a folder) there, and is read again.

    Names are made so that no key leaves the directory and no two keys share a file, on file systems that don't tell
    upper from lower case too. A blob is written under another name and takes its place when it is complete.
    """

    suffix: ClassVar[str]
    """Of the files' names, as in ``.arrow``."""
    writes_over: ClassVar[bool] = False
    """Whether :meth:`write_file` can be given a file that is there, to be written over and cut to its new length."""

    def __init__(self, options: TierOptions) -> None:
        super().__init__(options)
        self.directory = Path(options.location)
        self._lock = threading.Lock()
        self._unflushed: set[str] = set()
        self._paths: dict[str, Path] = {}
        self._spares = SpareFiles(self.directory, _RETIRED)
        with self._failures("open", self.directory):
            for name in os.listdir(self.directory):
                if name.startswith((_UNFINISHED, _RETIRED)):
                    _remove(self.directory / name)

    @abstractmethod
    def write_file(self, path: Path, key: str, array: Array) -> Blob:
        """Write ``array``, and ``key`` beside it, to ``path``, where nothing is yet (but see :attr:`writes_over`).

        Returns:
            What :meth:`inspect_file` will return for it.
        """

    @abstractmethod
    def read_file(self, path: Path, blob: Blob, start: int, out: Array) -> None:
        """Fill ``out`` with rows from ``start`` on of the blob at ``path``; see :meth:`TierBackend.read_blob`.

        Call :meth:`damaged` where the file does not hold what ``blob`` says.
        """

    @abstractmethod
    def inspect_file(self, path: Path) -> tuple[str, Blob]:
        """The key and the blob that the file at ``path`` says it holds; :class:`ValueError` if it makes no sense."""

    def damaged(self, path: Path) -> DamagedBlobError:
        """The error to raise for a file that does not hold what it should."""
        return DamagedBlobError(f"The {self.name} tier's file {path} is damaged or cut short: run again.")

    def write_blob(self, key: str, array: Array) -> Blob:
        path = self._path(key)
        unfinished = self.directory / f"{_UNFINISHED}{os.getpid()}-{next(_serial)}"
        with self._failures("write", path):
            try:
                if self.writes_over:
                    self._spares.reuse(unfinished, array.nbytes)
                blob = self.write_file(unfinished, key, array)
                if self.writes_over:
                    self._spares.retire(path)
                _replace(unfinished, path)
            except BaseException:
                _remove(unfinished)
                self._spares.remove()
                raise
        with self._lock:
            self._unflushed.add(path.name)
        return blob

    def read_blob(self, key: str, blob: Blob, start: int, out: Array) -> None:
        path = self._path(key)
        with self._failures("read", path), _found(key), self._spares.reading():
            self.read_file(path, blob, start, out)

    def find_blob(self, key: str) -> Blob:
        path = self._path(key)
        with _found(key):
            stored_key, blob = self._inspected(path)
        if stored_key != key:
            raise self.damaged(path)
        return blob

    def remove_blob(self, key: str) -> None:
        path = self._path(key)
        with self._failures("delete", path), _found(key):
            _take_away(path)
        with self._lock:
            self._unflushed.discard(path.name)
            self._paths.pop(key, None)

    def keys(self) -> Iterator[str]:
        with self._failures("list", self.directory):
            names = os.listdir(self.directory)
        for name in names:
            if name.startswith(_NAMED):
                encoded = name.removeprefix(_NAMED).removesuffix(self.suffix)
                yield unquote_to_bytes(encoded).decode("utf-8", "surrogatepass")
            elif name.startswith(_HASHED):
                # What is damaged has no key that could be told.
                with contextlib.suppress(FileNotFoundError, DamagedBlobError):
                    yield self._inspected(self.directory / name)[0]

    def flush(self) -> None:
        with self._lock:
            names, self._unflushed = self._unflushed, set()
        try:
            for path in (*(self.directory / name for name in names), self.directory):
                with self._failures("flush", path), contextlib.suppress(FileNotFoundError):
                    synchronise(path, deep=path != self.directory)
        except TierError:
            with self._lock:
                self._unflushed |= names
            raise

    def close(self) -> None:
        """Nothing is open between calls."""
        self._spares.remove()

    def where(self, key: str) -> str:
        return str(self._path(key))

    def _path(self, key: str) -> Path:
        path = self._paths.get(key)
        if path is None:
            path = self._paths[key] = self.directory / _file_name(key, self.suffix)
        return path

    def _inspected(self, path: Path) -> tuple[str, Blob]:
        with self._failures("read", path):
            try:
                return self.inspect_file(path)
            except (ValueError, KeyError, TypeError) as error:
                raise self.damaged(path) from error

    @contextlib.contextmanager
    def _failures(self, verb: str, path: Path) -> Iterator[None]:
        """Turn what the operating system reports about ``path`` into a :class:`TierError`; a missing file passes."""
        try:
            yield
        except FileNotFoundError:
            if verb in ("read", "delete", "flush") and self.directory.is_dir():
                raise
            raise TierError(
                f"The {self.name} tier can't {verb} {path} ({os.strerror(errno.ENOENT)}): "
                "is its directory still there? Choose another with --ssd-path."
            ) from None
        except OSError as error:
            if error.errno is None:  # a library's own report of a body that is too short
                raise self.damaged(path) from error
            raise system_failure(self.name, verb, path, error.errno) from error


def system_failure(tier: str, verb: str, path: Path, code: int) -> TierError:
    """The error to raise when the operating system refuses to ``verb`` the ``path`` of a tier with ``code``."""
    kind = TierFullError if _ADVICE.get(code) is _FULL else TierError
    advice = _ADVICE.get(code, "check the disk, or choose another directory with --ssd-path")
    return kind(f"The {tier} tier can't {verb} {path} ({os.strerror(code)}): {advice}.")


def read_at(path: Path, offset: int, out: memoryview) -> int:
    """Read into ``out`` from ``offset`` on, until it is full or the file ends. Returns the bytes read."""
    file = os.open(path, os.O_RDONLY)
    try:
        filled = 0
        while filled < len(out):
            count = os.preadv(file, [out[filled:]], offset + filled)
            if count == 0:
                break
            filled += count
        return filled
    finally:
        os.close(file)


def synchronise(path: Path, *, deep: bool) -> None:
    """Have the system write ``path`` to the disk, with what is below it if ``deep``."""
    if deep and path.is_dir():
        for child in path.iterdir():
            synchronise(child, deep=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file_name(key: str, suffix: str) -> str:
    """A name for ``key`` that is its own on case-insensitive file systems too, and stays inside the directory."""
    encoded = key.encode("utf-8", "surrogatepass")
    name = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in encoded)
    if len(name) <= _MAX_NAME_CHARACTERS:
        return f"{_NAMED}{name}{suffix}"
    return f"{_HASHED}{hashlib.blake2b(encoded, digest_size=20).hexdigest()}{suffix}"


def _replace(new: Path, path: Path) -> None:
    """Move ``new`` to ``path``. A folder that is there is moved away first: it can't be replaced in one go."""
    try:
        os.replace(new, path)
    except OSError:
        if not path.is_dir():
            raise
        retired = path.with_name(f"{_RETIRED}{os.getpid()}-{next(_serial)}")
        os.replace(path, retired)
        os.replace(new, path)
        shutil.rmtree(retired, ignore_errors=True)


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _take_away(path: Path) -> None:
    """Remove a blob's file at once, or its folder under another name, so that it is whole or gone."""
    if path.is_dir():
        retired = path.with_name(f"{_RETIRED}{os.getpid()}-{next(_serial)}")
        os.replace(path, retired)
        shutil.rmtree(retired)
    else:
        path.unlink()


@contextlib.contextmanager
def _found(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise KeyError(key) from error
