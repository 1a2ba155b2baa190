"""Any rows into any buffer: what is written and read equals a numpy model, whatever is aligned and what is not."""

import mmap
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexgnn.core.tier import TierOptions
from flexgnn_direct_io import DirectIOBackend

MODEL = np.random.default_rng(7).integers(0, 256, 12 << 20, dtype=np.uint8)

shifts = st.one_of(st.sampled_from([0, 512, 1024, 4096]), st.integers(0, 5000))
row_sizes = st.one_of(st.sampled_from([1, 512, 4096, 100_000]), st.integers(1, 9000))


@pytest.fixture(scope="module")
def tier() -> Iterator[DirectIOBackend]:
    with tempfile.TemporaryDirectory() as path:
        yield DirectIOBackend(TierOptions(location=str(Path(path))))


@pytest.fixture(scope="module")
def memory() -> np.ndarray:
    """Memory that begins at a page."""
    return np.frombuffer(mmap.mmap(-1, len(MODEL) + (1 << 14)), dtype=np.uint8)


@st.composite
def requests(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Row bytes, rows of the blob, first row and rows to read."""
    row_bytes = draw(row_sizes)
    rows = draw(st.integers(1, len(MODEL) // row_bytes))
    start = draw(st.integers(0, rows))
    return row_bytes, rows, start, draw(st.integers(0, rows - start))


@settings(max_examples=150, deadline=None)
@given(request=requests(), written_at=shifts, read_at=shifts)
def test_rows_of_any_alignment(
    tier: DirectIOBackend, memory: np.ndarray, request: tuple[int, int, int, int], written_at: int, read_at: int
) -> None:
    row_bytes, rows, start, count = request
    source = memory[written_at : written_at + rows * row_bytes].reshape(rows, row_bytes)
    source[...] = MODEL[: source.size].reshape(source.shape)
    tier.put("a", source)
    around = memory[: read_at + count * row_bytes + 5000]
    around[...] = 0xA5
    out = around[read_at : read_at + count * row_bytes].reshape(count, row_bytes)
    tier.get_rows("a", start, out)
    assert out.tobytes() == MODEL[start * row_bytes : (start + count) * row_bytes].tobytes()
    assert (around[:read_at] == 0xA5).all()
    assert (around[read_at + out.size :] == 0xA5).all()


@pytest.mark.parametrize("shift_bytes", [0, 512, 8])
@pytest.mark.parametrize(
    "size_bytes", [0, 1, 4095, 4096, 4097, (4 << 20) - 4096, (4 << 20) - 1, 4 << 20, (8 << 20) + 1]
)
def test_sizes_around_those_of_blocks_and_buffers(
    tier: DirectIOBackend, memory: np.ndarray, size_bytes: int, shift_bytes: int
) -> None:
    memory[shift_bytes : shift_bytes + size_bytes] = MODEL[:size_bytes]
    tier.put("a", memory[shift_bytes : shift_bytes + size_bytes])
    memory[:] = 0
    tier.get("a", memory[shift_bytes : shift_bytes + size_bytes])
    assert memory[shift_bytes : shift_bytes + size_bytes].tobytes() == MODEL[:size_bytes].tobytes()
