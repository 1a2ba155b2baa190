"""What the conformance tests put into tiers, and how they look at what comes out."""

from __future__ import annotations

import numpy as np

from flexgnn.core.tier import Array, TierBackend

DTYPES = ["bool", "uint8", "int8", "int16", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64"]
SHAPES: list[tuple[int, ...]] = [(), (0,), (0, 5), (5, 0), (1,), (7,), (7, 11), (3, 5, 7)]
ODD_KEYS = [
    *("../x", "..", ".", "/etc/x", "a/b", "a\\b", "a:b", "a%2fb", "con", "nul.txt", " ", "a b ", "a.", "-x", "~", "*?"),
    *("line\nbreak", "zero\0byte", "ä", "a\u0308", "节点", "🜁" * 200, "x" * 200, "X" * 200, "/" * 200, "." * 200),
    *("case", "Case", "CASE", "half a pair \ud83d"),
]


def sample(dtype: str, shape: tuple[int, ...], seed: int = 11) -> Array:
    """An array of random bytes seen as ``dtype``; the same ones in every call."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return np.asarray(rng.integers(0, 2, shape)).astype(bool)
    size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(rng.bytes(size_bytes), dtype=dtype).reshape(shape)


def read_back(tier: TierBackend, key: str, like: Array) -> Array:
    """Blob ``key`` of ``tier``, in a new buffer of the shape and dtype of ``like``."""
    out = np.full_like(like, 1)
    tier.get(key, out)
    return out


def assert_same_bits(actual: Array, expected: Array) -> None:
    """Equal in dtype, shape and every bit, NaN and negative zero included."""
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    different = np.flatnonzero(_bytes(actual) != _bytes(expected))
    assert not len(different), f"{len(different)} of {actual.nbytes} bytes differ, from byte {different[0]} on"


def _bytes(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
