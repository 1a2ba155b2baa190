"""Every installed storage tier beside the library under it used by hand, and beside plain O_DIRECT system calls.

All take turns in every round, in an order by chance and each in a directory of its own, so that the machine's drift
reaches all of them; what is compared is the median over the rounds of the ratio within a round. Writing counts until
the bytes are on the device, reading begins with nothing in the page cache.

    python benchmarks/tiers.py --path /mnt/nvme --output docs/benchmarks/tiers.md
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from by_hand import BY_HAND, ByHand, ObstoreByHand
from reporting import machine, publish

from flexgnn.core.plugins import load_plugins
from flexgnn.core.runtime.calibration import drop_cached_pages
from flexgnn.core.sizes import format_size
from flexgnn.core.tier import Array, TierBackend, TierOptions

BLOCK_BYTES = (2**20, 2**24, 2**26)
WIDTH = 128
OBJECT_STORE = "object-store"
BY_HAND_SUFFIX = " by hand"
SERVE = """
import sys
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
COMPRESSIONS = ({"compression": "none"}, {"compression": "zstd"}, {"compression": "blosc"})


class Tier:
    """A backend in the form in which it is compared."""

    def __init__(self, backend: type[TierBackend], settings: dict[str, str], location: str) -> None:
        self._tier = backend(TierOptions(location=location, settings=settings))
        self.write, self.find, self.read = self._tier.put, self._tier.blob, self._tier.get
        self.flush, self.close = self._tier.flush, self._tier.close


Make = Callable[[str], ByHand]


@dataclass
class Samples:
    """One direction of one contestant, a figure a round."""

    bytes_per_second: list[float] = field(default_factory=list)
    cpu_seconds_per_byte: list[float] = field(default_factory=list)

    def add(self, size_bytes: int, wall: float, processor: float) -> None:
        self.bytes_per_second.append(size_bytes / wall)
        self.cpu_seconds_per_byte.append(processor / size_bytes)

    def ratio(self, other: Samples) -> float:
        """How many times as fast as ``other``: the median over rounds."""
        return statistics.median(a / b for a, b in zip(self.bytes_per_second, other.bytes_per_second, strict=True))


@dataclass
class Contestant:
    """What takes part, and how it did."""

    make: Make
    location: Callable[[], str]
    write: Samples = field(default_factory=Samples)
    read: Samples = field(default_factory=Samples)

    def round(self, block: Array, out: Array, count: int) -> None:
        """Write ``count`` blocks, and read them back: through a tier opened anew, so that nothing is mapped."""
        size_bytes, location = count * block.nbytes, self.location()
        if "://" not in location:
            _touch_memory(Path(location), size_bytes)
        opened = self.make(location)
        with _measured(self.write, size_bytes):
            for number in range(count):
                opened.write(f"block{number}", block)
            opened.flush()
        opened.close()
        opened = self.make(location)
        for number in range(count):
            opened.find(f"block{number}")
        if "://" not in location:
            drop_cached_pages(Path(location))
        with _measured(self.read, size_bytes):
            for number in range(count):
                opened.read(f"block{number}", out)
        opened.close()
        assert np.array_equal(out, block)
        shutil.rmtree(location, ignore_errors=True)


@contextmanager
def _measured(samples: Samples, size_bytes: int) -> Iterator[None]:
    wall, processor = time.perf_counter(), time.process_time()
    yield
    samples.add(size_bytes, time.perf_counter() - wall, time.process_time() - processor)


def contestants(path: Path, endpoint: str | None) -> dict[str, Contestant]:
    """Every tier by its name, and what it is compared with by that name and ``by hand``."""

    def directory() -> str:
        return tempfile.mkdtemp(prefix="tiers-", dir=path)

    def bucket() -> str:
        return f"s3://benchmark/{time.time_ns()}"

    found = {}
    for backend in load_plugins().tier_backends():
        if backend.local:
            found[backend.name] = Contestant(partial(Tier, backend, {}), directory)
            found[backend.name + BY_HAND_SUFFIX] = Contestant(BY_HAND[backend.name], directory)
        elif endpoint is not None:
            found[backend.name] = Contestant(partial(Tier, backend, {"endpoint": endpoint}), bucket)
            found[backend.name + BY_HAND_SUFFIX] = Contestant(partial(ObstoreByHand, endpoint=endpoint), bucket)
    return found


def normal(size_bytes: int) -> Array:
    """Rows of random numbers."""
    return np.random.default_rng(0).standard_normal((size_bytes // 4 // WIDTH, WIDTH), dtype=np.float32)


def run(found: dict[str, Contestant], block: Array, total_bytes: int, rounds: int) -> None:
    """All rounds with one block, in a new order each; the first round is not counted."""
    block_bytes = block.nbytes
    block, out = _page_aligned(block), _page_aligned(np.zeros_like(block))
    chance = random.Random(0)
    for number in range(rounds + 1):
        for name in _order(found, chance):
            count = max(total_bytes // block_bytes, 1)
            found[name].round(block, out, max(count // 16, 1) if name.startswith(OBJECT_STORE) else count)
        if number == 0:
            for contestant in found.values():
                contestant.write, contestant.read = Samples(), Samples()
        print(f"{format_size(block_bytes)}: round {number} of {rounds}", file=sys.stderr)


def _order(found: dict[str, Contestant], chance: random.Random) -> list[str]:
    """The names by chance, but those that are compared with each other one behind the other."""
    tiers = list(dict.fromkeys(name.removesuffix(BY_HAND_SUFFIX) for name in found))
    pairs = [[name for name in (tier, tier + BY_HAND_SUFFIX) if name in found] for tier in tiers]
    chance.shuffle(pairs)
    for pair in pairs:
        chance.shuffle(pair)
    return [name for pair in pairs for name in pair]


def _touch_memory(directory: Path, size_bytes: int) -> None:
    """Fill and free as much page cache as a round takes: the first to use memory pays for getting it from the host."""
    file = directory / "touched"
    with file.open("wb") as stream:
        for _ in range(0, size_bytes, 2**20):
            stream.write(bytes(2**20))
    file.unlink()


def rows(found: dict[str, Contestant], block_bytes: int) -> Iterator[str]:
    """A line of the table for each tier."""
    for name, tier in found.items():
        if name.endswith(BY_HAND_SUFFIX):
            continue
        cells = [format_size(block_bytes), name]
        for direction in ("write", "read"):
            own, hand = getattr(tier, direction), getattr(found[name + BY_HAND_SUFFIX], direction)
            raw = getattr(found["direct-io by hand"], direction)
            cells += [
                f"{statistics.median(own.bytes_per_second) / 1e9:.2f}",
                f"{own.ratio(hand):.2f}",
                "-" if name == OBJECT_STORE else f"{own.ratio(raw):.2f}",
                f"{statistics.median(own.cpu_seconds_per_byte) * 1e9:.2f}",
                f"{statistics.median(hand.cpu_seconds_per_byte) * 1e9:.2f}",
            ]
        yield f"| {' | '.join(cells)} |"


def compression_rows(path: Path, total_bytes: int, rounds: int) -> Iterator[str]:
    """What compressing costs and gains, on random activations and on those behind a ReLU."""
    backend = load_plugins().tier_backend("zarr")
    activations = normal(2**24)
    for content, block in (("normal", activations), ("ReLU of normal", np.maximum(activations, 0))):
        made = {
            settings["compression"]: Contestant(
                partial(Tier, backend, settings), partial(tempfile.mkdtemp, prefix="tiers-", dir=path)
            )
            for settings in COMPRESSIONS
        }
        run(made, block, total_bytes, rounds)
        for name, tier in made.items():
            share = _stored_bytes(backend, {"compression": name}, block, path) / block.nbytes
            cells = [content, name, f"{share:.2f}"]
            for direction in ("write", "read"):
                own = getattr(tier, direction)
                cells += [f"{own.ratio(getattr(made['none'], direction)):.2f}"]
                cells += [f"{statistics.median(own.cpu_seconds_per_byte) * 1e9:.2f}"]
            yield f"| {' | '.join(cells)} |"


def _stored_bytes(backend: type[TierBackend], settings: dict[str, str], block: Array, path: Path) -> int:
    with tempfile.TemporaryDirectory(dir=path) as location:
        backend(TierOptions(location=location, settings=settings)).put("block", block)
        return sum(file.stat().st_size for file in Path(location).rglob("*") if file.is_file())


def _page_aligned(array: Array) -> Array:
    buffer = np.empty(array.nbytes + 4096, dtype=np.uint8)
    start = -buffer.ctypes.data % 4096
    aligned = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    aligned[...] = array
    return aligned


@contextmanager
def object_store() -> Iterator[str | None]:
    """The endpoint of an S3 server on this machine, or None where moto is not installed."""
    try:
        import boto3
        import moto  # noqa: F401
    except ModuleNotFoundError:
        yield None
        return
    os.environ.update(AWS_ACCESS_KEY_ID="somebody", AWS_SECRET_ACCESS_KEY="secret")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", SERVE], text=True, **pipes) as server:
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="benchmark")
        yield endpoint
        server.kill()


LIBRARIES = ("numpy", "pyarrow", "zarr", "lmdb", "obstore")
HEAD = (
    "| block | tier | write GB/s | x by hand | x O_DIRECT | CPU s/GB | by hand | "
    "read GB/s | x by hand | x O_DIRECT | CPU s/GB | by hand |\n" + "|---" * 12 + "|"
)
COMPRESSION_HEAD = (
    "| activations | compression | of the bytes | write, x none | CPU s/GB | read, x none | CPU s/GB |\n"
    + "|---" * 7
    + "|"
)


def main() -> None:
    """Run everything, and print or save Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, default=Path(tempfile.gettempdir()), help="a directory on the disk to use")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--total-mib", type=int, default=512, help="bytes of a round, of each tier and direction")
    parser.add_argument("--output", type=Path, help="a Markdown file")
    options = parser.parse_args()
    total_bytes = options.total_mib * 2**20
    lines = [
        "# Storage tiers beside their libraries used by hand",
        "",
        f"Made by `benchmarks/tiers.py`. {machine(*LIBRARIES).sentence}",
        f"Medians of {options.rounds} rounds of {options.total_mib} MiB in each direction; the object store takes a",
        "sixteenth of that, from a server in Python on the same machine.",
        "",
        "*x by hand*: throughput as a multiple of that of the same library used by hand (`benchmarks/by_hand.py`);",
        "*x O_DIRECT*: of plain O_DIRECT system calls over aligned buffers, which is what `direct-io` is by hand.",
        "",
        HEAD,
    ]
    with object_store() as endpoint:
        for block_bytes in BLOCK_BYTES:
            found = contestants(options.path, endpoint)
            run(found, normal(block_bytes), total_bytes, options.rounds)
            lines += list(rows(found, block_bytes))
    lines += ["", "## Compression (`zarr`, blocks of 16 MiB)", "", COMPRESSION_HEAD]
    lines += list(compression_rows(options.path, total_bytes, options.rounds))
    text = "\n".join(lines) + "\n"
    publish(text, options.output)


if __name__ == "__main__":
    main()
