"""Training a PyG model on a whole graph, in the memory that the user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from flexgnn.core.compute import CPU_TIER, ComputeBackend
from flexgnn.core.errors import ConfigError, GraphError
from flexgnn.core.graph.layout import REGRESSION
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plan.placement import check_wanted
from flexgnn.core.plan.plan import Plan
from flexgnn.core.plan.saved import SavedPlan
from flexgnn.core.plan.stored_types import check_storage_dtype
from flexgnn.core.planner import Planner
from flexgnn.core.plugins import Plugins, load_plugins
from flexgnn.core.program.convolution import Convolution
from flexgnn.core.program.criterion import RowLosses, TrainingLoss, default_loss, user_loss
from flexgnn.core.program.edge_inputs import EdgeInputs
from flexgnn.core.program.held_tensors import held_tensors
from flexgnn.core.program.links import LINK_LOSS, LinkPrediction
from flexgnn.core.program.lower import lower
from flexgnn.core.program.module_outputs import lower_output
from flexgnn.core.program.program import Program
from flexgnn.core.program.rewrites import ALL_REWRITES
from flexgnn.core.runtime.callbacks import CallbackLike, CallbackList
from flexgnn.core.runtime.compilation import telling_of_compilation
from flexgnn.core.runtime.epochs import EpochRunner
from flexgnn.core.runtime.events import EpochRecord, Event, Listener
from flexgnn.core.runtime.executor import Executor
from flexgnn.core.runtime.link_training import links_of
from flexgnn.core.runtime.matmul_precision import check_matmul_precision
from flexgnn.core.runtime.moments import check_rows_for_moments
from flexgnn.core.runtime.plan_making import Network, PlanMaker
from flexgnn.core.runtime.prediction_files import PredictionFile
from flexgnn.core.runtime.predictions import Predictions
from flexgnn.core.runtime.residence import Residents, check_device
from flexgnn.core.runtime.running import Runner
from flexgnn.core.runtime.splits import SplitSizes, count_splits, loss_divisor, some_training_labels
from flexgnn.core.runtime.storage import ConfiguredTier
from flexgnn.core.sizes import parse_size
from flexgnn.core.tier_spec import HOST_TIER, TierSpec, check_no_host_tier, tier_specs

FIXED_MEMORY_BYTES = 96 * 2**20
"""What a run may take beside the budget, whatever the graph: compiled kernels, stacks and allocators of threads, the
optimizer's state, one chunk of the store on its way in, and the plan itself."""


class Trainer:
    """Trains ``model`` on the graph of ``store``: exactly, on all nodes at once, block by block.

    The parameters are the user's own objects: after :meth:`fit`, ``model`` is trained.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        store: GraphStore,
        optimizer: torch.optim.Optimizer,
        *,
        loss: RowLosses | LinkPrediction | None = None,
        device: str | ComputeBackend = "cpu",
        device_memory: str | int | None = None,
        host_memory: str | int | None = None,
        ssd_backend: str = "arrow",
        ssd_path: str | Path | None = None,
        ssd_options: Mapping[str, Any] | None = None,
        tiers: Sequence[TierSpec | str] = (),
        place: Mapping[str, str] | None = None,
        verify: bool = False,
        planner: str | Planner = "greedy",
        plan: str | Path | None = None,
        rewrites: Sequence[str] = ALL_REWRITES,
        storage_dtype: str = "float32",
        matmul_precision: str = "highest",
        seed: int = 0,
        listeners: Sequence[Listener] = (),
    ) -> None:
        """Lower the model and look up everything that was named; nothing is computed or written yet.

        Args:
            model: float32, on the CPU; see ``docs/models.md`` for what can be lowered.
            optimizer: over the parameters of ``model``.
            loss: a loss of ``torch.nn`` or ``torch.nn.functional``, or a function of logits and labels that gives one
                loss a row, of which the mean over the training nodes is taken; see ``docs/training.md``. None: cross
                entropy; binary cross entropy for several classes a node; squared error for regression. For graphs of
                pairs of nodes, :class:`LinkPrediction`, also where it is None.
            device: ``"cpu"``, ``"cuda"``, or a compute backend. The model stays on the CPU but for the time of a fit.
            device_memory: budget of the compute tier, as in ``"512MiB"``; None: what is free.
            host_memory: budget of pinned RAM, a tier above storage; only with devices that have memory of their own, as
                with CUDA. None: three quarters of what is free.
            ssd_backend: name of the storage tier's backend.
            ssd_path: an existing directory to make a scratch directory in; None: the system's temporary directory.
                For a backend that is not on this machine: what it calls a place, such as a URL.
            ssd_options: settings of that backend.
            tiers: several storage tiers instead, as specs or as text (``"fast=arrow:/mnt/nvme,capacity=20GiB"``).
            place: by class of tensors (``activations``, ``gradients``, ``halos``, ``features``, ``topology``) the name
                of the tier that is to hold it; for others the planner chooses.
            verify: whether to check everything that is read back from storage. Damage is reported with tensor, tier
                and file; then everything is prepared anew and the epoch repeated, once.
            planner: name of a planner, or a planner.
            plan: file of a saved plan for :meth:`fit` to follow, in place of what ``planner`` would decide; without
                ``device_memory``, its budget is taken.
            rewrites: which rewrites of the program may be made, by name; see ``docs/architecture.md``.
            storage_dtype: ``"bfloat16"`` to keep the values and gradients that steps leave for each other in half the
                bytes, rounded, wherever they are and in predictions too; computation stays float32.
            matmul_precision: ``"high"`` for products in TF32, on GPUs that have it: faster, with three decimal digits.
            seed: of dropout masks.
            listeners: called with every event of a run.

        Raises:
            LoweringError: if the model can't be run exactly; PluginError, ConfigError: if a setting is not accepted.
        """
        plugins = load_plugins()
        backend = _compute_backend(device, plugins) if isinstance(device, str) else device
        if host_memory is not None and not backend.separate:
            raise ConfigError("A budget of pinned host memory (--host-memory) only makes sense with --device cuda.")
        self.model, self.store = model, store
        self.optimizer = _checked_optimizer(optimizer)
        specs = tier_specs(tiers, ssd_backend=ssd_backend, ssd_path=ssd_path, ssd_options=ssd_options)
        if backend.separate:
            check_no_host_tier(specs)
            specs = [TierSpec(name=HOST_TIER, backend=HOST_TIER, capacity=host_memory), *specs]
        configured = {spec.name: ConfiguredTier.configure(spec, plugins) for spec in specs}
        saved = None if plan is None else SavedPlan.load(plan)
        saved_budget = None if saved is None else saved.budget_bytes
        self.listeners = list(listeners)
        residents = Residents(model=model, optimizer=self.optimizer, tensors=_tensors_of(loss))
        residents.check()
        precision = check_matmul_precision(matmul_precision, backend.device)
        self._runner = Runner(store, backend, configured, residents, matmul_precision=precision, verify=verify)
        maker = PlanMaker(
            store,
            backend,
            configured,
            planner=plugins.planner(planner)() if isinstance(planner, str) else planner,
            saved=saved,
            budget_bytes=saved_budget if device_memory is None else parse_size(device_memory),
            beside_bytes=residents.training_bytes,
            wanted=check_wanted(place or {}, list(configured)),
            storage_dtype=check_storage_dtype(storage_dtype),
            verify=verify,
            listener=self.emit,
        )
        self._rewrites, self._plan_maker, self._edges = rewrites, maker, EdgeInputs.of(store)
        self._links = links_of(loss, store)
        self._check_decoder()
        self._network = Network(self._lowered, rewrites, maker, self.emit)
        if backend.device.type != "cpu":
            check_device(self._program, backend.name)
        self._loss = maker.loss = self._checked_loss(loss)
        check_rows_for_moments(self._program, store.info.num_nodes)
        self.history: list[EpochRecord] = []
        """A record of every epoch; the next one's number, on which dropout masks depend, follows from how many."""
        self._epochs = EpochRunner(self.optimizer, seed)
        self._stopping = False

    @property
    def plan(self) -> Plan:
        """The frozen plan of :meth:`fit`, made on first use.

        Raises:
            BudgetError: if the budget is too small; the message names the smallest that works.
        """
        with telling_of_compilation(self.emit):
            return self._network.training_plan

    @property
    def modules(self) -> torch.nn.ModuleList:
        """All that is trained: the model, and the decoder of a :class:`LinkPrediction` if it is a module."""
        decoder = None if self._links is None else self._links.decoder
        return torch.nn.ModuleList([self.model, *([] if decoder is None else [decoder])])

    @property
    def evaluates_apart(self) -> bool:
        """Whether accuracies come from a pass of their own after the update (with dropout or batch norms).

        Otherwise they come from the training pass, of the parameters before the update.
        """
        return self._program.evaluates_apart

    @cached_property
    def split_sizes(self) -> SplitSizes:
        """How many nodes each split has; counted on first use."""
        return count_splits(self.store)

    def fit(self, epochs: int, *, eval_every: int = 1, callbacks: Sequence[CallbackLike] = ()) -> list[EpochRecord]:
        """Train for ``epochs`` epochs, or until :meth:`stop`; one record each.

        Args:
            epochs: how many more, at least 1.
            eval_every: with dropout or batch norms, accuracies come from an extra pass in evaluation mode, after every
                so many epochs and after the last. Without, the training pass itself gives them, every epoch.
            callbacks: objects of :class:`Callback`, such as :class:`EarlyStopping`, called in this order; or functions
                that are called with this trainer and the record of each epoch.

        Raises:
            BudgetError: if the budget is too small.
            TierError: if a storage tier fails, fills up, or is damaged twice in an epoch.
            TrainingError: if the loss is no longer finite.
                After either the parameters are those of the last update, or what callbacks make of them when the fit
                ends; :attr:`history` tells the finished epochs.
        """
        if epochs < 1 or eval_every < 1:
            raise ConfigError(f"epochs ({epochs}) and eval_every ({eval_every}) must be at least 1.")
        self._runner.check_idle()
        called, done = CallbackList(self, callbacks), len(self.history)
        self._stopping = False

        def train(executor: Executor) -> None:
            for number in range(len(self.history) - done + 1, epochs + 1):
                self._run_epoch(executor, called, evaluating=number % eval_every == 0 or number == epochs)
                if self._stopping:
                    return

        with called.during_fit(), telling_of_compilation(self.emit):
            plan, divisor = self._network.ready_plan(self._runner, training=True), self._loss_divisor
            self._runner.run(plan, train, self.emit, loss_divisor=divisor, epoch=lambda: len(self.history) + 1)
        return self.history[done:]

    def stop(self) -> None:
        """Have :meth:`fit` end after the epoch in work, which is evaluated as it would have been; for callbacks."""
        self._stopping = True

    def emit(self, event: Event) -> None:
        """Tell all listeners of ``event``."""
        for listener in self.listeners:
            listener(event)

    @overload
    def predict(self, to: None = None, *, module: str | None = None, overwrite: bool = False) -> Tensor: ...

    @overload
    def predict(self, to: str | Path, *, module: str | None = None, overwrite: bool = False) -> None: ...

    def predict(
        self, to: str | Path | None = None, *, module: str | None = None, overwrite: bool = False
    ) -> Tensor | None:
        """Logits or embeddings of all nodes (N x D, float32, in the original node order), without dropout.

        Args:
            to: a file to write them to as they are computed: ``.npy``, ``.zarr`` (an array) or ``.parquet`` (columns
                ``node`` and ``values``). It appears when it is complete. None: they are returned.
            module: path of the module of the model whose output is wanted, such as ``"convs.0"``; only what that needs
                is computed. None: the model's output, the logits.
            overwrite: whether an earlier file of predictions at ``to`` may be replaced.

        Raises:
            ConfigError: if ``to`` is there already or can't be written, or the output of ``module`` can't be had.
            BudgetError: if the budget is too small.
            TierError: if a storage tier fails, fills up, or is damaged twice.
        """
        file = None if to is None else PredictionFile.checked(Path(to), overwrite=overwrite)
        network = self._output_network if module is None else self._network_to(module)
        predictions = Predictions(network, self.store, self._runner, self.emit)
        with telling_of_compilation(self.emit):
            if file is None:
                return predictions.tensor()
            predictions.save(file)
            return None

    @property
    def _program(self) -> Program:
        return self._network.program

    # Checks

    def _lowered(self, rewrites: Sequence[str]) -> Program:
        """With the loss over pairs, where there is one."""
        links = None if self._links is None else self._links.convolution
        return self._lowered_to(links, rewrites)

    def _lowered_to(self, links: Convolution | None, rewrites: Sequence[str]) -> Program:
        num_features = self.store.info.num_features
        return lower(self.model, num_features=num_features, edges=self._edges, rewrites=rewrites, links=links)

    @property
    def _output_network(self) -> Network:
        """The network up to the model's own output."""
        if self._links is None:
            return self._network

        def lowered(rewrites: Sequence[str]) -> Program:
            return replace(self._lowered_to(None, rewrites), labelled=False)

        return Network(lowered, self._rewrites, self._plan_maker, self.emit)

    def _network_to(self, module: str) -> Network:
        """The network up to the output of ``module``."""
        num_features = self.store.info.num_features

        def lowered(rewrites: Sequence[str]) -> Program:
            return lower_output(self.model, module, num_features=num_features, edges=self._edges, rewrites=rewrites)

        return Network(lowered, self._rewrites, self._plan_maker, self.emit)

    def _checked_loss(self, loss: RowLosses | LinkPrediction | None) -> TrainingLoss | None:
        """None: the default for the graph's labels."""
        if self._links is not None:
            return LINK_LOSS
        outputs = self._check_outputs()
        assert not isinstance(loss, LinkPrediction), "refused"
        return None if loss is None else user_loss(loss, outputs, some_training_labels(self.store))

    def _check_decoder(self) -> None:
        decoder = None if self._links is None else self._links.decoder
        updated = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
        trained = [] if decoder is None else [p for p in decoder.parameters() if p.requires_grad]
        if any(id(parameter) not in updated for parameter in trained):
            raise ConfigError(
                "The optimizer lacks parameters of the decoder: make it over [*model.parameters(), "
                "*decoder.parameters()], or freeze the decoder."
            )

    def _check_outputs(self) -> int:
        """How many outputs the model has."""
        outputs, info = self._program.widths[self._program.logits], self.store.info
        if outputs < info.num_classes or info.label_columns not in (None, outputs):
            kind = "numbers to predict a node" if info.task == REGRESSION else "classes"
            raise ConfigError(
                f"The model has {outputs} outputs; the graph {info.name!r} has {info.num_classes} {kind}."
            )
        return outputs

    @cached_property
    def _loss_divisor(self) -> float:
        if self._links is not None:
            return self._links.num_pairs
        if self.split_sizes.training == 0:
            raise GraphError("The graph has no training node; set train_mask and import it again.")
        return loss_divisor(self.store, self._loss or default_loss(self.store.info.task))

    # Running

    def _run_epoch(self, executor: Executor, called: CallbackList, *, evaluating: bool) -> None:
        record = self._epochs.run(
            executor,
            self._program,
            self.split_sizes,
            epoch=len(self.history) + 1,
            evaluating=evaluating,
            before_step=called.before_optimizer_step,
        )
        self.history.append(record)
        self.emit(record)
        called.epoch_ended(record)


def _compute_backend(device: str, plugins: Plugins) -> ComputeBackend:
    name = CPU_TIER if device == "cpu" else device
    if name not in plugins.compute_backends() or device == CPU_TIER:
        names = ["cpu", *(known for known in plugins.compute_backends() if known != CPU_TIER)]
        accepted = " and ".join(repr(known) for known in names)
        raise ConfigError(f"The device {device!r} is unknown; {accepted} are accepted.")
    return plugins.compute_backend(name)()


def _tensors_of(loss: object) -> list[Tensor]:
    return held_tensors(loss.decoder if isinstance(loss, LinkPrediction) else loss)


def _checked_optimizer(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError(
            "LBFGS evaluates the loss several times a step, which FlexGNN does not; use Adam, SGD or the like."
        )
    return optimizer
