"""A FlexGNN storage backend of raw files that bypasses the page cache."""

from __future__ import annotations

import sys

from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.tier import TierBackend

if sys.platform != "linux":
    raise ImportError("the direct-io backend needs Linux; choose the arrow backend here")

from flexgnn_direct_io.backend import DirectIOBackend

__all__ = ["DirectIOBackend"]


@hookimpl
def flexgnn_list_tier_backends() -> list[type[TierBackend]]:
    """The backend of this package."""
    return [DirectIOBackend]
