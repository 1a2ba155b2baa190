"""A tier and a dictionary that are told the same, in sequences that hypothesis makes up, must answer the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from flexgnn.core.errors import TierFullError
from flexgnn.core.tier import Array, TierBackend
from flexgnn.testing.kit import Kit
from flexgnn.testing.samples import DTYPES, ODD_KEYS, SHAPES, assert_same_bits, read_back, sample

_CAPACITY_BYTES = 1500
_STEPS = 25
_NO_NUMBERS = [np.array(["text"]), np.zeros(3, dtype=">i2"), np.array([None]), np.zeros(3, dtype="M8[s]")]

_keys = (
    st.sampled_from(["a", "A", "a/b", "x" * 200])
    | st.sampled_from(ODD_KEYS)
    | st.text(st.characters(), min_size=1, max_size=200)
)
_shapes = st.sampled_from(SHAPES) | st.lists(st.integers(0, 6), max_size=4).map(tuple)


class TierStateMachine(RuleBasedStateMachine):
    """Operations on a small tier, each compared with what a dictionary of arrays says."""

    def __init__(self, open_tier: Callable[[int], TierBackend]) -> None:
        """Begin with an empty tier; ``open_tier(capacity_bytes)`` opens it, over the same place in every call."""
        super().__init__()
        self._open_tier = open_tier
        leftovers = open_tier(_CAPACITY_BYTES)
        leftovers.clear()
        leftovers.close()
        self._tier = open_tier(_CAPACITY_BYTES)
        self._arrays: dict[str, Array] = {}
        self._peak_bytes = 0

    @property
    def _used_bytes(self) -> int:
        return sum(array.nbytes for array in self._arrays.values())

    @property
    def _filled(self) -> bool:
        return bool(self._arrays)

    def _any_key(self, data: Any) -> str:
        key: str = data.draw(st.sampled_from(sorted(self._arrays)))
        return key

    def _put(self, key: str, array: Array) -> None:
        others = self._used_bytes - (self._arrays[key].nbytes if key in self._arrays else 0)
        if others + array.nbytes > _CAPACITY_BYTES:
            with pytest.raises(TierFullError):
                self._tier.put(key, array)
            return
        self._tier.put(key, array)
        self._arrays[key] = array
        self._peak_bytes = max(self._peak_bytes, self._used_bytes)

    @rule(key=_keys, dtype=st.sampled_from(DTYPES), shape=_shapes, seed=st.integers(0, 99))
    def put(self, key: str, dtype: str, shape: tuple[int, ...], seed: int) -> None:
        self._put(key, sample(dtype, shape, seed))

    @precondition(lambda self: self._filled)
    @rule(data=st.data(), dtype=st.sampled_from(DTYPES), shape=_shapes, seed=st.integers(0, 99))
    def put_again(self, data: Any, dtype: str, shape: tuple[int, ...], seed: int) -> None:
        self._put(self._any_key(data), sample(dtype, shape, seed))

    @precondition(lambda self: self._filled)
    @rule(data=st.data(), seed=st.integers(100, 199))
    def put_other_content(self, data: Any, seed: int) -> None:
        """As training does in every epoch."""
        key = self._any_key(data)
        array = self._arrays[key]
        assert_same_bits(read_back(self._tier, key, array), array)
        self._put(key, sample(array.dtype.name, array.shape, seed))
        assert_same_bits(read_back(self._tier, key, array), self._arrays[key])

    @rule(key=_keys, array=st.sampled_from(_NO_NUMBERS))
    def put_what_is_no_number(self, key: str, array: Array) -> None:
        with pytest.raises(ValueError, match="not"):
            self._tier.put(key, array)

    @precondition(lambda self: self._filled)
    @rule(data=st.data())
    def get(self, data: Any) -> None:
        key = self._any_key(data)
        assert_same_bits(read_back(self._tier, key, self._arrays[key]), self._arrays[key])

    @precondition(lambda self: self._filled)
    @rule(data=st.data())
    def get_rows(self, data: Any) -> None:
        key = self._any_key(data)
        array = self._arrays[key]
        start = data.draw(st.integers(0, len(array))) if array.ndim else 0
        stop = data.draw(st.integers(start, len(array))) if array.ndim else 1
        rows = array[start:stop] if array.ndim else array
        out = np.full_like(rows, 1)
        self._tier.get_rows(key, start, out)
        assert_same_bits(out, rows)

    @precondition(lambda self: self._filled)
    @rule(data=st.data(), excess=st.integers(1, 3))
    def get_into_what_does_not_fit(self, data: Any, excess: int) -> None:
        key = self._any_key(data)
        array = self._arrays[key]
        out, start = data.draw(
            st.sampled_from(
                [
                    (np.empty(array.shape, dtype="complex64"), 0),
                    (np.empty((*array.shape, 1), dtype=array.dtype), 0),
                    (np.empty((*array.shape[:1], excess + 20), dtype=array.dtype), 0),
                    (np.empty_like(array), excess),
                    (np.empty_like(array), -excess),
                ]
            )
        )
        with pytest.raises(ValueError, match=r"holds|has"):
            self._tier.get_rows(key, start, out)

    @rule(key=_keys)
    def use_an_absent_key(self, key: str) -> None:
        if key in self._arrays:
            return
        out = np.empty(3, dtype=np.float32)
        for use in (
            self._tier.delete,
            self._tier.size_bytes,
            lambda k: self._tier.get(k, out),
            lambda k: self._tier.get_rows(k, 0, out),
        ):
            with pytest.raises(KeyError):
                use(key)

    @precondition(lambda self: self._filled)
    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        key = self._any_key(data)
        self._tier.delete(key)
        del self._arrays[key]

    @rule()
    def flush(self) -> None:
        self._tier.flush()

    @rule()
    def reopen(self) -> None:
        self._tier.close()
        if not self._tier.durable:
            self._arrays.clear()
        self._tier = self._open_tier(_CAPACITY_BYTES)
        self._peak_bytes = self._used_bytes

    @invariant()
    def keys_and_sizes_are_those_of_the_dictionary(self) -> None:
        assert sorted(self._tier.keys()) == sorted(self._arrays)
        for key, array in self._arrays.items():
            assert self._tier.size_bytes(key) == array.nbytes
            assert (self._tier.blob(key).dtype, self._tier.blob(key).shape) == (array.dtype, array.shape)
        assert (self._tier.used_bytes, self._tier.peak_bytes) == (self._used_bytes, self._peak_bytes)

    def teardown(self) -> None:
        """Whatever was not read on the way is read at the end."""
        for key, array in self._arrays.items():
            assert_same_bits(read_back(self._tier, key, array), array)
        self._tier.close()


class StateMachineTests(Kit):
    """The state machine, run."""

    def test_any_sequence_of_operations_does_what_a_dictionary_does(self, location: str) -> None:
        kit = self

        class Machine(TierStateMachine):
            def __init__(self) -> None:
                super().__init__(lambda capacity_bytes: kit.open(location, capacity_bytes))

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=self.num_examples,
                stateful_step_count=_STEPS,
                deadline=None,
                phases=(Phase.reuse, Phase.generate, Phase.shrink),
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
