"""How exactly matrices are multiplied while a plan runs, whatever the process is set to otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from flexgnn.core.errors import ConfigError

MATMUL_PRECISIONS = ("highest", "high")
"""As :func:`torch.set_float32_matmul_precision` has them: float32, or TF32, which has 10 bits in the place of 23."""


def check_matmul_precision(name: str, device: torch.device) -> str:
    """``name``, if ``device`` can be asked for it.

    Raises:
        ConfigError: otherwise.
    """
    if name not in MATMUL_PRECISIONS:
        raise ConfigError(
            f"The precision {name!r} of products is unknown; {' and '.join(MATMUL_PRECISIONS)} are accepted."
        )
    if name != MATMUL_PRECISIONS[0] and device.type == "cpu":
        raise ConfigError("Products on a CPU are of float32: --matmul-precision high (TF32) is for --device cuda.")
    return name


@contextmanager
def products_with(precision: str) -> Iterator[None]:
    """Meanwhile torch multiplies float32 with ``precision``."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
