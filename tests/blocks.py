"""Small blocks of a graph, whose neighbours are local rows, hubs and a halo, for tests of kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import Phase, settings
from hypothesis import strategies as st
from torch import Tensor

from flexgnn.core.program.neighbors import Neighbors

Array = npt.NDArray[np.float32]
Cursor = npt.NDArray[np.int64]
Pull = Callable[..., None]
"""Takes neighbours, the first and the last row of a tile, and its part of each result."""
SEEDS = st.integers(0, 999)
BOUNDS = st.lists(st.integers(0, 9), max_size=4)


def few_examples(count: int) -> settings:
    """For kernels that are interpreted or compiled for each example: one that fails is not made smaller."""
    return settings(deadline=None, max_examples=count, phases=(Phase.explicit, Phase.reuse, Phase.generate))


class Block:
    """Rows with sorted edges to 6 local rows, up to 3 hubs, and a halo; the others come among the rows of the halo."""

    def __init__(self, seed: int, width: int = 5, halo_rows: int = 9, most_edges: int = 8) -> None:
        rng = np.random.default_rng(seed)
        num_hubs = seed % 4
        self.local = rng.integers(-3, 4, (6, width)).astype(np.float32)
        self.hubs = rng.integers(-3, 4, (num_hubs, width)).astype(np.float32)
        self.halo = rng.integers(-3, 4, (halo_rows, width)).astype(np.float32)
        hubs, halo = [*range(6, 6 + num_hubs)], [*range(6 + num_hubs, 6 + num_hubs + halo_rows)]
        by_position = [*hubs[:1], *halo[:4], *range(6), *hubs[1:2], *halo[4:7], *hubs[2:], *halo[7:]]
        rows = [sorted(rng.integers(0, len(by_position), rng.integers(0, most_edges + 1))) for _ in range(6)]
        self.neighbors = [[by_position[i] for i in row] for row in rows]
        self.indices = np.array([j for row in self.neighbors for j in row], dtype=np.int32)
        self.indptr = np.cumsum([100, *map(len, self.neighbors)]).astype(np.int64)
        self.weights = rng.random(len(self.indices)).astype(np.float32)
        self.all = np.concatenate([self.local, self.hubs, self.halo])
        self.cursors = np.zeros((2, 6), dtype=np.int64)

    def passes(self, bounds: list[int]) -> Iterator[tuple[Array, int, int, Cursor, Cursor, bool]]:
        """Arguments of each pass over the halo, cut at ``bounds``."""
        cuts = sorted({0, len(self.halo), *(b for b in bounds if 0 < b < len(self.halo))})
        for number, (start, stop) in enumerate(pairwise(cuts)):
            here, following = self.cursors[number % 2], self.cursors[1 - number % 2]
            yield self.halo[start:stop].copy(), start, stop, here, following, stop == len(self.halo)


class RowsToPull:
    """What the last 4 rows of a block pull, in numbers whose sums are rounded; fewer edges than 20 each."""

    own, num_rows = 2, 4

    def __init__(self, seed: int, width: int, dtype: torch.dtype = torch.float32) -> None:
        block, rng = Block(seed, most_edges=19), np.random.default_rng(seed)
        counts = len(block.local), len(block.hubs), len(block.halo)
        drawn = [rng.standard_normal((count, width)).astype(np.float32) for count in counts]
        self.rows = [torch.from_numpy(rows).to(dtype) for rows in drawn]
        self.indptr = torch.from_numpy(block.indptr[self.own :])
        skipped = int(block.indptr[self.own] - block.indptr[0])
        self.indices = torch.from_numpy(block.indices[skipped:])
        self.weights = torch.from_numpy(block.weights[skipped:])

    @property
    def position(self) -> int:
        """Of the first of the rows in the graph; others come as far behind it as their index."""
        return 1000 + self.own

    def passes(self, bounds: list[int], device: str) -> Iterator[Neighbors]:
        """What is at hand in each pass over the halo, cut at ``bounds``."""
        local, hubs, halo = (rows.to(device) for rows in self.rows)
        cuts = sorted({0, len(halo), *(b for b in bounds if 0 < b < len(halo))})
        cursors: list[Tensor | None] = [None, None]
        if len(cuts) > 2:
            cursors = [torch.full((self.num_rows,), -1, device=device) for _ in range(2)]
        indices = self.indices.to(device)
        for number, (start, stop) in enumerate(pairwise(cuts)):
            yield Neighbors(
                local=local,
                hubs=hubs,
                halo=halo[start:stop].clone(),
                halo_start=start,
                halo_stop=stop,
                cursor=cursors[number % 2],
                next_cursor=cursors[1 - number % 2],
                last_pass=stop == len(halo),
                indptr=self.indptr.to(device),
                indices=indices,
                weights=self.weights.to(device),
                edge_data={},
                positions=indices + 1000,
                own=self.own,
            )

    def pull(self, bounds: list[int], device: str, widths: list[int], pull: Pull) -> list[Tensor]:
        """Results (4 x D each) of a pull in two tiles, and in passes; on the CPU."""
        results = [torch.full((self.num_rows, width), torch.nan, device=device) for width in widths]
        for n in self.passes(bounds, device):
            for tile in (slice(0, 3), slice(3, 4)):
                pull(n, tile.start, tile.stop, *(result[tile] for result in results))
        return [result.cpu() for result in results]
