"""A compute tier for machines without a GPU: apart from host memory, with throttled copies in and out."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from flexgnn.core.compute import ComputeBackend
from flexgnn.core.copies import Copies, StagedCopies
from flexgnn.core.plan.machines import load_machine, stated_compute
from flexgnn.core.plan.profile import save_profile
from flexgnn.core.program.cpu_kernels import CpuKernels
from flexgnn.core.program.row_kernels import RowKernels

POISON = 0xFF
"""Bytes of memory that nothing was copied to; as float32 they are not a number."""


class StandInBackend(ComputeBackend):
    """Memory that only its own copies reach, and kernels of the caller's choice."""

    name = "stand-in"
    separate = True

    def __init__(
        self,
        *,
        tile_rows: int = 1,
        kernels: Callable[[], RowKernels] = CpuKernels,
        bytes_per_second: float = 2e9,
        free_bytes: int = 2**30,
    ) -> None:
        self.tile_rows = tile_rows  # type: ignore[misc]  # of this one alone
        self._kernels, self._bytes_per_second, self._free_bytes = kernels, bytes_per_second, free_bytes
        self.opened: list[ThrottledCopies] = []

    def free_bytes(self) -> int:
        return self._free_bytes

    def allocate(self, size_bytes: int) -> Tensor:
        return torch.full((size_bytes,), POISON, dtype=torch.uint8)

    def copies(self) -> Copies:
        self.opened.append(ThrottledCopies(self._bytes_per_second))
        return self.opened[-1]

    def kernels(self) -> RowKernels:
        return self._kernels()

    def threads(self) -> int:
        return 1

    def processor(self) -> str:
        return self.name


class _Begun:
    def __init__(self, copy: Future[None]) -> None:
        self._copy = copy

    def synchronize(self) -> None:
        self._copy.result()


class ThrottledCopies(StagedCopies):
    """One engine each way, which takes as long as its speed says, beside the computation."""

    def __init__(self, bytes_per_second: float) -> None:
        super().__init__()
        self._bytes_per_second = bytes_per_second
        self._engines = {way: ThreadPoolExecutor(1) for way in ("in", "out")}
        self._buffers_of_all: list[Tensor] = []
        self.lent = 0
        """Copies from and to memory of a tier, and not through a buffer."""

    @property
    def buffer_bytes(self) -> int:
        """Of all buffers that were asked for."""
        return sum(buffer.nbytes for buffer in self._buffers_of_all)

    def new_buffer(self, size_bytes: int) -> Tensor:
        self._buffers_of_all.append(torch.full((size_bytes,), POISON, dtype=torch.uint8))
        return self._buffers_of_all[-1]

    def begin(self, target: Tensor, source: Tensor) -> _Begun:
        staged = {buffer.untyped_storage().data_ptr() for buffer in self._buffers_of_all}
        places = {target.untyped_storage().data_ptr(), source.untyped_storage().data_ptr()}
        self.lent += not places & staged

        def copy() -> None:
            time.sleep(target.nbytes / self._bytes_per_second)
            target.copy_(source)

        way = "out" if target.untyped_storage().data_ptr() in staged else "in"
        return _Begun(self._engines[way].submit(copy))


def keep_stand_in_profile() -> None:
    """Rates of a stated machine, so that tests need not measure."""
    rates = replace(stated_compute(load_machine("laptop-nvme")), threads=1)
    save_profile(lambda profile: profile.with_compute(rates, StandInBackend.name), StandInBackend.name)
