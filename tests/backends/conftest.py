"""What tests of several backends need."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from flexgnn.core.tier import TierBackend
from flexgnn.testing import read_back

_DELAYS_SECONDS = (0.005, 0.011, 0.017, 0.023, 0.031)


@pytest.fixture
def interrupt_puts() -> Iterator[Callable[[TierBackend], Iterator[None]]]:
    """Interrupts puts as Ctrl-C does, at several moments, and checks the blob after each; yields then.

    The blob is of 8 MiB under the key ``blob``, and the only one.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def interrupted(tier: TierBackend) -> Iterator[None]:
        version = 0
        for delay_seconds in _DELAYS_SECONDS:
            signal.setitimer(signal.ITIMER_REAL, delay_seconds)
            try:
                while True:
                    tier.put("blob", np.full((4096, 256), version + 1))
                    version += 1
            except KeyboardInterrupt:
                yield
            if list(tier.keys()):
                out = read_back(tier, "blob", np.zeros((4096, 256), dtype=np.int64))
                assert out.min() == out.max()
                assert out[0, 0] in (version, version + 1)
                version = int(out[0, 0])

    before = signal.signal(signal.SIGALRM, interrupt)
    yield interrupted
    signal.signal(signal.SIGALRM, before)
