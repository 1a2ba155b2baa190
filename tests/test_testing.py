"""The conformance tests themselves: they fail where a backend breaks the contract, or is not given."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import pytest

from flexgnn.backends.arrow import ArrowBackend
from flexgnn.testing import TierBackendTests
from tests.testing.breaches import BREACHES

TRAINING = "test_training_over_the_tier_gives_the_losses_of_training_in_memory"

IMPORTS = """
import time
import numpy as np
import pyarrow as pa
from flexgnn import hookimpl
from flexgnn.backends.arrow import ArrowBackend
from flexgnn.core.errors import TierError, TierFullError
from flexgnn.core.tier import TierOptions
from flexgnn.testing import TierBackendTests
"""

LOSES_BITS = """
class LosesBits(ArrowBackend):
    name = "loses-bits"
    def write_blob(self, key, array):
        return super().write_blob(key, np.round(array, 3) if array.dtype.kind == "f" else array)

@hookimpl
def flexgnn_list_tier_backends():
    return [LosesBits]
"""


class Remote(ArrowBackend):
    """Says that it is not on this machine."""

    local = False


def pytest_report(folder: Path, tests: Iterable[str]) -> str:
    """What pytest, in a process of its own, says of ``tests`` of the test files in ``folder``."""
    options = ["-q", "--tb=line", "-rf", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    path = os.pathsep.join([str(folder), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True).stdout


def test_a_missing_backend_fails_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match=r"TestNothing needs `backend = ...`"):
        type("TestNothing", (TierBackendTests,), {})
    with pytest.raises(TypeError, match="a subclass of TierBackend; it has 'arrow'"):
        type("TestName", (TierBackendTests,), {"backend": "arrow"})


def test_a_missing_location_fails_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match="TestRemote needs a fixture `location`"):
        type("TestRemote", (TierBackendTests,), {"backend": Remote})
    located = type("TestLocated", (TierBackendTests,), {"backend": Remote, "location": pytest.fixture(lambda self: "")})
    type("TestBelow", (located,), {})


def test_every_test_of_the_kit_has_a_breach_that_it_must_notice() -> None:
    tests = {name for name in dir(TierBackendTests) if name.startswith("test_")}
    assert {test for test, _ in BREACHES} == tests


@pytest.mark.slow
def test_every_breach_of_the_contract_fails(tmp_path: Path) -> None:
    lines, tests = [IMPORTS], []
    for number, (test, body) in enumerate(BREACHES):
        lines += [f"class Breach{number}(ArrowBackend):", textwrap.indent(textwrap.dedent(body), "    ")]
        lines += [f"class TestBreach{number}(TierBackendTests):", f"    backend = Breach{number}"]
        tests.append(f"test_breaches.py::TestBreach{number}::{test}")
    (tmp_path / "test_breaches.py").write_text("\n".join(lines))
    report = pytest_report(tmp_path, tests)
    assert [breach for test, breach in zip(tests, BREACHES, strict=True) if f"FAILED {test}" not in report] == [], (
        report
    )
    assert "is not registered by an entry point" in report or "stands for" in report


@pytest.mark.slow
def test_a_registered_backend_that_loses_bits_fails_in_training(tmp_path: Path) -> None:
    info = tmp_path / "loses_bits-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loses-bits\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flexgnn]\nloses-bits = loses_bits\n")
    (tmp_path / "loses_bits.py").write_text(IMPORTS + LOSES_BITS)
    (tmp_path / "test_loses_bits.py").write_text(
        "from flexgnn.testing import TierBackendTests\n"
        "from loses_bits import LosesBits\n"
        "class TestLosesBits(TierBackendTests):\n"
        "    backend = LosesBits\n"
    )
    report = pytest_report(tmp_path, [f"test_loses_bits.py::TestLosesBits::{TRAINING}"])
    assert "1 failed" in report, report
    assert "is not registered" not in report, report
