"""What the memory that steps run in must be able to do: the contract of compute tiers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from flexgnn.core.copies import Copies, DirectCopies
from flexgnn.core.program.cpu_kernels import CpuKernels
from flexgnn.core.program.row_kernels import RowKernels

CPU_TIER = "ram"
"""The compute tier of the device that users call ``cpu``; others are called like their tiers."""

DEVICE_TILE_ROWS = 2**15
"""Rows of a tile on a device that takes some microseconds to begin anything. Sums of width 64 then move 8 MiB."""


class Stamp(Protocol):
    """A moment in what a compute tier does: when it comes to it, which may be later than when it is told."""

    def passed(self) -> bool:
        """Whether it has come."""

    def seconds(self) -> float:
        """When it came, by :func:`time.perf_counter`; waits for it."""


class HostStamp:
    """The moment at which it is made."""

    def __init__(self) -> None:
        self._seconds = time.perf_counter()

    def passed(self) -> bool:
        return True

    def seconds(self) -> float:
        return self._seconds


class ComputeBackend(ABC):
    """The memory in which steps run, and what runs there.

    What a subclass does not say otherwise is as on a CPU: kernels are compiled loops on several threads, and storage
    tiers read straight into the memory.
    """

    name: ClassVar[str]
    """The name of the tier: ``ram``, ``cuda``."""
    device: ClassVar[torch.device] = torch.device("cpu")
    """Of tensors in the memory."""
    separate: ClassVar[bool] = False
    """Whether the memory is apart from that of the host, which then is a tier below it, and has a budget of its own."""
    tile_rows: ClassVar[int] = 1
    """Rows of a tile at least, if the graph has as many: what is computed at once. Otherwise a tile is a chunk."""

    @classmethod
    def obstacle(cls) -> str | None:
        """Why it can't be used on this machine, in a sentence; None if it can."""
        return None

    @abstractmethod
    def free_bytes(self) -> int:
        """Bytes this process could use now without pushing anything out."""

    @abstractmethod
    def allocate(self, size_bytes: int) -> Tensor:
        """A writable buffer of ``size_bytes`` uint8, aligned to 64 bytes, that counts as used once touched."""

    def copies(self) -> Copies:
        """The way in and out."""
        return DirectCopies()

    def kernels(self) -> RowKernels:
        """What aggregates there."""
        return CpuKernels()

    def stamp(self) -> Stamp:
        """The moment at which all that was asked for so far is done."""
        return HostStamp()

    def threads(self) -> int:
        """Tiles that are in work at the same time."""
        return torch.get_num_threads()

    def processor(self) -> str | None:
        """What computes, as measurements of it are told apart; None: the CPU."""
        return None

    def finish(self) -> None:
        """Return once all that was asked for is done."""
        return  # on a CPU, everything is done when it is asked for
