"""The tests that every storage backend must pass.

A subclass of :class:`TierBackendTests` in a test file, with the backend as its one required piece, is run by
pytest; its own name must begin with ``Test``::

    from flexgnn.testing import TierBackendTests

    class TestMyBackend(TierBackendTests):
        backend = MyBackend
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from flexgnn.core.tier import Array, TierBackend, TierOptions

_DTYPES = ["bool", "uint8", "int8", "int16", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64"]
_SHAPES = [(), (0,), (0, 5), (5, 0), (1,), (7,), (7, 11), (3, 5, 7)]
_KEYS = [
    *("../x", "..", ".", "/etc/x", "a/b", "a\\b", "a:b", "a%2fb", "con", "nul.txt", " ", "a b ", "a.", "-x", "~", "*?"),
    *("line\nbreak", "zero\0byte", "ä", "a\u0308", "节点", "🜁" * 200, "x" * 200, "X" * 200, "/" * 200, "." * 200),
    *("case", "Case", "CASE"),
]
_LARGE_BYTES = 32 << 20

_PUT_FOREVER = """
import importlib, json, sys
import numpy as np
from flexgnn.core.tier import TierOptions

module, name, location, settings = sys.argv[1:]
backend = getattr(importlib.import_module(module), name)
tier = backend(TierOptions(location=location, settings=json.loads(settings)))
for version in range(100_000):
    tier.put("blob", np.full((2048, 512), version, dtype=np.int64))
    print(version, flush=True)
"""


def sample(dtype: str, shape: tuple[int, ...]) -> Array:
    """An array of random bytes seen as ``dtype``; the same ones in every call."""
    if dtype == "bool":
        return np.random.default_rng(11).integers(0, 2, shape).astype(bool)
    size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(np.random.default_rng(11).bytes(size_bytes), dtype=dtype).reshape(shape)


def read_back(tier: TierBackend, key: str, like: Array) -> Array:
    """Blob ``key`` of ``tier``, in a new buffer of the shape and dtype of ``like``."""
    out = np.full_like(like, 1)
    tier.get(key, out)
    return out


def assert_same_bits(actual: Array, expected: Array) -> None:
    """Equal in dtype, shape and every bit, NaN and negative zero included."""
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    assert actual.tobytes() == expected.tobytes()


class TierBackendTests:
    """What every :class:`~flexgnn.core.tier.TierBackend` must do.

    A backend that is not on this machine (``local = False``) must also override the fixture :meth:`location`.
    """

    backend: ClassVar[type[TierBackend]]
    """The class under test, importable from its module by its name: some tests open it in another process."""
    settings: ClassVar[Mapping[str, Any]] = {}
    """What it is opened with."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        backend = getattr(cls, "backend", None)
        if not (isinstance(backend, type) and issubclass(backend, TierBackend)):
            raise TypeError(f"{cls.__name__} needs `backend = ...`, a subclass of TierBackend; it has {backend!r}.")
        if not backend.local and cls.location is TierBackendTests.location:
            raise TypeError(f"{cls.__name__} needs a fixture `location`: {backend.name} is not on this machine.")

    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        """An empty place for the tier."""
        place = tmp_path / "outside" / "tier"
        place.mkdir(parents=True)
        return str(place)

    @pytest.fixture
    def tier(self, location: str) -> Iterator[TierBackend]:
        """An empty tier."""
        tier = self.open(location)
        yield tier
        tier.close()

    def open(self, location: str, capacity_bytes: int | None = None) -> TierBackend:
        """The tier over ``location``."""
        return self.backend(TierOptions(location=location, capacity_bytes=capacity_bytes, settings=dict(self.settings)))

    def test_has_a_name(self) -> None:
        assert isinstance(self.backend.name, str)
        assert self.backend.name

    @pytest.mark.parametrize("shape", _SHAPES)
    @pytest.mark.parametrize("dtype", _DTYPES)
    def test_round_trip(self, tier: TierBackend, dtype: str, shape: tuple[int, ...]) -> None:
        array = sample(dtype, shape)
        tier.put("a", array)
        assert_same_bits(read_back(tier, "a", array), array)
        assert tier.size_bytes("a") == array.nbytes

    def test_round_trip_of_a_large_blob(self, tier: TierBackend) -> None:
        array = sample("float32", (_LARGE_BYTES // 512, 128))
        tier.put("large", array)
        assert_same_bits(read_back(tier, "large", array), array)

    @pytest.mark.parametrize("view", [np.s_[::2], np.s_[:, 1:3], np.s_[::-1, ::3]])
    def test_put_of_a_view_that_is_not_contiguous(self, tier: TierBackend, view: Any) -> None:
        array = sample("float32", (7, 11))[view]
        tier.put("view", array)
        tier.put("transposed", array.T)
        assert_same_bits(read_back(tier, "view", np.ascontiguousarray(array)), array)
        assert_same_bits(read_back(tier, "transposed", np.ascontiguousarray(array.T)), array.T)

    def test_put_copies(self, tier: TierBackend) -> None:
        array = sample("int64", (7, 11)).copy()
        before = array.copy()
        tier.put("a", array)
        array[:] = 0
        assert_same_bits(read_back(tier, "a", before), before)

    def test_put_again_replaces_the_whole_blob(self, tier: TierBackend) -> None:
        for array in (
            sample("float32", (7, 11)),
            sample("int16", (3,)),
            sample("float64", (13, 5)),
            sample("bool", ()),
        ):
            tier.put("a", array)
            assert_same_bits(read_back(tier, "a", array), array)
            assert list(tier.keys()) == ["a"]
            assert tier.size_bytes("a") == array.nbytes

    def test_delete(self, tier: TierBackend) -> None:
        tier.put("a", sample("float32", (7,)))
        tier.put("b", sample("float32", (5,)))
        tier.delete("a")
        assert list(tier.keys()) == ["b"]
        with pytest.raises(KeyError):
            tier.get("a", np.empty(7, dtype=np.float32))
        tier.put("a", sample("int8", (3,)))
        assert sorted(tier.keys()) == ["a", "b"]

    @pytest.mark.parametrize("key", ["absent", "x" * 200, "../absent"])
    def test_a_key_that_was_never_put(self, tier: TierBackend, key: str) -> None:
        out = np.empty(7, dtype=np.float32)
        for use in (tier.delete, tier.size_bytes, lambda k: tier.get(k, out), lambda k: tier.get_rows(k, 0, out)):
            with pytest.raises(KeyError):
                use(key)

    @pytest.mark.parametrize("key", ["", "x" * 201])
    def test_a_key_of_a_wrong_length(self, tier: TierBackend, key: str) -> None:
        with pytest.raises(ValueError, match="key"):
            tier.put(key, sample("float32", (7,)))
        assert list(tier.keys()) == []

    def test_odd_keys_stay_apart_and_inside_the_location(self, location: str) -> None:
        tier = self.open(location)
        for number, key in enumerate(_KEYS):
            tier.put(key, np.array([number, 7]))
        tier.close()
        for opened in (self.open(location),):
            assert sorted(opened.keys()) == sorted(_KEYS)
            for number, key in enumerate(_KEYS):
                assert read_back(opened, key, np.array([0, 0])).tolist() == [number, 7]
            if self.backend.local:
                outside = Path(location).parent
                assert [p.name for p in outside.rglob("*") if not p.is_relative_to(location)] == []
            for key in _KEYS:
                opened.delete(key)
            assert list(opened.keys()) == []
            opened.close()

    @pytest.mark.parametrize("shape", [(13,), (13, 5), (13, 2, 3), (13, 0)])
    def test_rows(self, tier: TierBackend, shape: tuple[int, ...]) -> None:
        array = sample("float32", shape)
        tier.put("a", array)
        for start, stop in [(0, 13), (0, 5), (3, 7), (12, 13), (0, 0), (7, 7), (13, 13)]:
            out = np.empty((stop - start, *shape[1:]), dtype=np.float32)
            tier.get_rows("a", start, out)
            assert_same_bits(out, array[start:stop])

    def test_rows_into_a_part_of_a_buffer(self, tier: TierBackend) -> None:
        array = sample("int64", (7, 11))
        tier.put("a", array)
        buffer = np.zeros((5, 11), dtype=np.int64)
        tier.get_rows("a", 2, buffer[1:4])
        assert_same_bits(buffer[1:4], array[2:5])
        assert not buffer[[0, 4]].any()

    @pytest.mark.parametrize(("start", "rows"), [(-1, 2), (0, 8), (6, 2), (8, 0), (100, 1)])
    def test_rows_out_of_range(self, tier: TierBackend, start: int, rows: int) -> None:
        tier.put("a", sample("float32", (7, 11)))
        with pytest.raises(ValueError, match="a"):
            tier.get_rows("a", start, np.empty((rows, 11), dtype=np.float32))

    @pytest.mark.parametrize("dtype", ["float16", "int32", "float64"])
    def test_buffer_of_a_wrong_dtype(self, tier: TierBackend, dtype: str) -> None:
        tier.put("a", sample("float32", (7, 11)))
        with pytest.raises(ValueError, match="a"):
            tier.get_rows("a", 0, np.empty((7, 11), dtype=dtype))

    @pytest.mark.parametrize("shape", [(7, 10), (7,), (77,), (7, 11, 1), ()])
    def test_buffer_of_a_wrong_shape(self, tier: TierBackend, shape: tuple[int, ...]) -> None:
        tier.put("a", sample("float32", (7, 11)))
        with pytest.raises(ValueError, match="a"):
            tier.get_rows("a", 0, np.empty(shape, dtype=np.float32))

    def test_get_into_a_buffer_of_a_wrong_size(self, tier: TierBackend) -> None:
        tier.put("a", sample("float32", (7, 11)))
        for rows in (6, 8):
            with pytest.raises(ValueError, match="a"):
                tier.get("a", np.empty((rows, 11), dtype=np.float32))

    def test_threads_on_different_keys(self, tier: TierBackend) -> None:
        def work(worker: int) -> None:
            for version in range(20):
                array = np.full((101, 103), 1000 * worker + version)
                tier.put(f"{worker}", array)
                assert_same_bits(read_back(tier, f"{worker}", array), array)
                tier.put(f"{worker} passing", array[:3])
                tier.delete(f"{worker} passing")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert sorted(tier.keys()) == sorted(map(str, range(8)))

    def test_threads_read_one_key(self, tier: TierBackend) -> None:
        array = sample("float32", (10007, 13))
        tier.put("a", array)
        with ThreadPoolExecutor(8) as pool:
            for out in pool.map(lambda _: read_back(tier, "a", array), range(32)):
                assert_same_bits(out, array)

    def test_reopened(self, location: str) -> None:
        arrays = {f"{dtype} {shape}": sample(dtype, shape) for dtype in _DTYPES for shape in _SHAPES}
        first = self.open(location)
        for key, array in arrays.items():
            first.put(key, array)
        first.flush()
        first.close()
        first.close()
        second = self.open(location)
        assert sorted(second.keys()) == sorted(arrays)
        for key, array in arrays.items():
            assert second.size_bytes(key) == array.nbytes
            assert_same_bits(read_back(second, key, array), array)
        second.close()

    def test_flush_at_any_time(self, tier: TierBackend) -> None:
        tier.flush()
        tier.put("a", sample("float32", (7, 11)))
        tier.put("b", sample("float32", (7, 11)))
        tier.delete("b")
        tier.flush()
        tier.flush()
        assert list(tier.keys()) == ["a"]

    def test_get_makes_no_second_copy(self, tier: TierBackend) -> None:
        array = sample("float32", (_LARGE_BYTES // 512, 128))
        tier.put("large", array)
        out = np.empty_like(array)
        tracemalloc.start()
        try:
            tier.get("large", out)
            tier.get_rows("large", 0, out[: len(out) // 2])
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < _LARGE_BYTES // 8

    @pytest.mark.parametrize("delay_seconds", [0.002, 0.007])
    def test_a_put_that_is_killed_leaves_the_old_blob(self, location: str, delay_seconds: float) -> None:
        names = (self.backend.__module__, self.backend.__name__, location, json.dumps(dict(self.settings)))
        command = [sys.executable, "-c", _PUT_FOREVER, *names]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "0\n", "the backend can't be opened in another process"
            time.sleep(delay_seconds)
            writer.kill()
            finished = len(writer.stdout.readlines())
        tier = self.open(location)
        out = np.zeros((2048, 512), dtype=np.int64)
        for key in list(tier.keys()):
            assert key == "blob"
            tier.get("blob", out)
            assert out.min() == out.max()
            assert out[0, 0] in (finished, finished + 1)
        tier.put("blob", out)
        tier.close()
