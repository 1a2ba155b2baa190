"""Write the profiles of machines that are not at hand into flexgnn/machines: data sheets, times a stated efficiency.

    python scripts/build_machines.py

Nothing here was measured on these machines: plans for them are estimates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import flexgnn
from flexgnn.core.plan.profile import ANY, ComputeProfile, Machine, MachineProfile, Measurement, TierProfile, as_json
from flexgnn.core.plan.rates import ComputeRates, Figure, FigureKind
from flexgnn.core.tier_spec import HOST_TIER

GEMM_EFFICIENCY = {16: 0.25, 64: 0.5, 128: 0.6, 512: 0.7}
"""Of the peak, by the smaller width of a product over a tile of rows."""
STREAM_EFFICIENCY, PULL_EFFICIENCY, STORAGE_EFFICIENCY, LINK_EFFICIENCY = 0.75, 0.5, 0.7, 0.8
CALL_SECONDS = 5e-6
PULL_WIDTHS, PULL_BYTES = (16, 64, 256, 1024), tuple(2**b for b in range(16, 38, 2))
EFFICIENCIES = (
    f"products run at {GEMM_EFFICIENCY[128]:.0%} of the peak at width 128, from {GEMM_EFFICIENCY[16]:.0%} at 16 to "
    f"{GEMM_EFFICIENCY[512]:.0%} at 512; memory at {STREAM_EFFICIENCY:.0%} of its bandwidth in order and "
    f"{PULL_EFFICIENCY:.0%} for rows of neighbours; storage at {STORAGE_EFFICIENCY:.0%} of its bandwidth, and the "
    f"link to a GPU at {LINK_EFFICIENCY:.0%}. "
    "Assumed, not measured on this machine"
)


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What data sheets say, and what is assumed beyond."""

    name: str
    cpu: str
    threads: int
    flops: float
    """A second, of all threads, float32."""
    memory_bytes: int
    memory_rate: float
    """Bytes a second, of all threads."""
    levels: tuple[tuple[int, float], ...]
    """Caches: bytes in reach of a thread, and bytes a second of a thread."""
    edge_seconds: float
    """Of a thread, beside the bytes."""
    call_seconds: float
    draw_seconds: float
    read_rate: float
    write_rate: float
    storage_bytes: int
    cpu_seconds_per_byte: float
    compute_tier: str
    sources: dict[str, str]
    host_memory_bytes: int | None = None
    """Of the host of a GPU."""
    host_rate: float = 0.0
    """Bytes a second each way between that and the GPU."""

    def profile(self) -> MachineProfile:
        """As a profile."""
        machine = Machine(cpu=self.cpu, cores=self.threads, threads=self.threads, torch="", numba="")
        rates = ComputeRates(threads=self.threads, figures=tuple(self._figures()))
        return MachineProfile(
            memory_bytes=self.memory_bytes,
            storage_bytes=self.storage_bytes,
            host_memory_bytes=self.host_memory_bytes,
            compute_tier=self.compute_tier,
            compute=ComputeProfile(machine=machine, measured_at=None, rates=rates),
            tiers=tuple(self._tiers()),
            sources={**self.sources, "efficiency": EFFICIENCIES},
        )

    def _figures(self) -> list[Figure]:
        flop = self.threads / self.flops
        streamed = self.threads / (self.memory_rate * STREAM_EFFICIENCY)
        near = 1 / self.levels[0][1]
        figures = [
            _figure(kind, flop / GEMM_EFFICIENCY[min(k, n)], k, n)
            for kind in ("product", "reduction")
            for k in GEMM_EFFICIENCY
            for n in GEMM_EFFICIENCY
        ]
        figures += [_figure("operator", near, 2**18), _figure("operator", streamed, 2**25)]
        figures += [_figure("pull", self._edge(w, reach), w, reach) for w in PULL_WIDTHS for reach in PULL_BYTES]
        figures += [_figure("row", 2 * self.edge_seconds + 4 * w * near, w) for w in PULL_WIDTHS]
        for kind in ("loss", "losses"):
            figures += [_figure(kind, 20 * self.edge_seconds + 60 * c * near, c) for c in (2, 64, 256)]
        singles: dict[FigureKind, float] = {
            "odd": 1.3,
            "tile": 10 * self.call_seconds,
            "call": self.call_seconds,
            "serial": self.call_seconds,
            "draw": self.draw_seconds,
            "stream": streamed,
            "gather": 2 * self.threads / (self.memory_rate * PULL_EFFICIENCY),
            "remainder": self.edge_seconds / 8,
            "maximum": 5.0,
            "step": 20 * self.call_seconds,
        }
        return figures + [_figure(kind, value) for kind, value in singles.items()]

    def _edge(self, width: int, reach: int) -> float:
        """The mean over rows drawn from ``reach`` bytes: each cache holds its share of them."""
        bounds = np.minimum([0, *(size for size, _ in self.levels), reach], reach)
        rates = [*(rate for _, rate in self.levels), self.memory_rate * PULL_EFFICIENCY / self.threads]
        shares = np.diff(np.maximum.accumulate(bounds)) / reach
        return self.edge_seconds + 4 * width * float(sum(s / r for s, r in zip(shares, rates, strict=True)))

    def _tiers(self) -> Iterator[TierProfile]:
        if self.host_memory_bytes is not None:
            rate = self.host_rate * LINK_EFFICIENCY
            yield self._tier(HOST_TIER, read_rate=rate, write_rate=rate, call_seconds=1e-5)
        read_rate, write_rate = self.read_rate * STORAGE_EFFICIENCY, self.write_rate * STORAGE_EFFICIENCY
        yield self._tier(ANY, read_rate=read_rate, write_rate=write_rate, call_seconds=1e-4)

    def _tier(self, backend: str, *, read_rate: float, write_rate: float, call_seconds: float) -> TierProfile:
        def at(size: int) -> Measurement:
            return Measurement(
                block_bytes=size,
                threads=1,
                write_bytes_per_second=size / (call_seconds + size / write_rate),
                read_bytes_per_second=size / (call_seconds + size / read_rate),
                write_cpu_seconds_per_byte=self.cpu_seconds_per_byte,
                read_cpu_seconds_per_byte=self.cpu_seconds_per_byte,
            )

        measurements = at(2**20), at(2**26)
        return TierProfile(backend=backend, settings={}, place=ANY, measured_at=None, measurements=measurements)


def _figure(kind: FigureKind, value: float, *at: int) -> Figure:
    return Figure(kind=kind, at=at, value=float(f"{value:.3g}"), low=float(f"{value:.3g}"), high=float(f"{value:.3g}"))


OVERHEADS = "calls, steps, dropout and the processor time of storage: as on a machine of the developers. Assumed"
GPU_OVERHEADS = "1 us a kernel; the whole GPU works on one tile at a time. Assumed: nothing was measured on a GPU"

SHEETS = [
    Sheet(
        name="laptop-nvme",
        cpu="AMD Ryzen 7 7840U",
        threads=8,
        flops=8 * 32 * 3.3e9,
        memory_bytes=32 * 2**30,
        memory_rate=120e9,
        levels=((2**19, 60e9), (2**21, 25e9)),
        edge_seconds=5e-9,
        call_seconds=CALL_SECONDS,
        draw_seconds=1e-9,
        read_rate=7.45e9,
        write_rate=6.9e9,
        storage_bytes=10**12,
        cpu_seconds_per_byte=0.3e-9,
        compute_tier="ram",
        sources={
            "compute": "AMD's data sheet of the Ryzen 7 7840U: 8 cores, 3.3 GHz base clock, 8 MiB L2, 16 MiB L3; "
            "32 float32 operations a core and cycle (two 256-bit FMA units)",
            "memory": "128-bit LPDDR5X-7500: 120 GB/s; 32 GiB",
            "storage": "Samsung's data sheet of the 990 PRO, 1 TB: 7.45 GB/s read, 6.9 GB/s written",
            "overheads": OVERHEADS,
        },
    ),
    Sheet(
        name="server-64-nvme",
        cpu="AMD EPYC 9554",
        threads=64,
        flops=64 * 32 * 3.1e9,
        memory_bytes=512 * 2**30,
        memory_rate=460.8e9,
        levels=((2**19, 60e9), (2**22, 25e9)),
        edge_seconds=5e-9,
        call_seconds=CALL_SECONDS,
        draw_seconds=1e-9,
        read_rate=6.8e9,
        write_rate=4.0e9,
        storage_bytes=4 * 10**12,
        cpu_seconds_per_byte=0.3e-9,
        compute_tier="ram",
        sources={
            "compute": "AMD's data sheet of the EPYC 9554: 64 cores, 3.1 GHz base clock, 1 MiB L2 a core, 256 MiB L3; "
            "32 float32 operations a core and cycle (two 256-bit FMA units)",
            "memory": "12 channels of DDR5-4800: 460.8 GB/s; 512 GiB",
            "storage": "Samsung's data sheet of the PM9A3, 3.84 TB: 6.8 GB/s read, 4.0 GB/s written",
            "overheads": OVERHEADS,
        },
    ),
    Sheet(
        name="h100-nvme",
        cpu="NVIDIA H100 SXM 80GB",
        threads=1,
        flops=67e12,
        memory_bytes=80 * 10**9,
        memory_rate=3.35e12,
        levels=((2**25, 5.5e12),),
        edge_seconds=1e-12,
        call_seconds=1e-6,
        draw_seconds=1e-11,
        read_rate=6.8e9,
        write_rate=4.0e9,
        storage_bytes=4 * 10**12,
        cpu_seconds_per_byte=0.0,
        compute_tier="cuda",
        sources={
            "compute": "NVIDIA's data sheet of the H100 SXM: 67 TFLOP/s float32 without tensor cores; 50 MB L2, of "
            "which 32 MiB are taken to be of use at 5.5 TB/s, an estimate",
            "memory": "NVIDIA's data sheet of the H100 SXM: 80 GB at 3.35 TB/s",
            "host": "512 GiB, of which 448 GiB are pinned; PCIe 5.0 x16: 63 GB/s each way",
            "storage": "Samsung's data sheet of the PM9A3, 3.84 TB: 6.8 GB/s read, 4.0 GB/s written",
            "overheads": GPU_OVERHEADS,
        },
        host_memory_bytes=448 * 2**30,
        host_rate=63e9,
    ),
    Sheet(
        name="a5000-nvme",
        cpu="NVIDIA RTX A5000",
        threads=1,
        flops=27.8e12,
        memory_bytes=24 * 10**9,
        memory_rate=768e9,
        levels=((2**22, 1.5e12),),
        edge_seconds=4e-12,
        call_seconds=1e-6,
        draw_seconds=2e-11,
        read_rate=7.45e9,
        write_rate=6.9e9,
        storage_bytes=10**12,
        cpu_seconds_per_byte=0.0,
        compute_tier="cuda",
        sources={
            "compute": "NVIDIA's data sheet of the RTX A5000: 27.8 TFLOP/s float32; 6 MB L2, of which 4 MiB are taken "
            "to be of use at 1.5 TB/s, an estimate",
            "memory": "NVIDIA's data sheet of the RTX A5000: 24 GB at 768 GB/s",
            "host": "128 GiB, of which 96 GiB are pinned; PCIe 4.0 x16: 31.5 GB/s each way",
            "storage": "Samsung's data sheet of the 990 PRO, 1 TB: 7.45 GB/s read, 6.9 GB/s written",
            "overheads": GPU_OVERHEADS,
        },
        host_memory_bytes=96 * 2**30,
        host_rate=31.5e9,
    ),
]


def main() -> None:
    """Write every profile."""
    folder = Path(flexgnn.__file__).parent / "machines"
    folder.mkdir(exist_ok=True)
    for sheet in SHEETS:
        (folder / f"{sheet.name}.json").write_text(as_json(sheet.profile()), encoding="utf-8")


if __name__ == "__main__":
    main()
