"""What is interpreted elsewhere is taken by the compiler too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.slow), 90])
@pytest.mark.usefixtures("triton_kernels")
def test_kernels_compile_and_add_nothing_atomically(capability, tmp_path):
    command = [sys.executable, str(Path(__file__).with_name("compiling.py")), str(capability)]
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    kernels = json.loads(ended.stdout)
    assert {kernel["name"] for kernel in kernels} == {
        "_pull_sum",
        "_pull_max",
        "_pull_max_gradient",
        "_attend",
        "pull_gradient",
        "_mask",
    }
    for kernel in kernels:
        assert kernel["cubin_bytes"] > 0
        assert kernel["atomic"] == []
