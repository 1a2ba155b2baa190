"""The ``lmdb`` SSD backend: one LMDB environment for all blobs.

A blob is a record (a number of its own, then key, type and shape as JSON) and, under that number, its bytes in pieces
of one size. LMDB keeps what a transaction writes in memory until it commits, so each piece has a transaction of its
own; and pages of equal runs are easily found again for new pieces. The record is written last: until then the pieces
belong to nothing, and the old blob is there.

Writing goes through the file, not through a writable map, because a full disk kills the process that writes a map.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lmdb
import numpy as np

from flexgnn.core.blob import Array, Blob, flat_bytes
from flexgnn.core.directory_backend import synchronise, system_failure
from flexgnn.core.errors import DamagedBlobError, TierError
from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.tier import TierBackend, TierOptions

_PIECE_BYTES = (4 << 20) - 16
"""With the 16 bytes of LMDB's header, whole pages."""
_LOCK_FILE_BYTES = 8192
_DAMAGE = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError)
_PIECE, _RECORD = b"p", b"r"


@dataclass(frozen=True)
class _LmdbBlob(Blob):
    """A blob, and the number that its pieces are filed under."""

    number: int

    @property
    def num_pieces(self) -> int:
        return -(-self.size_bytes // _PIECE_BYTES)

    def piece_bytes(self, piece: int) -> int:
        return min(_PIECE_BYTES, self.size_bytes - piece * _PIECE_BYTES)


class LmdbBackend(TierBackend):
    """Blobs in pieces, in one LMDB file."""

    name = "lmdb"
    contract_version = 1

    def __init__(self, options: TierOptions) -> None:
        super().__init__(options)
        self.directory = Path(options.location)
        self._file = self.directory / "data.mdb"
        self._gate = threading.Lock()
        self._idle = threading.Event()
        self._users: set[int] = set()
        self._open = True
        try:
            self._environment = self._opened()
        except (OSError, lmdb.Error) as error:
            raise self._failure("open", error) from error
        try:
            self._check_length()
            with _Call(self, "open"):
                self._numbers = itertools.count(self._remove_leftovers())
        except BaseException:
            self._environment.close()
            raise

    def _opened(self) -> lmdb.Environment:
        _make_lock_file(self.directory / "lock.mdb")
        return lmdb.open(
            str(self.directory),
            # No more can be needed; it takes addresses, not memory.
            map_size=shutil.disk_usage(self.directory).total,
            create=False,
            mode=0o600,
            sync=False,
            metasync=False,
        )

    def write_blob(self, key: str, array: Array) -> Blob:
        content = flat_bytes(array)
        blob = _LmdbBlob(array.dtype, array.shape, next(self._numbers))
        with _Call(self, "write"):
            try:
                for piece in range(blob.num_pieces - 1):
                    with self._environment.begin(write=True) as transaction:
                        _put_piece(transaction, blob, piece, content)
                with self._environment.begin(write=True) as transaction:
                    if blob.num_pieces:
                        _put_piece(transaction, blob, blob.num_pieces - 1, content)
                    replaced = transaction.replace(_record_key(key), _record(key, blob))
                    if replaced is not None:
                        _delete_pieces(transaction, _number(replaced))
            except BaseException:
                self._undo(key, blob)
                raise
        return blob

    def read_blob(self, key: str, blob: Blob, start: int, out: Array) -> None:
        assert isinstance(blob, _LmdbBlob)
        target = out.reshape(-1).view(np.uint8)
        filled, offset = 0, start * blob.row_bytes
        with _Call(self, "read"), self._environment.begin(buffers=True) as transaction:
            while filled < len(target):
                piece, skipped = divmod(offset + filled, _PIECE_BYTES)
                content = transaction.get(_piece_key(blob.number, piece))
                if content is None or len(content) != blob.piece_bytes(piece):
                    raise self._damaged(key)
                part = content[skipped : skipped + len(target) - filled]
                np.copyto(target[filled : filled + len(part)], np.frombuffer(part, dtype=np.uint8))
                filled += len(part)

    def find_blob(self, key: str) -> Blob:
        with _Call(self, "read"), self._environment.begin() as transaction:
            record = transaction.get(_record_key(key))
        if record is None:
            raise KeyError(key)
        try:
            stored_key, blob = _parsed(record)
        except ValueError as error:
            raise self._damaged(key) from error
        if stored_key != key:
            raise self._damaged(key)
        return blob

    def remove_blob(self, key: str) -> None:
        with _Call(self, "delete"), self._environment.begin(write=True) as transaction:
            record = transaction.pop(_record_key(key))
            if record is None:
                raise KeyError(key)
            _delete_pieces(transaction, _number(record))

    def keys(self) -> Iterator[str]:
        with _Call(self, "read"), self._environment.begin() as transaction:
            records = list(_records(transaction))
        for record in records:
            with contextlib.suppress(ValueError):
                yield _parsed(record)[0]

    def flush(self) -> None:
        with _Call(self, "flush"):
            self._environment.sync(True)
            synchronise(self.directory, deep=False)

    def close(self) -> None:
        with self._gate:
            self._open = False
            self._users.discard(threading.get_ident())  # there if an interrupt came while it entered or left
            if not self._users:
                self._idle.set()
        # LMDB unmaps the file under whoever still reads it.
        self._idle.wait()
        self._environment.close()

    def where(self, key: str) -> str:
        return f"{self._file} (key {key!r})"

    def room_bytes(self) -> int:
        """What the disk has left, and the pages in the file that hold nothing: it never gets shorter."""
        with _Call(self, "read"):
            with self._environment.begin() as transaction:
                pages = transaction.stat()
            last_page = self._environment.info()["last_pgno"]
            free_bytes = shutil.disk_usage(self.directory).free
        used = pages["branch_pages"] + pages["leaf_pages"] + pages["overflow_pages"]
        return free_bytes + (last_page + 1 - used) * pages["psize"]

    def _check_length(self) -> None:
        """Raise :class:`DamagedBlobError` where the file is cut short: reading what is missing kills the process."""
        with self._environment.begin() as transaction:
            page_bytes = transaction.stat()["psize"]
        if self._file.stat().st_size < (self._environment.info()["last_pgno"] + 1) * page_bytes:
            raise DamagedBlobError(f"The lmdb tier's file {self._file} is cut short: run again.")

    def _remove_leftovers(self) -> int:
        """Delete the pieces that no record names, which interrupted puts left. Returns a number never used."""
        with self._environment.begin(write=True) as transaction:
            named = {_number(record) for record in _records(transaction)}
            cursor = transaction.cursor()
            found, number = cursor.set_range(_PIECE), max(named, default=-1)
            while found and cursor.key().startswith(_PIECE):
                number = int.from_bytes(cursor.key()[1:9])
                found = cursor.set_range(_piece_key(number + 1, 0)) if number in named else cursor.delete()
        return max(named | {number}) + 1

    def _undo(self, key: str, blob: _LmdbBlob) -> None:
        """Delete the pieces of a put that failed, if they can be: else they go when the tier is opened again."""
        with contextlib.suppress(lmdb.Error), self._environment.begin(write=True) as transaction:
            record = transaction.get(_record_key(key))
            if record is None or _number(record) != blob.number:
                _delete_pieces(transaction, blob.number)

    def _enter(self) -> None:
        """Keep the environment open until this thread calls :meth:`_leave`."""
        with self._gate:
            if not self._open:
                raise TierError(f"The lmdb tier in {self.directory} is closed: open it again.")
            self._users.add(threading.get_ident())

    def _leave(self) -> None:
        with self._gate:
            self._users.discard(threading.get_ident())
            if not self._open and not self._users:
                self._idle.set()

    def _failure(self, verb: str, error: OSError | lmdb.Error) -> TierError:
        """What is said of a failure of LMDB or the operating system."""
        if isinstance(error, OSError):
            return system_failure(self.name, verb, self.directory, error.errno or errno.EIO)
        code = _system_code(error)
        if isinstance(error, lmdb.MapFullError) or (code == errno.EIO and self._disk_is_full()):
            code = errno.ENOSPC
        if code is not None:
            return system_failure(self.name, verb, self._file, code)
        if isinstance(error, _DAMAGE):
            return DamagedBlobError(f"The lmdb tier's file {self._file} is damaged: run again.")
        return TierError(
            f"The lmdb tier can't {verb} {self._file} ({error}): choose another directory with --ssd-path."
        )

    def _disk_is_full(self) -> bool:
        """LMDB calls a write that the disk takes only a part of an I/O error."""
        return shutil.disk_usage(self.directory).free < _PIECE_BYTES

    def _damaged(self, key: str) -> DamagedBlobError:
        return DamagedBlobError(f"The lmdb tier's blob {self.where(key)} is damaged: run again.")


class _Call:
    """A call on the environment of a tier, which stays open meanwhile; what fails becomes a :class:`TierError`.

    Every read makes one, so it is a class: a generator would take several times as long.
    """

    __slots__ = ("_tier", "_verb")

    def __init__(self, tier: LmdbBackend, verb: str) -> None:
        self._tier = tier
        self._verb = verb

    def __enter__(self) -> None:
        self._tier._enter()

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self._tier._leave()
        if isinstance(error, OSError | lmdb.Error):
            raise self._tier._failure(self._verb, error) from error


def _make_lock_file(path: Path) -> None:
    """Give LMDB's lock file its blocks: LMDB would map a file of holes, and a full disk would kill the process."""
    with contextlib.suppress(FileExistsError), open(path, "xb", opener=_for_the_owner) as file:
        file.write(bytes(_LOCK_FILE_BYTES))


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _record_key(key: str) -> bytes:
    """A digest, since LMDB's keys end at 511 bytes; the record holds the key itself."""
    return _RECORD + hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=20).digest()


def _piece_key(number: int, piece: int) -> bytes:
    return _PIECE + number.to_bytes(8) + piece.to_bytes(8)


def _record(key: str, blob: _LmdbBlob) -> bytes:
    return blob.number.to_bytes(8) + json.dumps({"key": key, **blob.to_json()}).encode()


def _number(record: bytes) -> int:
    return int.from_bytes(record[:8])


def _parsed(record: bytes) -> tuple[str, _LmdbBlob]:
    """The key and the blob of a record; :class:`ValueError` if it makes no sense."""
    values = json.loads(record[8:])
    blob = Blob.from_json(values)
    if not isinstance(values.get("key"), str):
        raise ValueError(f"{values!r} names no key")
    return values["key"], _LmdbBlob(blob.dtype, blob.shape, _number(record))


def _records(transaction: lmdb.Transaction[bytes]) -> Iterator[bytes]:
    cursor = transaction.cursor()
    found = cursor.set_range(_RECORD)
    while found:
        yield cursor.value()
        found = cursor.next()


def _put_piece(transaction: lmdb.Transaction[bytes], blob: _LmdbBlob, piece: int, content: memoryview) -> None:
    part = content[piece * _PIECE_BYTES : (piece + 1) * _PIECE_BYTES]
    transaction.put(_piece_key(blob.number, piece), part)


def _delete_pieces(transaction: lmdb.Transaction[bytes], number: int) -> None:
    cursor = transaction.cursor()
    found = cursor.set_range(_piece_key(number, 0))
    while found and cursor.key().startswith(_PIECE + number.to_bytes(8)):
        found = cursor.delete()


def _system_code(error: lmdb.Error) -> int | None:
    """The operating system's code, or None where LMDB found the fault. Old versions have it in the text alone."""
    return next((code for code in errno.errorcode if str(error).endswith(f": {os.strerror(code)}")), None)


@hookimpl
def flexgnn_list_tier_backends() -> list[type[TierBackend]]:
    """The backend of this module."""
    return [LmdbBackend]
