"""Running a plan: storage opened, everything prepared, and prepared anew where damage was found."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from flexgnn.core.compute import ComputeBackend
from flexgnn.core.errors import ConfigError, DamagedBlobError
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plan.plan import Plan
from flexgnn.core.runtime.events import DamageFound, Listener, RunPlanned
from flexgnn.core.runtime.executor import Executor
from flexgnn.core.runtime.matmul_precision import products_with
from flexgnn.core.runtime.residence import Residents, full_memory_named
from flexgnn.core.runtime.storage import ConfiguredTier, open_storage
from flexgnn.core.sizes import format_size


class Runner:
    """Runs plans over one graph and its tiers."""

    def __init__(
        self,
        store: GraphStore,
        backend: ComputeBackend,
        tiers: Mapping[str, ConfiguredTier],
        residents: Residents,
        *,
        matmul_precision: str,
        verify: bool,
    ) -> None:
        self._store, self._backend, self._tiers = store, backend, tiers
        self._residents, self._verify = residents, verify
        self._matmul_precision = matmul_precision
        self._busy = False

    def run(
        self,
        plan: Plan,
        work: Callable[[Executor], object],
        listener: Listener,
        *,
        loss_divisor: float = 1,
        epoch: Callable[[], int] = lambda: 1,
    ) -> None:
        """Do ``work``; again, over storage that was filled anew, where damage is found once in an epoch.

        Args:
            loss_divisor: of the loss of the whole graph.
            epoch: the number of the epoch that ``work`` is in.

        Raises:
            ConfigError: within ``work``.
        """
        damaged_in = None
        while True:
            try:
                with self._alone(), self._running(plan, loss_divisor, listener) as executor:
                    work(executor)
                    return
            except DamagedBlobError as error:
                if epoch() == damaged_in:
                    raise
                damaged_in = epoch()
                listener(DamageFound(epoch=damaged_in, message=str(error)))

    def check_idle(self) -> None:
        """Refuse a second arena beside that of a run: the budget is for one.

        Raises:
            ConfigError: while a plan is run.
        """
        if self._busy:
            raise ConfigError(
                "fit() and predict() can't be called while fit() trains, whose memory they would need: call them after "
                "it, or in on_fit_end of a callback."
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.check_idle()
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    @contextmanager
    def _running(self, plan: Plan, loss_divisor: float, listener: Listener) -> Iterator[Executor]:
        _return_freed_memory()
        listener(
            RunPlanned(
                num_blocks=plan.num_blocks,
                num_steps=len(plan.workload.steps),
                compute_tier=plan.compute_tier,
                budget_bytes=plan.budget_bytes,
                projected_peak_bytes=plan.projected_peak_bytes,
            )
        )
        beside = f"beside the plan's {format_size(plan.budget_bytes)}, for parameters and libraries"
        with (
            full_memory_named(self._backend, beside),
            products_with(self._matmul_precision),
            self._residents.on(self._backend, plan.workload.program, training=plan.problem.training),
            open_storage(plan, self._tiers, listener, verify=self._verify) as storage,
            Executor(
                plan,
                self._store,
                storage,
                self._backend,
                loss_divisor=loss_divisor,
                listener=listener,
            ) as executor,
        ):
            yield executor


def _return_freed_memory() -> None:
    """Have the C library give back what it kept when planning and earlier runs freed it: the run counts on that room.

    Measured after folding a graph of 300,000 nodes: 29 MiB.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
