"""Each storage library as one would use it by hand: what the tiers are compared with.

All write blocks of float32 rows and read them into the caller's buffer. ``flush`` returns when the bytes are on the
device; ``find`` does what can be done once for several reads of a block.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import lmdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zarr
from zarr.buffer.cpu import NDBuffer
from zarr.storage import LocalStore

Array = npt.NDArray[np.float32]


class ByHand(Protocol):
    """One library over one directory (or bucket)."""

    def write(self, name: str, array: Array) -> None: ...
    def find(self, name: str) -> object: ...
    def read(self, name: str, out: Array) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class _NothingToFind:
    def find(self, name: str) -> None:
        pass


class _Files(_NothingToFind):
    """Libraries that write files."""

    def __init__(self, location: str) -> None:
        self.directory = Path(location)

    def flush(self) -> None:
        for path in self.directory.rglob("*"):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    def close(self) -> None:
        pass


class ArrowByHand(_Files):
    """``write_tensor`` to a file, ``read_tensor`` from a memory map."""

    def write(self, name: str, array: Array) -> None:
        with pa.OSFile(str(self.directory / name), "wb") as file:
            pa.ipc.write_tensor(pa.Tensor.from_numpy(array), file)

    def read(self, name: str, out: Array) -> None:
        with pa.memory_map(str(self.directory / name)) as file:
            np.copyto(out, pa.ipc.read_tensor(file).to_numpy())


class ZarrByHand(_Files):
    """An array a block: one chunk, no compression, no scan for fill values."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def write(self, name: str, array: Array) -> None:
        stored = zarr.create_array(
            LocalStore(self.directory / name),
            shape=array.shape,
            chunks=array.shape,
            dtype=array.dtype,
            compressors=None,
            filters=None,
            config={"write_empty_chunks": True},
        )
        stored[...] = array

    def find(self, name: str) -> None:
        self._arrays[name] = zarr.open_array(LocalStore(self.directory / name), mode="r")

    def read(self, name: str, out: Array) -> None:
        target: Any = out
        self._arrays[name].get_basic_selection((), out=NDBuffer(target))


class NpyByHand(_Files):
    """``np.save``, and ``np.load`` of a memory map."""

    def write(self, name: str, array: Array) -> None:
        np.save(self.directory / f"{name}.npy", array)

    def read(self, name: str, out: Array) -> None:
        np.copyto(out, np.load(self.directory / f"{name}.npy", mmap_mode="r"))


class LmdbByHand(_NothingToFind):
    """A value a block, put in one transaction."""

    def __init__(self, location: str) -> None:
        self._environment = lmdb.open(location, map_size=2**40, sync=False, metasync=False)

    def write(self, name: str, array: Array) -> None:
        with self._environment.begin(write=True) as transaction:
            transaction.put(name.encode(), array.reshape(-1).view(np.uint8).data)

    def read(self, name: str, out: Array) -> None:
        with self._environment.begin(buffers=True) as transaction:
            content = transaction.get(name.encode())
            np.copyto(out.reshape(-1), np.frombuffer(content, dtype=out.dtype))

    def flush(self) -> None:
        self._environment.sync(True)

    def close(self) -> None:
        self._environment.close()


class RawDirectIO(_Files):
    """``O_DIRECT`` system calls over page-aligned buffers: as fast as a file gets."""

    def write(self, name: str, array: Array) -> None:
        self._move(name, os.O_WRONLY | os.O_CREAT, os.pwritev, array)

    def read(self, name: str, out: Array) -> None:
        self._move(name, os.O_RDONLY, os.preadv, out)

    def _move(self, name: str, flags: int, call: Any, array: Array) -> None:
        content = array.reshape(-1).view(np.uint8).data
        descriptor = os.open(self.directory / name, flags | os.O_DIRECT, 0o600)
        moved = 0
        while moved < len(content):
            moved += call(descriptor, [content[moved:]], moved)
        os.close(descriptor)


class ObstoreByHand(_NothingToFind):
    """``put`` and ``get`` of whole objects."""

    def __init__(self, location: str, endpoint: str) -> None:
        from obstore.store import from_url

        self._store = from_url(location, endpoint=endpoint, client_options={"allow_http": True}, region="us-east-1")

    def write(self, name: str, array: Array) -> None:
        import obstore

        obstore.put(self._store, name, array.reshape(-1).view(np.uint8).data)

    def read(self, name: str, out: Array) -> None:
        import obstore

        content = obstore.get(self._store, name).bytes()
        np.copyto(out.reshape(-1), np.frombuffer(memoryview(content), dtype=out.dtype))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


BY_HAND = {
    "arrow": ArrowByHand,
    "zarr": ZarrByHand,
    "lmdb": LmdbByHand,
    "npy": NpyByHand,
    "direct-io": RawDirectIO,
}
"""By name of the backend that uses the library."""
