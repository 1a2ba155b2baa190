"""What runs in another process: a server that forks once a job, so that what takes seconds to import is imported once.

It reads a job a line from its standard input and tells what happens on its standard output, a line of JSON each.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from flexgnn.core.tier import Array, TierBackend, TierOptions

_VERSIONS: list[tuple[str, tuple[int, ...]]] = [
    ("int64", (2048, 512)),
    ("float32", (1500, 3, 256)),
    ("int64", (5000, 512)),
    ("int32", (7,)),
]


def version_array(version: int) -> Array:
    """What is put at that turn: other types, shapes and sizes one after the other, with the turn in every element."""
    dtype, shape = _VERSIONS[version % len(_VERSIONS)]
    return np.full(shape, version, dtype=dtype)


def anonymous_bytes(process: int) -> int:
    """Memory of a process that is no file's; 0 if the process is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0)


def serve() -> None:
    """Do jobs until the standard input ends."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _do(**json.loads(line))
        _, status = os.waitpid(child, 0)
        _tell(ended=os.waitstatus_to_exitcode(status))


def _do(
    job: str, module: str, name: str, options: dict[str, Any], path: list[str], environment: dict[str, str], number: int
) -> NoReturn:
    code = 1
    try:
        sys.path[:] = path
        os.environ.update(environment)
        tier = attrgetter(name)(import_module(module))(TierOptions(**options))
        _tell(process=os.getpid())
        _JOBS[job](tier, number)
        tier.close()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _put_for_ever(tier: TierBackend, first: int) -> None:
    """Replace one blob by ever new versions, and put and delete another."""
    for version in itertools.count(first):
        array = version_array(version)
        tier.put("blob", array)
        _tell(version=version)
        tier.put("passing", array)
        tier.delete("passing")


def _move_a_large_blob(tier: TierBackend, size_bytes: int) -> None:
    """Put and get over one buffer, and tell when each begins, and from how much memory."""
    buffer = np.ones((size_bytes // 512, 128), dtype=np.float32)
    half = len(buffer) // 2

    def read_rows() -> None:
        tier.get_rows("large", half, buffer[:half])
        tier.get_rows("large", 0, buffer[half:])

    small = buffer[: max(1, len(buffer) // 256)]
    tier.put("small", small)
    tier.get("small", small)
    phases: dict[str, Callable[[], None]] = {
        "put": lambda: tier.put("large", buffer),
        "get": lambda: tier.get("large", buffer),
        "get_rows": read_rows,
    }
    for phase, move in phases.items():
        _tell(phase=phase, anonymous_bytes=anonymous_bytes(os.getpid()))
        for _ in range(3):
            move()


def _tell(**what: Any) -> None:
    # A single write of less than PIPE_BUF bytes is never cut: whoever is killed has told a whole line, or nothing.
    os.write(sys.stdout.fileno(), f"{json.dumps(what)}\n".encode())


_JOBS: dict[str, Callable[[TierBackend, int], None]] = {
    "put for ever": _put_for_ever,
    "move a large blob": _move_a_large_blob,
}
