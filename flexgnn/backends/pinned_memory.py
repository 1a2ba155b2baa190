"""The ``pinned`` tier: memory of the host, page-locked where a GPU copies from it."""

from __future__ import annotations

import torch

from flexgnn.core.blob import Array
from flexgnn.core.free_memory import free_memory_bytes
from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.host_memory_tier import HostMemoryTier
from flexgnn.core.pinned_pages import pinned_pages
from flexgnn.core.tier import TierBackend


class PinnedMemoryBackend(HostMemoryTier):
    """Page-locked RAM of the host: below the memory of a GPU, above the SSD."""

    name = "pinned"
    contract_version = 1

    @classmethod
    def free_bytes(cls) -> int:
        return free_memory_bytes()

    @property
    def notice(self) -> str | None:
        return None if torch.cuda.is_available() else "There is no CUDA device: its memory is not page-locked."

    def new_memory(self, size_bytes: int) -> Array:
        return pinned_pages(size_bytes)


@hookimpl
def flexgnn_list_tier_backends() -> list[type[TierBackend]]:
    """The backend of this module."""
    return [PinnedMemoryBackend]
