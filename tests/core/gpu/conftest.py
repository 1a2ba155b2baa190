"""Triton kernels on a GPU where there is one, else in Triton's interpreter, as conftest.py of all tests says.

Either takes time, for compiling or for interpreting, and so there are few examples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from flexgnn.core.gpu.kernels import TritonKernels


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="session")
def triton_kernels() -> TritonKernels:
    pytest.importorskip("triton", reason="there is no Triton for this machine")
    from flexgnn.core.gpu.kernels import TritonKernels

    return TritonKernels()
