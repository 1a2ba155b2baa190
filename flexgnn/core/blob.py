"""What storage tiers hold: tensors as immutable blobs, and the checks that every tier makes of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MAX_KEY_CHARACTERS = 200
_NUMERIC_KINDS = "biufc"


@dataclass(frozen=True)
class Blob:
    """Type and shape of a stored tensor. Backends may extend it by where its bytes are."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor, without any format's overhead."""
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def num_rows(self) -> int:
        """The first dimension; 1 for a scalar."""
        return self.shape[0] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        """Bytes from one row to the next."""
        return self.dtype.itemsize * math.prod(self.shape[1:])

    def to_json(self) -> dict[str, Any]:
        """Type and shape as plain data."""
        return {"dtype": self.dtype.str, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Blob:
        """What :meth:`to_json` gave.

        Raises:
            ValueError: if it is anything else.
        """
        try:
            dtype, shape = np.dtype(values["dtype"]), tuple(values["shape"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{values!r} does not describe a tensor") from error
        if dtype.kind not in _NUMERIC_KINDS or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"{values!r} does not describe a tensor")
        return Blob(dtype, shape)


def check_key(key: str) -> None:
    """Raise :class:`ValueError` unless ``key`` has 1 to 200 characters."""
    if not 1 <= len(key) <= MAX_KEY_CHARACTERS:
        raise ValueError(f"A key has 1 to {MAX_KEY_CHARACTERS} characters, not {len(key)}.")


def storable(array: Array) -> Array:
    """``array`` C-contiguous: itself, or a copy where it is not.

    Raises:
        ValueError: if it does not hold little-endian numbers or bools.
    """
    array = np.asarray(array, order="C")
    if array.dtype.kind not in _NUMERIC_KINDS or array.dtype.newbyteorder("<") != array.dtype:
        raise ValueError(f"A tier holds little-endian numbers and bools, not {array.dtype}.")
    return array


def check_rows(key: str, blob: Blob, start: int, out: Array) -> None:
    """Raise :class:`ValueError` unless ``out`` can take rows from ``start`` on of ``blob``."""
    if out.dtype != blob.dtype or out.shape[1:] != blob.shape[1:] or out.ndim != len(blob.shape):
        raise ValueError(f"{key!r} holds {blob.dtype} {blob.shape}, the buffer is {out.dtype} {out.shape}.")
    rows = out.shape[0] if out.ndim else 1
    if not 0 <= start <= start + rows <= blob.num_rows:
        raise ValueError(f"{key!r} has {blob.num_rows} rows, not {start} to {start + rows}.")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError(f"The buffer for {key!r} is not C-contiguous and writeable.")


def flat_bytes(array: Array) -> memoryview:
    """The bytes of a C-contiguous ``array``, without a copy."""
    return array.reshape(-1).view(np.uint8).data
