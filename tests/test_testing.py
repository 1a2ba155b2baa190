"""The conformance tests themselves: they fail where a backend breaks the contract, or is not given."""

import subprocess
import sys
from pathlib import Path

import pytest

from flexgnn.testing import TierBackendTests

BREACHES = {
    "IgnoresStart": "def read_blob(self, key, blob, start, out): super().read_blob(key, blob, 0, out)",
    "LosesDtype": "def write_blob(self, key, array): return super().write_blob(key, array.astype('float64'))",
    "FoldsCase": "def write_blob(self, key, array): return super().write_blob(key.lower(), array)",
    "KeepsDeleted": "def remove_blob(self, key): self.find_blob(key)",
    "AcceptsEmptyKeys": "def put(self, key, array): super().put(key or 'empty', array)",
    "CopiesTwice": "def get(self, key, out): copy = np.empty_like(out); super().get(key, copy); out[...] = copy",
    "FilesByKey": "def put(self, key, array): super().put(key, array); (self.directory.parent / 'escaped').touch()",
}


def test_a_missing_backend_fails_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match=r"TestNothing needs `backend = ...`"):
        type("TestNothing", (TierBackendTests,), {})
    with pytest.raises(TypeError, match="a subclass of TierBackend; it has 'arrow'"):
        type("TestName", (TierBackendTests,), {"backend": "arrow"})


def test_every_breach_of_the_contract_fails(tmp_path: Path) -> None:
    lines = [
        "import numpy as np",
        "from flexgnn.backends.arrow import ArrowBackend",
        "from flexgnn.testing import TierBackendTests",
    ]
    for name, method in BREACHES.items():
        lines += [f"class {name}(ArrowBackend):", f"    {method}"]
        lines += [f"class Test{name}(TierBackendTests):", f"    backend = {name}"]
    (tmp_path / "test_breaches.py").write_text("\n".join(lines))
    options = ["-q", "--tb=no", "-rf", "-p", "no:cacheprovider", "-k", "not killed and not round_trip"]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    report = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert [name for name in BREACHES if f"FAILED test_breaches.py::Test{name}::" not in report] == [], report
