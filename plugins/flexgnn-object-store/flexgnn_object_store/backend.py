"""The ``object-store`` backend: one object a blob.

An object's body is the tensor's bytes alone, so that rows are plain ranges of it. Type, shape and key are its user
metadata, which a store puts in place together with the body, at once: an interrupted put leaves nothing behind that
could be read. Reads ask for the very object that was put (by its ETag), so one that was replaced is found out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import obstore

from flexgnn.core.blob import Array, Blob, flat_bytes
from flexgnn.core.errors import TierError
from flexgnn.core.tier import TierBackend, TierOptions
from flexgnn_object_store.connection import ObjectStoreSettings, connect
from flexgnn_object_store.failures import damaged, explained
from flexgnn_object_store.names import is_hashed, named_key, object_name

if TYPE_CHECKING:
    from obstore import GetOptions

_METADATA = "flexgnn"
# What is held on the way is as many pieces as are in flight. A part of an upload can't be smaller in S3 (but the
# last), and there can't be more than 10,000.
_PIECE_BYTES = 5 << 20
_IN_FLIGHT = 4
_MAX_PARTS = 10_000
_LISTED_AT_ONCE = 1000


@dataclass(frozen=True)
class _ObjectBlob(Blob):
    """A blob, and which version of its object holds it."""

    e_tag: str | None


class ObjectStoreBackend(TierBackend):
    """Objects in S3, Google Cloud Storage, Azure, or a store that speaks S3."""

    name = "object-store"
    contract_version = 1
    settings_type = ObjectStoreSettings
    local = False

    def __init__(self, options: TierOptions) -> None:
        super().__init__(options)
        self._url = options.location.rstrip("/")
        self._store = connect(self._url, self.settings)
        self._check_place()
        self._pool = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="flexgnn-object-store")

    def write_blob(self, key: str, array: Array) -> Blob:
        name = object_name(key)
        with self._explained("write", name), self._place_is_there():
            result = obstore.put(
                self._store,
                name,
                flat_bytes(array),
                attributes={_METADATA: _described(key, array)},
                use_multipart=array.nbytes > _PIECE_BYTES,
                chunk_size=max(_PIECE_BYTES, -(-array.nbytes // _MAX_PARTS)),
                max_concurrency=_IN_FLIGHT,
            )
        return _ObjectBlob(array.dtype, array.shape, result["e_tag"])

    def read_blob(self, key: str, blob: Blob, start: int, out: Array) -> None:
        assert isinstance(blob, _ObjectBlob)
        name, offset, target = object_name(key), start * blob.row_bytes, flat_bytes(out)
        with self._found(key):
            if len(target) <= _PIECE_BYTES:
                self._fill(name, blob.e_tag, offset, target)
                return
            pieces = [
                self._pool.submit(self._fill, name, blob.e_tag, offset + at, target[at : at + _PIECE_BYTES])
                for at in range(0, len(target), _PIECE_BYTES)
            ]
            try:
                for piece in pieces:
                    piece.result()
            finally:
                for piece in pieces:
                    piece.cancel()
                wait(pieces)  # the buffer is the caller's again

    def find_blob(self, key: str) -> Blob:
        name = object_name(key)
        with self._found(key):
            stored_key, blob = self._inspected(name)
        if stored_key != key:
            raise damaged(self._address(name))
        return blob

    def remove_blob(self, key: str) -> None:
        name = object_name(key)
        with self._found(key), self._explained("delete", name):
            obstore.head(self._store, name)  # deleting what is not there is no error
            obstore.delete(self._store, name)

    def keys(self) -> Iterator[str]:
        for name in self._names():
            key = named_key(name)
            if key is not None:
                yield key
            else:
                with suppress(FileNotFoundError):
                    yield self._inspected(name)[0]

    def flush(self) -> None:
        """A store has made an object durable when it answers that it took it."""

    def close(self) -> None:
        self._pool.shutdown()

    def where(self, key: str) -> str:
        return self._address(object_name(key))

    def remove_all(self) -> None:
        names = self._names()
        with self._explained("delete"), self._place_is_there():
            if names:
                obstore.delete(self._store, names)

    def _fill(self, name: str, e_tag: str | None, offset: int, target: memoryview) -> None:
        """Fill ``target`` with what the object holds from ``offset`` on."""
        if not target:
            return
        options: GetOptions = {"range": (offset, offset + len(target)), "if_match": e_tag}
        with self._explained("read", name):
            data = obstore.get(self._store, name, options=options).bytes()
        if len(data) != len(target):
            raise damaged(self._address(name))
        target[:] = memoryview(data)

    def _inspected(self, name: str) -> tuple[str, _ObjectBlob]:
        """The key and the blob that an object says it holds."""
        with self._explained("read", name):
            found = obstore.get(self._store, name, options={"head": True})
        try:
            values = json.loads(found.attributes[_METADATA])
            key = base64.b64decode(values["key"]).decode("utf-8", "surrogatepass")
            blob = Blob.from_json(values)
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(self._address(name)) from error
        if found.meta["size"] != blob.size_bytes:
            raise damaged(self._address(name))
        return key, _ObjectBlob(blob.dtype, blob.shape, found.meta["e_tag"])

    def _names(self) -> list[str]:
        """The names of all blobs' objects."""
        with self._explained("list"), self._place_is_there():
            pages = obstore.list(self._store, chunk_size=_LISTED_AT_ONCE)
            names = [item["path"] for page in pages for item in page]
        return [name for name in names if is_hashed(name) or named_key(name) is not None]

    def _check_place(self) -> None:
        """Raise :class:`TierError` unless the bucket is there and lets itself be listed."""
        with self._explained("open"), self._place_is_there():
            next(iter(obstore.list(self._store, chunk_size=1)), None)

    def _address(self, name: str | None) -> str:
        return f"{self._url}/{name}" if name else self._url

    def _explained(self, verb: str, name: str | None = None) -> AbstractContextManager[None]:
        return explained(verb, self._address(name), self.settings.endpoint)

    @contextmanager
    def _place_is_there(self) -> Iterator[None]:
        """Take a missing object, where none was asked for, for a missing bucket."""
        try:
            yield
        except FileNotFoundError as error:
            raise TierError(
                f"The object-store tier finds no bucket for {self._url}: create it, or name another place."
            ) from error

    @contextmanager
    def _found(self, key: str) -> Iterator[None]:
        """Take a missing object for a key that was never put, unless the bucket is missing too."""
        try:
            yield
        except FileNotFoundError as error:
            self._check_place()
            raise KeyError(key) from error


def _described(key: str, array: Array) -> str:
    """Key, type and shape as text for a header: ASCII, without spaces, and short enough for S3 (2 KB)."""
    encoded = base64.b64encode(key.encode("utf-8", "surrogatepass")).decode()
    return json.dumps({"key": encoded, **Blob(array.dtype, array.shape).to_json()}, separators=(",", ":"))
