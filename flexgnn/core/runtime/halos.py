"""Halos on their way in, and packs on their way out: in parts, through a window of two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future

from torch import Tensor

from flexgnn.core.plan.topology import HaloPass
from flexgnn.core.plan.workload import Pull, Workload

ReadPieces = Callable[[list[tuple[int, Tensor]]], list[Future[None]]]
"""Starts to read the rows that this block needs of owners, each into a tensor."""


class HaloStream:
    """The halo of one block for one pull. Two passes are loaded ahead; each makes room for the one after the next."""

    def __init__(self, workload: Workload, pull: Pull, block: int, window: Tensor, read_pieces: ReadPieces) -> None:
        self._passes = workload.halo_passes(pull, block)
        self._needed = workload.halo_counts(pull).needed[block]
        self._window, self._read_pieces = window, read_pieces
        self._pass_rows = workload.blocks.rows_per_block
        self._missing = {index: [q for q in p.owners if self._needed[q]] for index, p in enumerate(self._passes)}
        self._loads: dict[int, list[Future[None]]] = {index: [] for index in self._missing}

    def start(self, exists: Callable[[int], bool]) -> None:
        """Load what ``exists``, by owner, of the first two passes."""
        for index in range(min(2, len(self._passes))):
            self._load(index, exists)

    def passes(self) -> Iterator[tuple[HaloPass, Tensor]]:
        """Each pass with its rows, once they have arrived. The rows are valid until the next is asked for."""
        self.start(lambda owner: True)
        for index, part in enumerate(self._passes):
            for load in self._loads.pop(index):
                load.result()
            yield part, self._rows(index)
            if index + 2 < len(self._passes):
                self._load(index + 2, lambda owner: True)

    def _rows(self, index: int) -> Tensor:
        part = self._passes[index]
        first = (index % 2) * self._pass_rows
        return self._window[first : first + part.stop - part.start]

    def _load(self, index: int, exists: Callable[[int], bool]) -> None:
        rows, first = self._rows(index), self._passes[index].owners.start
        found = [owner for owner in self._missing[index] if exists(owner)]
        self._missing[index] = [owner for owner in self._missing[index] if owner not in found]
        begins = {owner: int(self._needed[first:owner].sum()) for owner in found}
        pieces = [(owner, rows[begin : begin + int(self._needed[owner])]) for owner, begin in begins.items()]
        self._loads[index] += self._read_pieces(pieces)


class PackStream:
    """The rows that others need of one block, gathered group by group and written while the next is gathered."""

    def __init__(self, window: Tensor, rows_per_group: int, write: Callable[[int, Tensor], Future[None]]) -> None:
        """``write`` starts to write a group, by number."""
        self._window, self._rows_per_group, self._write = window, rows_per_group, write
        self._writes: list[Future[None]] = []

    def send(self, num_rows: int, gather: Callable[[Tensor], None]) -> Future[None]:
        """Have ``gather`` fill ``num_rows`` rows, and start to write them."""
        group = len(self._writes)
        if group >= 2:
            self._writes[group - 2].result()
        first = (group % 2) * self._rows_per_group
        rows = self._window[first : first + num_rows]
        gather(rows)
        self._writes.append(self._write(group, rows))
        return self._writes[-1]
