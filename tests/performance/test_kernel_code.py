"""What the compiler makes of kernels: vector instructions, requests for rows, and no calls."""

from __future__ import annotations

import platform
import re
from typing import Any

import numba
import pytest
from numba import boolean, float32, int32, int64, uint32, uint64

from flexgnn.core.program.dropout import draw
from flexgnn.core.program.kernels import pull_max, pull_max_gradient, pull_sum

pytestmark = [
    pytest.mark.performance,
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="instructions of x86-64 are looked for"),
]

ROWS, VECTOR, NODES, POSITIONS = float32[:, ::1], float32[::1], int32[::1], int64[::1]
REACH = (ROWS, ROWS, ROWS, int64, int64, POSITIONS, POSITIONS, boolean, POSITIONS, NODES)

PULLS = [
    pytest.param(pull_sum, (*REACH, VECTOR, VECTOR, VECTOR, int64, int64, ROWS), id="sum"),
    pytest.param(pull_max, (*REACH, int64, ROWS, ROWS), id="max"),
    pytest.param(pull_max_gradient, (*REACH, int64, ROWS, ROWS), id="gradient of max"),
]

FILLING = {"memset", "memcpy", "memmove"}
"""Of the C library: what loops that fill or copy a row may become."""


def instructions(kernel: Any, signature: tuple[Any, ...]) -> list[str]:
    """Instructions of a kernel, compiled anew, without its wrappers for Python and C."""
    options = {name: value for name, value in kernel.targetoptions.items() if name != "nopython"}
    fresh = numba.njit(**options)(kernel.py_func)
    fresh.compile(signature)
    compiled = fresh.overloads[signature]
    name = re.escape(compiled.fndesc.llvm_func_name)
    found = re.search(rf"^{name}:\n(.*?)^\.Lfunc_end", compiled.library.get_asm_str(), re.DOTALL | re.MULTILINE)
    assert found is not None, "the assembly has no such function"
    return re.findall(r"^\t([a-z].*)$", found[1], re.MULTILINE)


def count(pattern: str, code: list[str]) -> int:
    return sum(re.match(pattern, line) is not None for line in code)


@pytest.mark.parametrize(("kernel", "signature"), PULLS)
def test_rows_are_added_and_compared_by_vectors(kernel: Any, signature: tuple[Any, ...]) -> None:
    code = instructions(kernel, signature)
    packed = count(r"v?(fn?madd\d*|add)ps\s", code)
    scalar = count(r"v?(fn?madd\d*|add)ss\s", code)
    # A vector loop is unrolled, and so is the scalar one over the last columns: up to 9 for 4 vector instructions. A
    # loop that has no vectors adds to the scalar ones alone.
    assert packed > 0
    assert 3 * packed >= scalar, (packed, scalar)


@pytest.mark.parametrize(("kernel", "signature"), PULLS)
def test_rows_are_asked_for_ahead(kernel: Any, signature: tuple[Any, ...]) -> None:
    assert count("prefetch", instructions(kernel, signature))


@pytest.mark.parametrize(("kernel", "signature"), PULLS)
def test_pulls_call_nothing(kernel: Any, signature: tuple[Any, ...]) -> None:
    """No checks of bounds, no counting of references, no exceptions."""
    code = instructions(kernel, signature)
    named = {name for line in code for name in re.findall(r"^(?:movabsq\s+\$|callq\s+)([A-Za-z_]\w*)", line)}
    assert named <= FILLING
    assert count("call", code) <= len(named)


def test_random_words_are_drawn_by_vectors() -> None:
    code = instructions(draw, (uint64, int64, uint32, uint32, uint32, uint32, uint32[::1]))
    packed, scalar = count(r"v?pmuludq\s", code), count(r"i?mulq\s", code)
    # The scalar ones are those of the last words; how far both loops are unrolled depends on the processor.
    assert packed > 0
    assert 2 * packed >= scalar, (packed, scalar)
