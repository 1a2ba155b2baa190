"""Tests that need another process: one that is killed, and one whose memory the operating system measures."""

from __future__ import annotations

import os
import queue
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexgnn.core.host_memory_tier import HostMemoryTier
from flexgnn.core.tier import TierBackend
from flexgnn.testing.child import anonymous_bytes, version_array
from flexgnn.testing.kit import Kit
from flexgnn.testing.processes import OtherProcess, other_process
from flexgnn.testing.samples import assert_same_bits, read_back, sample

_NUM_KILLS = 6
_SAMPLING_SECONDS = 0.002


class ProcessTests(Kit):
    """Interruption, and memory."""

    def test_a_writer_that_is_killed_leaves_the_old_blob_or_the_new_one(self, location: str) -> None:
        self.need_durable()
        untouched = sample("float32", (1009, 13))
        tier = self.open(location)
        tier.put("untouched", untouched)
        finished = 0
        started = time.perf_counter()
        tier.put("blob", version_array(finished))
        put_seconds = time.perf_counter() - started
        tier.close()
        for _ in range(_NUM_KILLS):
            delay_seconds = random.uniform(0, 8 * put_seconds)
            finished = self._kill_a_writer(location, finished, delay_seconds)
            tier = self.open(location)
            finished = _surviving_version(tier, finished, f"killed after {delay_seconds * 1000:.1f} ms")
            assert_same_bits(read_back(tier, "untouched", untouched), untouched)
            tier.put("usable", untouched)
            assert_same_bits(read_back(tier, "usable", untouched), untouched)
            tier.delete("usable")
            tier.close()

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from /proc")
    def test_no_second_copy_of_a_large_blob_is_made(self, location: str) -> None:
        if issubclass(self.backend, HostMemoryTier):
            pytest.skip("the first copy is in the memory of the process")
        process = other_process()
        bound_bytes = self.large_blob_bytes // 4
        options = self._plain_options(location)
        with process.doing("move a large blob", self.backend, options, self.large_blob_bytes) as mover:
            growth = _growth_by_phase(process, mover)
        assert list(growth) == ["put", "get", "get_rows"]
        for phase, growth_bytes in growth.items():
            assert growth_bytes <= bound_bytes, (
                f"{phase} of {self.large_blob_bytes} bytes took {growth_bytes} bytes of memory more, "
                f"of which {bound_bytes} would be accepted"
            )

    def _plain_options(self, location: str) -> Mapping[str, Any]:
        return {"location": location, "settings": dict(self.settings)}

    def _kill_a_writer(self, location: str, finished: int, delay_seconds: float) -> int:
        """Have another process put the versions after ``finished`` until it is killed; the last that it finished."""
        process = other_process()
        with process.doing("put for ever", self.backend, self._plain_options(location), finished + 1) as writer:
            time.sleep(delay_seconds)
            os.kill(writer, signal.SIGKILL)
            while "ended" not in (told := process.next()):
                finished = told["version"]
        assert told["ended"] == -signal.SIGKILL, "the writer failed before it was killed (see standard error)"
        time.sleep(self.settle_seconds)
        return finished


def _surviving_version(tier: TierBackend, finished: int, when: str) -> int:
    """Check that what a killed writer left is whole; the last version that it may have put."""
    found = set(tier.keys()) - {"untouched"}
    assert found <= {"blob", "passing"}, when
    latest = finished
    for key in found:
        blob = tier.blob(key)
        out = np.zeros(blob.shape, dtype=blob.dtype)
        tier.get(key, out)
        version = int(out.flat[0])
        assert version in (finished, finished + 1), f"{key!r} is of turn {version}, {when} and after turn {finished}"
        assert_same_bits(out, version_array(version))
        latest = max(latest, version)
        if key == "passing":
            tier.delete(key)
    return latest


def _growth_by_phase(process: OtherProcess, mover: int) -> dict[str, int]:
    """How much the anonymous memory of ``mover`` grew at most in each phase that it tells of, until it ends."""
    growth: dict[str, int] = {}
    phase, before = "", 0
    while True:
        try:
            told = process.next(_SAMPLING_SECONDS)
        except queue.Empty:
            if phase:
                growth[phase] = max(growth[phase], anonymous_bytes(mover) - before)
            continue
        if "ended" in told:
            assert told["ended"] == 0, "the process failed (see standard error)"
            return growth
        phase, before = told["phase"], told["anonymous_bytes"]
        growth[phase] = 0
