"""Follows a plan, step by step: loads ahead, computes, writes behind. Decides nothing.

Tiles of a step run on a pool of threads, one tile a thread, each with single-threaded products: one pool, so that no
two fight for the cores, and the same bits whatever the number of threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from flexgnn.core.compute import ComputeBackend, Stamp
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plan.decisions import BY_HALOS
from flexgnn.core.plan.plan import Plan
from flexgnn.core.plan.workload import Pull, Step, edge_field, topology_fields
from flexgnn.core.program.criterion import default_loss
from flexgnn.core.program.neighbors import Neighbors
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.runtime.events import Listener, SetupFinished
from flexgnn.core.runtime.memory import Memory, opening_and_closing
from flexgnn.core.runtime.moments import MomentSums
from flexgnn.core.runtime.movement import Movement
from flexgnn.core.runtime.setup import Setup
from flexgnn.core.runtime.step_reports import AskedStep, StepReports
from flexgnn.core.runtime.storage import Storage
from flexgnn.core.runtime.tile_pool import single_threaded_products, tile_pool
from flexgnn.core.runtime.tile_view import StepData
from flexgnn.core.runtime.tiles import TileResult, TileRunner

RowsOf = Callable[[tuple[int, int]], RowContext]
"""From a tile to the rows that it is."""
Work = Callable[[tuple[int, int]], TileResult]
LogitsSink = Callable[[int, Tensor], None]
"""Takes the position of a tile's first row and the logits of its rows (T x C)."""


@dataclass(kw_only=True)
class Totals:
    """Sums over the steps of one pass."""

    counted: Tensor | float = 0.0
    """float64 [4]: as in :class:`TileResult`."""
    moments: MomentSums = field(default_factory=MomentSums)

    @property
    def loss(self) -> float:
        """Of the whole graph."""
        return self._numbers[0]

    @property
    def scores(self) -> list[float]:
        """Of training, validation and test nodes: right decisions, or absolute errors."""
        return self._numbers[1:]

    @property
    def _numbers(self) -> list[float]:
        return self.counted.tolist() if isinstance(self.counted, Tensor) else [self.counted] * 4

    def add(self, result: TileResult) -> None:
        if result.counted is not None:
            self.counted = self.counted + result.counted
        for parameter, gradient in result.gradients:
            if parameter.grad is None:
                parameter.grad = gradient.clone()
            else:
                parameter.grad.add_(gradient)
        self.moments.add(result.moments, result.moment_gradients)


class Executor:
    """One run of one plan. A context manager: leaving it ends all threads and frees the memory."""

    def __init__(
        self,
        plan: Plan,
        store: GraphStore,
        storage: Storage | None,
        backend: ComputeBackend,
        *,
        loss_divisor: float,
        listener: Listener,
    ) -> None:
        self._plan, self._store, self._listener = plan, store, listener
        self.storage = storage
        self._workload = plan.workload
        clock_start = time.perf_counter()
        self._reports = StepReports(listener, clock_start)
        self.memory = Memory(plan, backend)
        self._copies = backend.copies()
        self.movement = Movement(plan, store, storage, self.memory, self._copies, listener, clock_start)
        self._backend, self._kernels = backend, backend.kernels()
        task = store.info.task
        self._runner = TileRunner(plan.workload, plan.problem.loss or default_loss(task), loss_divisor, task)
        self._threads = plan.problem.threads
        self._pool = tile_pool(self._threads)

    def __enter__(self) -> Executor:
        start = time.perf_counter()
        self._backend.finish()  # of what may still work in memory that is now taken anew
        Setup(self._plan, self._store, self.memory, self.storage, self._copies).run()
        self._listener(SetupFinished(seconds=time.perf_counter() - start))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.movement.close()
        self.memory.release()

    def train(self, epoch: int, seed: int) -> Totals:
        """All training steps once. Gradients are added to those of the parameters."""
        return self._pass([s for s in self._workload.steps if s.phase.training], epoch, seed, None)

    def evaluate(self, sink: LogitsSink | None = None) -> Totals:
        """The evaluation steps once; ``sink`` gets every row's logits, in tiles."""
        return self._pass([s for s in self._workload.steps if not s.phase.training], 0, 0, sink)

    @property
    def peak_bytes(self) -> dict[str, int]:
        """The most that each tier held so far."""
        stored = {} if self.storage is None else self.storage.peak_bytes
        return {self.memory.ledger.tier: self.memory.ledger.peak_bytes, **stored}

    def _pass(self, steps: list[Step], epoch: int, seed: int, sink: LogitsSink | None) -> Totals:
        totals = Totals()
        self._backend.finish()  # once a pass, so that times of a long run are told from a moment that is near
        opening, closing = opening_and_closing(self._plan.slots, range(steps[0].index, steps[-1].index + 1))
        with single_threaded_products():
            for step in steps:
                opened = self._backend.stamp()
                for index in opening[step.index]:
                    self.movement.begin(index, step)
                self.movement.fill(step)
                self._run(step, epoch, seed, totals, sink, opened)
                for index in closing[step.index]:
                    self.memory.close(index)
                self.movement.forget(step)
        self._reports.finish()
        return totals

    def _run(self, step: Step, epoch: int, seed: int, totals: Totals, sink: LogitsSink | None, opened: Stamp) -> None:
        """Compute one step, tile by tile, and hand on what it made."""
        phase, block = step.phase, step.block
        self.memory.ledger.take(phase.workspace_bytes, "The workspace of a step")
        data = self._data(step, totals.moments)
        begun = self._backend.stamp()
        first_row = self._workload.blocks.start(block)

        def rows_of(tile: tuple[int, int]) -> RowContext:
            return RowContext(start=first_row + tile[0], seed=seed, epoch=epoch, training=phase.training)

        data = self._pull_all_but_last(data, step, rows_of)
        if not self._workload.program.fused and phase.column_slice is None:
            data = self._pull_last(data, block, rows_of)

        def work(tile: tuple[int, int]) -> TileResult:
            return self._runner.run(data, tile, rows_of(tile))

        # Gradients are added in one order, whatever the blocks are.
        tiles = self._workload.blocks.tiles(block)[:: -1 if phase.descending else 1]
        for tile, result in self._results(step, work, tiles):
            totals.add(result)
            for name, (rows, values) in result.added.items():
                self._kernels.add_rows(self.memory.whole(name), torch.from_numpy(rows), values)
            if sink is not None and result.logits is not None:
                sink(first_row + tile[0], result.logits.cpu())
        self.movement.write_behind(step, self._gather)
        ended, live_bytes = self._backend.stamp(), self.memory.ledger.used_bytes
        self.memory.ledger.give_back(phase.workspace_bytes)
        self._reports.add(
            AskedStep(epoch=epoch, step=step, opened=opened, begun=begun, ended=ended, live_bytes=live_bytes)
        )

    def _results(
        self, step: Step, work: Work, tiles: list[tuple[int, int]]
    ) -> Iterator[tuple[tuple[int, int], TileResult]]:
        """What tiles come to, in their order."""
        # What tiles come to waits for its turn, and takes room meanwhile: on a device, launched tiles run far ahead.
        at_once = self._threads if step.phase.adds_to or self._backend.separate else len(tiles)
        if step.phase.adds_to and step.index == self._workload.first_step(step.phase):
            for name in step.phase.adds_to:
                self.memory.whole(name).zero_()
        for first in range(0, len(tiles), at_once):
            some = tiles[first : first + at_once]
            yield from zip(some, self._pool.map(work, some), strict=True)

    def _data(self, step: Step, sums: MomentSums) -> StepData:
        """The arrays of a step, halos excepted; waits for their loads."""
        phase, block = step.phase, step.block
        names = dict.fromkeys((*phase.reads, *phase.writes))
        pulls = phase.pulled
        return StepData(
            phase=phase,
            kernels=self._kernels,
            device=self._backend.device,
            rows={name: self.memory.rows(name, block) for name in names},
            slices=self._workload.slices,
            moments=sums.tensors(self._workload.program, self._backend.device),
            moment_shares=sums.shares(),
            neighbors={name: self._neighbors(pull, block) for name, pull in pulls.items()},
            partial={
                name: self.memory.exchanged("partial", name, block)
                for name in pulls
                if self.memory.find("partial", name, block) is not None
            },
        )

    def _neighbors(self, pull: Pull, block: int) -> Neighbors:
        packed = self._by_halos(pull)
        topology = [self.memory.rows(name, block) for name in topology_fields(pull, packed)]
        indptr, indices, *rest = topology
        local = self.memory.rows(pull.field, block) if packed else self.memory.whole(pull.field)
        return Neighbors(
            local=local,
            hubs=local[:0] if self.memory.find("hubs", pull.field, -1) is None else self.memory.hubs(pull.field),
            halo=local[:0],
            halo_start=0,
            halo_stop=0,
            cursor=None,
            next_cursor=None,
            last_pass=True,
            indptr=indptr,
            indices=indices,
            weights=rest[0] if pull.weighted else None,
            edge_data={given: self.memory.rows(edge_field(pull, given), block) for given in pull.edge_inputs},
            positions=rest[-1] if pull.positions and packed else indices,
            own=0 if packed else self._workload.blocks.start(block),
        )

    def _by_halos(self, pull: Pull) -> bool:
        return self._plan.decisions.access[pull.field] in BY_HALOS

    def _pull_all_but_last(self, data: StepData, step: Step, rows_of: RowsOf) -> StepData:
        """Make every pass of the step's pulls but the last; return the data of the last."""
        ready = dict(data.neighbors)
        for pull in step.phase.pulled.values():
            if self._by_halos(pull):
                for neighbors in self._passes(pull, step.block, data.neighbors[pull.field]):
                    ready[pull.field] = neighbors
                    if not neighbors.last_pass:
                        self._advance(replace(data, neighbors=ready), pull.field, step.block, rows_of)
        return replace(data, neighbors=ready)

    def _pull_last(self, data: StepData, block: int, rows_of: RowsOf) -> StepData:
        """Make the last pass of all pulls, before any tile is computed."""
        for name in data.neighbors:
            self._advance(data, name, block, rows_of)
        return replace(data, pulled=True)

    def _passes(self, pull: Pull, block: int, neighbors: Neighbors) -> Iterator[Neighbors]:
        cursors: tuple[Tensor | None, ...] = (None, None)
        if self.memory.find("cursor", pull.field, block) is not None:
            cursors = self.memory.exchanged("cursor", pull.field, block).chunk(2)
        last = self._workload.halo_passes(pull, block)[-1]
        for number, (part, halo) in enumerate(self.movement.halo_passes(pull, block)):
            yield replace(
                neighbors,
                halo=halo,
                halo_start=part.start,
                halo_stop=part.stop,
                cursor=cursors[number % 2],
                next_cursor=cursors[1 - number % 2],
                last_pass=part == last,
            )

    def _advance(self, data: StepData, field: str, block: int, rows_of: RowsOf) -> None:
        tiles = self._workload.blocks.tiles(block)
        list(self._pool.map(lambda tile: self._runner.advance(data, field, tile, rows_of(tile)), tiles))

    def _gather(self, rows: Tensor, chosen: Tensor, out: Tensor) -> None:
        """``out = rows[chosen]``, a part for each thread."""
        bounds = np.linspace(0, len(chosen), self._threads + 1).astype(int)

        def gather(part: tuple[int, int]) -> None:
            self._kernels.gather(rows, chosen[slice(*part)], out[slice(*part)])

        list(self._pool.map(gather, pairwise(bounds)))
