"""Compiles every kernel for GPUs of two generations, for which none is needed; writes what was made, as JSON.

A program of its own: kernels are either compiled or interpreted in all of a process.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from flexgnn.core.gpu import attention, attention_gradients, dropout, maxima, sums
from flexgnn.core.gpu.edges import NUMBERS
from flexgnn.core.program.attention_kernels import ADDITIVE, DYNAMIC, PRODUCT

FLOATS, INT, LONG, FLOAT = "*fp32", "i32", "i64", "fp32"
REACH = {
    **dict.fromkeys(("local", "hubs", "halo"), FLOATS),
    **dict.fromkeys(("cursor", "next_cursor", "indptr"), "*i64"),
    "indices": "*i32",
    **dict.fromkeys(NUMBERS, INT),
}
OF_ATTENTION = {
    "positions": "*i32",
    "position": INT,
    **dict.fromkeys(("slope", "scale", "kept"), FLOAT),
    "seed": LONG,
    **dict.fromkeys(("site", "threshold"), INT),
}


def kernels() -> list[tuple[Any, dict[str, str], dict[str, Any]]]:
    """Each with the types of its arguments, and constants."""
    vectors = dict.fromkeys(("weights", "loops", "scale", "out"), FLOATS)
    found: list[tuple[Any, dict[str, str], dict[str, Any]]] = [
        (maxima._pull_max, {**REACH, "out": FLOATS, "ties": FLOATS, "width": INT}, {"COLUMNS": 64}),
        (maxima._pull_max_gradient, {**REACH, "value": FLOATS, "out": FLOATS, "width": INT}, {"COLUMNS": 64}),
    ]
    for rows, given in ((FLOATS, True), (FLOATS, False), ("*bf16", True)):
        types = {**REACH, **dict.fromkeys(("local", "hubs", "halo"), rows), **vectors, "width": INT}
        flags = dict.fromkeys(("WEIGHTED", "LOOPED", "SCALED"), given)
        found.append((sums._pull_sum, types, {**flags, "COLUMNS": 128}))
    for score, drops in ((ADDITIVE, True), (DYNAMIC, False), (PRODUCT, False)):
        sizes = {"HEADS": 3, "CHANNELS": 16, "H": 4, "C": 16, "PULLED_WIDTH": 51, "QUERY_WIDTH": 3}
        constants = {"SCORE": score, **sizes, "SELF_LOOPS": drops, "DROPS": drops}
        tensors = dict.fromkeys(("queries", "out", "state"), FLOATS)
        found.append((attention._attend, {**REACH, **OF_ATTENTION, **tensors}, constants))
        widths = {"KEY_WIDTH": 3, "OWN_WIDTH": 51, "OUT_WIDTH": 51}
        tensors = dict.fromkeys(("rows", "queries", "out"), FLOATS)
        for to_source in (True, False):
            of_gradient = {**constants, **widths, "TO_SOURCE": to_source}
            found.append((attention_gradients.pull_gradient, {**REACH, **OF_ATTENTION, **tensors}, of_gradient))
    numbers = {**dict.fromkeys(("first", "stop", "seed"), LONG), "site": INT, "threshold": INT, "scale": FLOAT}
    found.append((dropout._mask, {"values": FLOATS, "out": FLOATS, **numbers}, {"COUNTERS": 512}))
    return found


def compiled(kernel: Any, types: dict[str, str], constants: dict[str, Any], capability: int) -> dict[str, Any]:
    """What became of ``kernel`` on a GPU of ``capability``, as in 90 for 9.0."""
    signature = {name: "constexpr" if name in constants else types[name] for name in kernel.arg_names}
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"enable_fp_fusion": False})
    ptx = made.asm["ptx"]
    atomic = [line.strip() for line in ptx.splitlines() if line.strip().startswith(("atom.", "red."))]
    return {"name": kernel.__name__, "cubin_bytes": len(made.asm["cubin"]), "atomic": atomic}


if __name__ == "__main__":
    json.dump([compiled(*kernel, int(sys.argv[1])) for kernel in kernels()], sys.stdout)
