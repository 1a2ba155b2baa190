"""What a person sees on a terminal: progress, a line an epoch, tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from flexgnn.core.graph.layout import LINKS, REGRESSION
from flexgnn.core.graph.order import NodeOrder
from flexgnn.core.graph.store import GraphInfo
from flexgnn.core.plan.cost import ASSUMED_TIER_RATES, PhaseSeconds
from flexgnn.core.plan.decisions import BY_HALOS, WHOLE_FOR_A_PHASE
from flexgnn.core.plan.placement import stored_parts, tensor_class
from flexgnn.core.plan.plan import Plan, describe, describe_phase
from flexgnn.core.plan.profile import MachineProfile, TierProfile
from flexgnn.core.plan.rates import ComputeRates
from flexgnn.core.plugins import PluginEntry
from flexgnn.core.runtime.compilation import telling_of_compilation
from flexgnn.core.runtime.events import (
    BestWeightsRestored,
    CompilationFinished,
    CompilationStarted,
    DamageFound,
    EpochRecord,
    Event,
    FoldingSkipped,
    FoldingStarted,
    MeasurementStarted,
    ProfileNotSaved,
    RunPlanned,
    ScratchRemoved,
    SetupFinished,
    StepFinished,
    TierOpened,
)
from flexgnn.core.runtime.phase_times import PhaseKey
from flexgnn.core.sizes import format_size


def make_console(*, errors: bool = False) -> Console:
    """A console that neither colours numbers nor wraps lines to a width that a file does not have."""
    return Console(stderr=errors, highlight=False, soft_wrap=True)


@contextmanager
def telling_console() -> Iterator[Console]:
    """A console for a command that computes: it says so where kernels are compiled meanwhile."""
    console = make_console()
    with telling_of_compilation(partial(show_compilation, console)):
        yield console


class RunDisplay:
    """A listener that shows a run: a progress bar over its steps, and a line an epoch.

    Compiling is not shown: it may begin before there is a run, see :func:`telling_console`.
    """

    def __init__(self, console: Console, epochs: int) -> None:
        self._console, self._epochs = console, epochs
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("preparing", total=None)

    def __enter__(self) -> RunDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, MeasurementStarted | ProfileNotSaved):
            show_measurement(self._console, event)
        elif isinstance(event, ScratchRemoved):
            size = format_size(event.size_bytes)
            self._console.print(f"removed {event.path} ({size}): the run that it belonged to had died", style="yellow")
        elif isinstance(event, TierOpened) and event.notice:
            self._console.print(f"tier {event.name}: {event.notice}", style="yellow")
        elif isinstance(event, FoldingStarted):
            size = format_size(event.size_bytes)
            self._console.print(f"folding: {event.name} ({size}) is computed once, kept in {event.location}")
        elif isinstance(event, FoldingSkipped):
            sentence = f"{event.reason} The aggregated features are computed again in every epoch."
            self._console.print(sentence, style="yellow", markup=False)
        elif isinstance(event, DamageFound):
            self._console.print(f"{event.message} Epoch {event.epoch} is repeated.", style="yellow", markup=False)
        elif isinstance(event, RunPlanned):
            self._progress.update(self._task, total=event.num_steps * self._epochs)
        elif isinstance(event, SetupFinished):
            self._begin()
        elif isinstance(event, StepFinished):
            self._progress.advance(self._task)
        elif isinstance(event, EpochRecord):
            self._console.print(epoch_line(event))
        elif isinstance(event, BestWeightsRestored):
            self._console.print(kept_line(event))

    def _begin(self) -> None:
        """Everything that steps read is in place."""
        self._progress.update(self._task, description="training")
        self._console.print("epoch     loss   train    val   test  seconds", style="bold")


def show_measurement(console: Console, event: Event) -> None:
    """Say that something is being measured, or could not be kept; other events are passed over."""
    if isinstance(event, MeasurementStarted):
        console.print(f"measuring {event.subject}, once: a few seconds", markup=False)
    elif isinstance(event, ProfileNotSaved):
        console.print(event.message, style="yellow", markup=False)


def show_compilation(console: Console, event: Event) -> None:
    """Say that kernels are being compiled, or how long that took; other events are passed over."""
    if isinstance(event, CompilationStarted) and event.location is None:
        sentence = "compiling kernels, a few seconds in every run: they can't be kept. FLEXGNN_CACHE names a directory."
        console.print(sentence, style="yellow")
    elif isinstance(event, CompilationStarted):
        console.print("compiling kernels for this processor, once: a few seconds")
    elif isinstance(event, CompilationFinished):
        console.print(f"compiled {event.kernels} kernels in {event.seconds:.1f} s")


def epoch_line(record: EpochRecord) -> str:
    """An epoch in one line, under the heading that :class:`RunDisplay` prints."""
    errors = (record.train_mae, record.val_mae, record.test_mae)
    accuracies = (record.train_accuracy, record.val_accuracy, record.test_accuracy)
    scores = accuracies if errors == (None, None, None) else errors
    shown = " ".join("     -" if score is None else f"{score:6.4f}" for score in scores)
    return f"{record.epoch:5d} {record.loss:8.4f}  {shown} {record.seconds:8.2f}"


def graph_line(info: GraphInfo) -> str:
    """A graph in one line."""
    kind = "undirected" if info.symmetric else "directed"
    labels = f"{info.num_classes} classes"
    if info.task == REGRESSION:
        labels = f"{info.num_classes} number{'s' * (info.num_classes > 1)} to predict"
    elif info.task == LINKS:
        labels = f"{info.num_pairs:,} pairs"
    return (
        f"{info.name}: {info.num_nodes:,} nodes, {info.num_edges:,} directed edges ({kind}), "
        f"{info.num_features} features, {labels}"
    )


def order_line(order: NodeOrder) -> str:
    """The node order of an import in one line, and what it was chosen from."""
    if not order.costs:
        return f"node order: {order.name}"
    before, after = order.costs["given"], order.costs[order.name]
    return (
        f"node order: {order.name}, of {', '.join(order.costs)}; edges between chunks: "
        f"{after.between_chunks:.0%}, {before.between_chunks:.0%} as given; {order.seconds:.1f} s"
    )


def plan_line(plan: Plan) -> str:
    """A plan in one line."""
    spills = format_size(sum(size for name, size in plan.traffic_bytes.items() if name.endswith(" write")))
    dtype = plan.problem.storage_dtype
    return (
        f"plan ({plan.planner}): {plan.num_blocks} block{'s' if plan.num_blocks > 1 else ''}, "
        f"{format_size(plan.projected_peak_bytes)} of {format_size(plan.budget_bytes)} {plan.compute_tier} projected, "
        f"{spills} spilled an epoch" + ("" if dtype == "float32" else f", values and gradients as {dtype}")
    )


def work_line(plan: Plan) -> str:
    """An epoch's work and projected time in one line."""
    flops, touched = plan.workload.flops, plan.workload.touched_bytes
    compute = sum(seconds.compute for seconds in plan.phase_seconds)
    return (
        f"an epoch: {flops / 1e9:,.1f} GFLOP, {format_size(touched)} read and written beside products, "
        f"{plan.projected_epoch_seconds:.2f} s projected, {compute:.2f} s of it computation"
    )


def machine_lines(name: str, profile: MachineProfile) -> str:
    """A machine that is not at hand, and where its figures are from."""
    stated = [f"  {figure}: {source}" for figure, source in profile.sources.items()]
    return "\n".join([f"machine: {name}, {format_size(profile.memory_bytes)} {profile.compute_tier}", *stated])


def plan_tables(plan: Plan) -> list[Table]:
    """A plan in full: the rewrites that it is made after, its phases, and where fields are."""
    rewrites = Table("changed", title="Rewrites", title_justify="left")
    for change in plan.workload.program.rewrites:
        rewrites.add_row(change)
    columns = ("phase", "compute s", "read s", "write s", "in all s", "limited by")
    phases = Table(*columns, title="Projected seconds", title_justify="left")
    rows = zip(plan.workload.phases, plan.projected_phase_seconds, plan.phase_seconds, strict=True)
    for phase, total, seconds in rows:
        spans = (seconds.compute, seconds.slowest("read"), seconds.slowest("write"), total)
        times = (f"{value:.3f}" for value in spans)
        phases.add_row(describe(phase), *times, limiting_channel(seconds))
    fields = Table("field", "size", "where", title="Fields", title_justify="left")
    for name, where in placements(plan).items():
        fields.add_row(name, format_size(plan.workload.fields[name].total_bytes), where)
    return [rewrites, phases, fields, storage_table(plan), traffic_table([plan.traffic_bytes])]


def limiting_channel(seconds: PhaseSeconds) -> str:
    """What a phase waits for: its busiest channel, the processor among them."""
    busy = {"processor": seconds.compute + seconds.handling, **seconds.channels}
    return max(busy, key=lambda channel: busy[channel])


def bound_lines(plan: Plan) -> str:
    """How far a plan is from what no plan can beat."""
    bound, moved = plan.lower_bound, sum(plan.traffic_bytes.values())
    above = plan.overlapped_seconds / bound.seconds - 1 if bound.seconds else 0.0
    return (
        f"with perfect overlap in each phase: {plan.overlapped_seconds:.3f} s, {above:.1%} above the lower bound of "
        f"{bound.seconds:.3f} s\n"
        f"moved across the boundary of {plan.compute_tier}: {format_size(moved)} an epoch; "
        f"no plan moves less than {format_size(bound.moved_bytes)}"
    )


def comparison_table(plans: Mapping[str, tuple[Plan, float]]) -> Table:
    """Plans of several planners for one problem, each with the seconds that it took to make."""
    columns = ("planner", "epoch s", "above bound", "blocks", "peak", "moved", "lookahead", "made in s")
    table = Table(*columns, title="Planners", title_justify="left")
    for name, (plan, seconds) in plans.items():
        bound = plan.lower_bound.seconds
        table.add_row(
            name,
            f"{plan.projected_epoch_seconds:.3f}",
            f"{plan.overlapped_seconds / bound - 1:.1%}" if bound else "-",
            str(plan.num_blocks),
            format_size(plan.projected_peak_bytes),
            format_size(sum(plan.traffic_bytes.values())),
            str(plan.decisions.lookahead),
            f"{seconds:.2f}",
        )
    return table


def phase_times_table(projected: Sequence[tuple[PhaseKey, float]], measured: Mapping[PhaseKey, float]) -> Table:
    """Projected seconds of each phase, beside what was measured."""
    table = Table("phase", "projected s", "measured s", title="Time an epoch", title_justify="left")
    known = [(phase, seconds) for phase, seconds in projected if phase in measured]
    for phase, seconds in known:
        table.add_row(describe_phase(*phase), f"{seconds:.3f}", f"{measured[phase]:.3f}")
    totals = (sum(seconds for _, seconds in known), sum(measured[phase] for phase, _ in known))
    table.add_row("in all", *(f"{seconds:.3f}" for seconds in totals), style="bold")
    return table


def storage_table(plan: Plan) -> Table:
    """What each storage tier will hold, and where its rates are from."""
    table = Table("tier", "holds", "of", "tensors", "rates", title="Storage tiers", title_justify="left")
    for tier in plan.storage_tiers:
        kinds = {
            tensor_class(plan.workload, stored.part)
            for stored in stored_parts(plan.workload, plan.arena.groups)
            if plan.tier_of(stored.part, stored.block) == tier.name
        }
        room = "no limit" if tier.capacity_bytes is None else format_size(tier.capacity_bytes)
        rates = "assumed" if tier.rates == ASSUMED_TIER_RATES else "measured"
        held = format_size(plan.stored_bytes.get(tier.name, 0))
        table.add_row(tier.name, held, room, ", ".join(sorted(kinds)) or "none", rates)
    return table


def placements(plan: Plan) -> dict[str, str]:
    """In words, where each field of the plan is between its uses."""
    places: dict[str, str] = {}
    for name, field in plan.workload.fields.items():
        slots = [slot for slot in plan.slots if slot.field == name]
        if not slots:
            continue
        access = plan.decisions.access.get(name)
        reloaded = {slot.block for slot in slots if slot.role == "own" and slot.loaded and slot.first_step >= 0}
        blocks = plan.num_blocks
        if access in WHOLE_FOR_A_PHASE:
            places[name] = f"spilled, whole in {plan.compute_tier} when pulled"
        elif access in ("resident", "held"):
            places[name] = f"whole in {plan.compute_tier}" + (", spilled when last pulled" if reloaded else "")
        elif not reloaded:
            places[name] = plan.compute_tier
        else:
            below = {"store": "read from the store", "setup": "staged", "step": "spilled"}[field.source.value]
            places[name] = f"{below} for {len(reloaded)} of {blocks} blocks"
        if access in BY_HALOS and blocks > 1:
            places[name] += ", packed halos" if access == "packed" else ", halos of whole blocks"
        hub_bytes = sum(slot.size_bytes for slot in slots if slot.role == "hubs")
        if hub_bytes:
            places[name] += f", {hub_bytes // field.row_bytes} hubs in {plan.compute_tier}"
    for name in sorted(plan.decisions.recomputed.values):
        places[name] = places.get(name, "") + ", recomputed in backward"
    return places


def peak_table(peaks: Mapping[str, int], budgets: Mapping[str, int | None], projected: Mapping[str, int]) -> Table:
    """Peak bytes of each tier beside its budget and projection."""
    table = Table("tier", "peak", "projected", "budget", title="Memory", title_justify="left")
    for tier, peak in peaks.items():
        budget = budgets.get(tier)
        table.add_row(
            tier, format_size(peak), format_size(projected[tier]), "none" if budget is None else format_size(budget)
        )
    return table


def compute_table(rates: ComputeRates) -> Table:
    """What was measured of computation, with the spread of its repeats."""
    title = f"Computation: seconds of one thread while {rates.threads} work"
    table = Table("figure", "at", "median", "first quartile", "third quartile", title=title, title_justify="left")
    for figure in rates.figures:
        values = (f"{value:.2e}" for value in (figure.value, figure.low, figure.high))
        table.add_row(figure.kind, " x ".join(map(str, figure.at)), *values)
    return table


def calibration_table(profiles: Iterable[TierProfile]) -> Table:
    """What was measured of each tier."""
    title = "Storage tiers: GB/s, and processor seconds a GB (CPU)"
    table = Table(
        "tier", "blob", "threads", "write", "read", "CPU write", "CPU read", title=title, title_justify="left"
    )
    for profile in profiles:
        name = ",".join([profile.backend, *(f"{setting}={value}" for setting, value in profile.settings.items())])
        for m in profile.measurements:
            speeds = (m.write_bytes_per_second / 1e9, m.read_bytes_per_second / 1e9)
            cpu = (m.write_cpu_seconds_per_byte * 1e9, m.read_cpu_seconds_per_byte * 1e9)
            figures = (f"{value:.2f}" for value in (*speeds, *cpu))
            table.add_row(name, format_size(m.block_bytes), str(m.threads), *figures)
    return table


def traffic_table(epochs: Sequence[Mapping[str, int]]) -> Table:
    """Bytes moved by channel, an epoch and in all."""
    table = Table("channel", "an epoch", "in all", title="Bytes moved", title_justify="left")
    for channel in epochs[0]:
        total = sum(moved[channel] for moved in epochs)
        table.add_row(channel, format_size(total / len(epochs)), format_size(total))
    return table


def plugin_table(entries: Iterable[PluginEntry]) -> Table:
    """Every backend, planner and data set."""
    table = Table("kind", "name", "package", "version", "usable", "what it is, or why not")
    for entry in entries:
        usable = "yes" if entry.usable else "no"
        table.add_row(
            entry.kind,
            entry.name,
            entry.package,
            entry.version,
            usable,
            entry.summary if entry.usable else str(entry.reason),
        )
    return table


def score_line(history: list[dict[str, Any]]) -> str:
    """The last and the best test accuracy of recorded epochs; for regression, the mean absolute error."""
    regression = any(record.get("train_mae") is not None for record in history)
    name, kind, best_of = ("mean absolute error", "mae", min) if regression else ("accuracy", "accuracy", max)
    test, validation = f"test_{kind}", f"val_{kind}"
    tested = [record for record in history if record[test] is not None]
    if not tested:
        return f"test {name}: the graph has no test nodes"
    line = f"test {name}: {tested[-1][test]:.4f}"
    validated = [record for record in tested if record[validation] is not None]
    if validated:
        best = best_of(validated, key=lambda record: record[validation])
        line += f" (at the best validation {name}, epoch {best['epoch']}: {best[test]:.4f})"
    return line


def kept_line(restored: BestWeightsRestored) -> str:
    """Which weights are kept, and whether the run was stopped for them."""
    kept = f"the model of epoch {restored.epoch} is kept, with the best {restored.monitor}: {restored.score:.4f}"
    return kept if restored.stopped_after is None else f"stopped after epoch {restored.stopped_after}; {kept}"
