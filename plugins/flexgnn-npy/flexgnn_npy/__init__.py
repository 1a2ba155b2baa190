"""The ``npy`` SSD backend: one NumPy file a tensor, with the key behind the array."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flexgnn.core.blob import Array, Blob, flat_bytes
from flexgnn.core.directory_backend import DirectoryBackend
from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.tier import TierBackend


@dataclass(frozen=True)
class NpyBlob(Blob):
    """A blob, and where in its file the array begins."""

    offset: int


class NpyBackend(DirectoryBackend):
    """NumPy files in one directory."""

    name = "npy"
    contract_version = 1
    suffix = ".npy"

    def write_file(self, path: Path, key: str, array: Array) -> Blob:
        with open(path, "xb", opener=_for_the_owner, buffering=0) as file:
            np.lib.format.write_array_header_2_0(file, np.lib.format.header_data_from_array_1_0(array))
            offset = file.tell()
            written = file.write(flat_bytes(array))
            while written < array.nbytes:
                written += file.write(flat_bytes(array)[written:])
            file.write(key.encode("utf-8", "surrogatepass"))
        return NpyBlob(array.dtype, array.shape, offset)

    def read_file(self, path: Path, blob: Blob, start: int, out: Array) -> None:
        assert isinstance(blob, NpyBlob)
        with open(path, "rb", buffering=0) as file:
            file.seek(blob.offset + start * blob.row_bytes)
            missing = flat_bytes(out)
            while len(missing):
                count = file.readinto(missing)
                if not count:
                    raise self.damaged(path)
                missing = missing[count:]

    def inspect_file(self, path: Path) -> tuple[str, Blob]:
        with open(path, "rb") as file:
            if np.lib.format.read_magic(file) != (2, 0):
                raise ValueError("another version of the format")
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
            blob = NpyBlob(dtype, shape, file.tell())
            file.seek(blob.offset + blob.size_bytes)
            return file.read().decode("utf-8", "surrogatepass"), blob


def _for_the_owner(path: str, flags: int) -> int:
    """Open a file that no one else may read."""
    return os.open(path, flags, mode=0o600)


@hookimpl
def flexgnn_list_tier_backends() -> list[type[TierBackend]]:
    """The backend of this package."""
    return [NpyBackend]
