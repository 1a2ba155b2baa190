"""How plans of a network are made for the machine at hand, and all that they read brought into the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from flexgnn.core.compute import ComputeBackend
from flexgnn.core.errors import BudgetError, ConfigError, StoreError
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plan.cost import CopySpeeds, Rates, TierRates
from flexgnn.core.plan.plan import Plan, freeze
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.saved import SavedPlan
from flexgnn.core.plan.staging import staging_bytes
from flexgnn.core.planner import Planner
from flexgnn.core.program.criterion import TrainingLoss
from flexgnn.core.program.program import Program
from flexgnn.core.runtime.copy_calibration import measure_copies
from flexgnn.core.runtime.events import FoldingSkipped, Listener
from flexgnn.core.runtime.folding import Folding
from flexgnn.core.runtime.measuring import MachineAtHand
from flexgnn.core.runtime.page_cache import cached_bytes
from flexgnn.core.runtime.running import Runner
from flexgnn.core.runtime.storage import ConfiguredTier
from flexgnn.core.sizes import format_size


class PlanMaker:
    """Makes plans over one graph, for one compute tier and one set of storage tiers."""

    def __init__(
        self,
        store: GraphStore,
        backend: ComputeBackend,
        tiers: Mapping[str, ConfiguredTier],
        *,
        planner: Planner,
        saved: SavedPlan | None,
        budget_bytes: int | None,
        beside_bytes: int,
        wanted: Mapping[str, str],
        storage_dtype: str,
        verify: bool,
        listener: Listener,
    ) -> None:
        """The settings of a trainer.

        Args:
            saved: what to follow in training, in place of ``planner``.
            budget_bytes: of the compute tier; None: what is free.
            beside_bytes: of what is free, left to parameters and the like in a compute tier apart from host memory.
        """
        self.store, self.planner = store, planner
        self._backend, self._tiers = backend, tiers
        self._saved, self._budget_bytes, self._beside_bytes = saved, budget_bytes, beside_bytes
        self._wanted, self._storage_dtype, self._verify = wanted, storage_dtype, verify
        self._listener = listener
        self._staged_bytes = 0
        """Of host memory, for copies."""
        self.loss: TrainingLoss | None = None
        """The user's own, once it is known how many outputs there are."""

    def make(self, program: Program, folding: Folding, *, training: bool) -> Plan:
        """The plan of a training or an evaluation, after that of the aggregations that have to come before it.

        Raises:
            BudgetError: if the budget is too small.
        """
        plan = self._staged(program, folding, training=training, cached=True)
        # A storage tier is only measured where something goes to storage.
        if plan.stored_bytes and self._machine.measure_unknown(self._tiers.values()):
            plan = self._staged(program, folding, training=training, cached=True)
        if sum(plan.stored_bytes.values()) > cached_bytes():
            plan = self._staged(program, folding, training=training, cached=False)
        return plan

    def _staged(self, program: Program, folding: Folding, *, training: bool, cached: bool) -> Plan:
        """A plan that leaves room in host memory for what its copies go through.

        How much that is depends on the plan: another is made where one turns out to need more than was left.
        """
        plan = self._planned(program, folding, training=training, cached=cached)
        lending = () if self._verify else self._host_tiers  # what is verified is copied once more
        while self._backend.separate and staging_bytes(plan, lending) > self._staged_bytes:
            self._staged_bytes = staging_bytes(plan, lending)
            self._check_host_memory()
            plan = self._planned(program, folding, training=training, cached=cached)
        return plan

    def _check_host_memory(self) -> None:
        for name in self._host_tiers:
            limit = self._tiers[name].spec.capacity_bytes
            if limit is not None and limit < self._staged_bytes:
                raise ConfigError(
                    f"Copies to and from the {self._backend.name} tier go through {format_size(self._staged_bytes)} of "
                    f"host memory, and --host-memory is {format_size(limit)}: give that much, or more."
                )

    @property
    def _host_tiers(self) -> list[str]:
        return [name for name, tier in self._tiers.items() if tier.host_memory is not None]

    def _planned(self, program: Program, folding: Folding, *, training: bool, cached: bool) -> Plan:
        problem = self._problem(program, training=training, cached=cached)
        refusals: list[BudgetError] = []
        try:
            folding.prepare(problem)
        except BudgetError as error:
            refusals.append(error)
        try:
            plan = self._decided(problem)
        except BudgetError as error:
            refusals.append(error)
        if refusals:
            raise max(refusals, key=lambda refusal: refusal.smallest_bytes)
        return plan

    def _decided(self, problem: PlanningProblem) -> Plan:
        if self._saved is not None and problem.training:
            return freeze(problem, self._saved.decisions_for(problem), self._saved.planner)
        return freeze(problem, self.planner.decide(problem), self.planner.name)

    def _problem(self, program: Program, *, training: bool, cached: bool) -> PlanningProblem:
        """What is to be planned; ``cached``: for storage that the system keeps in memory as well."""
        machine, threads = self._machine, self._backend.threads()
        return PlanningProblem(
            program=program,
            store=self.store,
            budget_bytes=self._budget_bytes or self._free_bytes,
            compute_tier=self._backend.name,
            storage_tiers=tuple(
                tier.for_planning(machine.profile, self._copy_speeds, staged_bytes=self._staged_bytes, cached=cached)
                for tier in self._tiers.values()
            ),
            wanted=self._wanted,
            storage_dtype=self._storage_dtype,
            loss=self.loss,
            threads=threads,
            least_tile_rows=self._backend.tile_rows,
            training=training,
            evaluation=program.evaluates_apart or not training,
            rates=Rates(compute=machine.compute_rates(self._backend), store=self._store_rates),
        )

    @property
    def _free_bytes(self) -> int:
        return max(1, self._backend.free_bytes() - (self._beside_bytes if self._backend.separate else 0))

    @cached_property
    def _copy_speeds(self) -> CopySpeeds | None:
        return measure_copies(self._backend)

    @property
    def _store_rates(self) -> TierRates:
        rates = self._machine.store_rates(self.store)
        return rates if self._copy_speeds is None else self._copy_speeds.through_host_memory(rates)

    @cached_property
    def _machine(self) -> MachineAtHand:
        return MachineAtHand(self._listener)


class Network:
    """A lowered network and its plans. Where folded aggregations can't be kept, it is lowered again without."""

    program: Program

    def __init__(
        self, lowered: Callable[[Sequence[str]], Program], rewrites: Sequence[str], maker: PlanMaker, listener: Listener
    ) -> None:
        """``lowered``: from the names of rewrites to the program that they give."""
        self._lowered, self._rewrites, self._maker, self._listener = lowered, rewrites, maker, listener
        self._lower(rewrites)
        if (obstacle := self._folding.obstacle()) is not None:
            self._skip_folding(obstacle)

    @cached_property
    def training_plan(self) -> Plan:
        """Made on first use.

        Raises:
            BudgetError: if the budget is too small.
        """
        return self._maker.make(self.program, self._folding, training=True)

    def ready_plan(self, runner: Runner, *, training: bool) -> Plan:
        """A plan, once everything that it reads is in the store: ``runner`` computes what is not.

        Raises:
            BudgetError: if the budget is too small.
        """
        plan = self.training_plan if training else self._maker.make(self.program, self._folding, training=False)
        try:
            self._folding.complete(runner, self._listener)
        except StoreError as error:
            self._skip_folding(str(error))
            return self.ready_plan(runner, training=training)
        return plan

    def _lower(self, rewrites: Sequence[str]) -> None:
        self.program = self._lowered(rewrites)
        self._folding = Folding(self.program, self._maker.store, self._maker.planner)

    def _skip_folding(self, reason: str) -> None:
        """Go on without the rewrite ``fold``."""
        self._listener(FoldingSkipped(reason=reason))
        self._lower([name for name in self._rewrites if name != "fold"])
        self.__dict__.pop("training_plan", None)
