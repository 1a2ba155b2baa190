"""How the command line ends: exit codes, and one sentence on what went wrong."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from flexgnn.core.errors import FlexGNNError

INTERRUPTED = 128 + signal.SIGINT


@contextmanager
def exit_codes(console: Console) -> Iterator[None]:
    """Turn deliberate errors and interruptions into a line on ``console`` and an exit code.

    A request to terminate unwinds as an interruption does, so that scratch files are removed.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except FlexGNNError as error:
        console.print(f"error: {error}", *_notes(error), sep="\n", markup=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as interrupt:
        console.print("interrupted", *_notes(interrupt), sep="\n", markup=False)
        sys.exit(INTERRUPTED)


def _notes(error: BaseException) -> list[str]:
    """What was added to ``error`` on its way out."""
    return getattr(error, "__notes__", [])


def _terminate(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
