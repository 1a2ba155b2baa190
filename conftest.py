"""Settings of all tests, those of the plug-ins too."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Tests run side by side: while threads of one wait, they leave the cores to others. Read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

# Without a GPU its kernels run in Triton's interpreter. Read when Triton is first imported, if only by torch-geometric.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from tests.machine import keep_stated_profile


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Data sets are built once, no test waits for a measurement, and rates that were measured here change no test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEXGNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        keep_stated_profile()
        yield
