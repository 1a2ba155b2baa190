"""The ``cuda`` compute tier: memory of an NVIDIA GPU, and how bytes get in and out of it.

Everything is computed on the default stream. Copies are made on streams of the threads that move, one a thread,
each of which waits for events: before a copy for what was launched until it was asked for, and after it for its end,
upon which the thread that computes launches what needs it. Nothing waits for the whole device in an epoch.
"""

from __future__ import annotations

import time
from functools import cached_property
from importlib.util import find_spec
from threading import local

import torch
from torch import Tensor

from flexgnn.core.compute import DEVICE_TILE_ROWS, ComputeBackend, Stamp
from flexgnn.core.copies import Copies, StagedCopies
from flexgnn.core.errors import BudgetError, ConfigError
from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.pinned_pages import pinned_pages
from flexgnn.core.program.row_kernels import RowKernels
from flexgnn.core.sizes import format_size

_KEPT_BYTES = 256 * 2**20
"""Of what is free, left to what CUDA's libraries take in the course of a run: cuBLAS, compiled kernels."""


class CudaMemoryBackend(ComputeBackend):
    """Memory of the first NVIDIA GPU that CUDA shows."""

    name = "cuda"
    device = torch.device("cuda", 0)
    separate = True
    tile_rows = DEVICE_TILE_ROWS

    @classmethod
    def obstacle(cls) -> str | None:
        if not torch.cuda.is_available():
            return "torch finds no CUDA device here: use --device cpu, or install a build of torch with CUDA."
        if find_spec("triton") is None:
            return "its kernels need the package triton: install it, or use --device cpu."
        return None

    def free_bytes(self) -> int:
        free, _ = torch.cuda.mem_get_info()
        reserved = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return max(0, free + reserved - _KEPT_BYTES)

    def allocate(self, size_bytes: int) -> Tensor:
        """One buffer, taken at once.

        Raises:
            BudgetError: if the GPU does not have it.
            ConfigError: if another device, or a stream of the user's, is current: threads would not all work there.
        """
        if torch.cuda.current_device() != 0 or torch.cuda.current_stream() != torch.cuda.default_stream():
            raise ConfigError(
                "Another CUDA device or stream is current than the first and its default, where FlexGNN works. "
                "Choose a GPU with CUDA_VISIBLE_DEVICES, and call it outside of torch.cuda.stream()."
            )
        torch.cuda.empty_cache()  # what torch has kept of earlier work does not fit the buffer
        try:
            return torch.empty(size_bytes, dtype=torch.uint8, device=self.device)
        except torch.OutOfMemoryError as error:
            raise BudgetError(
                f"The GPU does not grant {format_size(size_bytes)}; {format_size(self.free_bytes())} are free: "
                "lower --device-memory."
            ) from error

    def copies(self) -> Copies:
        return _CudaCopies()

    def kernels(self) -> RowKernels:
        # Triton takes seconds to import, and is only there where there is a GPU.
        from flexgnn.core.gpu.kernels import TritonKernels

        return TritonKernels()

    def stamp(self) -> Stamp:
        return _CudaStamp(self._clock)

    @cached_property
    def _clock(self) -> _CudaClock:
        return _CudaClock()

    def threads(self) -> int:
        """One tile is in work: the device makes use of all its processors for it."""
        return 1

    def processor(self) -> str:
        return str(torch.cuda.get_device_name())

    def finish(self) -> None:
        torch.cuda.synchronize()
        self.__dict__.pop("_clock", None)  # a time since then is float32: in hours it would lose its milliseconds


class _CudaClock:
    """A moment that is known by the host's clock and by the device's."""

    def __init__(self) -> None:
        torch.cuda.synchronize()
        self.event, self.seconds = _recorded(timed=True), time.perf_counter()


class _CudaStamp:
    """A moment on the current stream."""

    def __init__(self, clock: _CudaClock) -> None:
        self._clock, self._event = clock, _recorded(timed=True)

    def passed(self) -> bool:
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def seconds(self) -> float:
        self._event.synchronize()
        milliseconds: float = self._clock.event.elapsed_time(self._event)
        return self._clock.seconds + milliseconds / 1000


class _CudaCopies(StagedCopies):
    """Copies by the copy engines of the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self._threads = local()

    def new_buffer(self, size_bytes: int) -> Tensor:
        return torch.from_numpy(pinned_pages(size_bytes))

    def mark(self) -> torch.cuda.Event:
        return _recorded()

    def begin(self, target: Tensor, source: Tensor) -> torch.cuda.Event:
        with torch.cuda.stream(self._stream()):
            target.copy_(source, non_blocking=True)
            return _recorded()

    def _stream(self) -> torch.cuda.Stream:
        """Of this thread."""
        if not hasattr(self._threads, "stream"):
            self._threads.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream: torch.cuda.Stream = self._threads.stream
        return stream


def _recorded(*, timed: bool = False) -> torch.cuda.Event:
    """On the current stream; who waits for it leaves its core to others, unless it is ``timed``."""
    event = torch.cuda.Event(enable_timing=timed, blocking=not timed)  # type: ignore[no-untyped-call]
    event.record()
    return event


@hookimpl
def flexgnn_list_compute_backends() -> list[type[ComputeBackend]]:
    """The backend of this module."""
    return [CudaMemoryBackend]
