"""The command line: arguments to a config, a call, and what is printed."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flexgnn.calibrating import calibrate_compute, calibrate_tiers
from flexgnn.console import (
    RunDisplay,
    bound_lines,
    calibration_table,
    comparison_table,
    compute_table,
    graph_line,
    machine_lines,
    make_console,
    order_line,
    peak_table,
    phase_times_table,
    plan_line,
    plan_tables,
    plugin_table,
    score_line,
    telling_console,
    traffic_table,
    work_line,
)
from flexgnn.core.errors import ConfigError
from flexgnn.core.plan.machines import load_machine, machine_names
from flexgnn.core.plan.paper import FORM as SIZES_FORM
from flexgnn.core.plan.paper import PaperGraph
from flexgnn.core.plan.profile import save_profile
from flexgnn.core.plugins import load_plugins
from flexgnn.core.runtime.phase_times import PhaseTimes
from flexgnn.core.tier_spec import FORM
from flexgnn.datasets import generate as generate_graph
from flexgnn.exits import exit_codes
from flexgnn.launch import RunConfig, import_file, make_trainer, open_graph, restore_trainer
from flexgnn.options import with_run_options
from flexgnn.planning import compare_planners, plan_for
from flexgnn.prediction_display import PredictionDisplay
from flexgnn.recording import RunDirectory
from flexgnn.report import report as report_run

app = typer.Typer(
    help="Train graph neural networks on whole graphs, exactly, in a memory budget that you name.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Output = Annotated[Path | None, typer.Option(help="New directory for plan, history, events and the trained model.")]


@app.command()
@with_run_options
def run(config: RunConfig, output: Output = None) -> None:
    """Train a model on a graph."""
    with telling_console() as console:
        store = open_graph(config.dataset)
        console.print(graph_line(store.info))
        times = PhaseTimes()
        with RunDisplay(console, config.epochs) as display:
            trainer = make_trainer(config, store, (display, times))
            console.print(plan_line(trainer.plan))
            fit = partial(trainer.fit, config.epochs, eval_every=config.eval_every, callbacks=config.callbacks())
            if output is None:
                fit()
            else:
                with RunDirectory(output, config, trainer.model) as directory:
                    directory.save_plan(trainer.plan)
                    trainer.listeners.append(directory)
                    fit()
        plan, last = trainer.plan, trainer.history[-1]
        console.print(peak_table(last.peak_bytes, plan.capacities, plan.projected_peaks))
        console.print(traffic_table([record.moved_bytes for record in trainer.history]))
        projected = zip(plan.workload.phases, plan.projected_phase_seconds, strict=True)
        table = [((phase.kind, phase.stage, phase.column_slice), seconds) for phase, seconds in projected]
        console.print(phase_times_table(table, times.medians()))
        console.print(score_line([asdict(record) for record in trainer.history]))


@app.command()
@with_run_options
def plan(
    config: RunConfig,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to save to.")] = Path("plan.json"),
    machine: Annotated[
        str | None,
        typer.Option(help=f"A machine that is not at hand: its profile's file, or {', '.join(machine_names())}."),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Put the plans of all planners side by side.")] = False,
    graph_size: Annotated[
        str | None, typer.Option(metavar="SIZES", help=f"A graph that is not at hand, for --machine: {SIZES_FORM}.")
    ] = None,
) -> None:
    """Show what a run would do, and save the plan, without training."""
    with telling_console() as console:
        if machine is None:
            if graph_size is not None:
                raise ConfigError("--graph-size is for planning on paper: name a --machine too.")
            store = open_graph(config.dataset)
            console.print(graph_line(store.info))
            made = make_trainer(config, store, (RunDisplay(console, config.epochs),)).plan
        else:
            profile = load_machine(machine)
            graph = open_graph(config.dataset) if graph_size is None else PaperGraph.parse(graph_size)
            console.print(graph_line(graph.info), machine_lines(machine, profile), sep="\n", markup=False)
            made = plan_for(config, graph, profile)
        console.print(work_line(made))
        console.print(plan_line(made))
        console.print(*plan_tables(made), sep="\n")
        console.print(bound_lines(made))
        if compare:
            console.print(comparison_table(compare_planners(made.problem)))
        made.save(output)
        console.print(f"saved to {output}")


@app.command()
def plugins() -> None:
    """List every backend, planner and data set, and whether it can be used."""
    make_console().print(plugin_table(load_plugins().entries()))


@app.command()
def calibrate(
    tier: Annotated[
        list[str] | None, typer.Option(metavar="TIER", help=f"A tier to measure, {FORM}; repeatable. Without: all.")
    ] = None,
    ssd_path: Annotated[str | None, typer.Option(help="Existing directory to measure in.")] = None,
) -> None:
    """Measure how fast this machine computes, and every storage tier, and keep the rates for planning."""
    with telling_console() as console:
        rates = calibrate_compute(console)
        console.print(compute_table(rates))
        profiles = calibrate_tiers(tier or [], ssd_path, console)
        console.print(calibration_table(profiles))
        path = save_profile(lambda profile: profile.with_compute(rates).with_tiers(profiles))
        console.print(f"saved to {path}")


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A PyG Data object saved with torch.save.")],
    store: Annotated[Path, typer.Argument(help="Where to write the graph store.")],
    order: Annotated[str, typer.Option(help="Node order: auto, clusters, metis, rcm or given.")] = "auto",
    task: Annotated[
        str | None,
        typer.Option(help="What is predicted: multi-class, multi-label, regression or links; else as the graph looks."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Turn a saved PyG graph into a graph store."""
    with telling_console() as console:
        made = import_file(
            source,
            store,
            order=order,
            task=task,
            overwrite=overwrite,
            on_order=lambda chosen: console.print(order_line(chosen)),
        )
        console.print(graph_line(made.info))


@app.command()
def generate(
    store: Annotated[Path, typer.Argument(help="Where to write the graph store.")],
    nodes: Annotated[int, typer.Option(help="Number of nodes.")] = 100_000,
    edges: Annotated[int, typer.Option(help="Number of directed edges, about.")] = 2_000_000,
    features: Annotated[int, typer.Option(help="Features a node.")] = 128,
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 47,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write a graph of communities and power-law hubs."""
    with telling_console() as console:
        made = generate_graph(
            store,
            num_nodes=nodes,
            num_edges=edges,
            num_features=features,
            num_classes=classes,
            seed=seed,
            overwrite=overwrite,
        )
        console.print(graph_line(made.info))


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Output directory of a run.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .npy, .zarr (an array) or .parquet.")
    ] = Path("logits.npy"),
    module: Annotated[
        str | None, typer.Option(metavar="NAME", help="A module of the model whose output is wanted, as in convs.0.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier file of predictions.")] = False,
) -> None:
    """Write the logits of all nodes, or a layer's embeddings, with the model that a run trained."""
    with telling_console() as console, PredictionDisplay(console) as display:
        restore_trainer(run, (display,)).predict(output, module=module, overwrite=overwrite)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Output directory of a run.")]) -> None:
    """Show a recorded run: epochs, memory, traffic, time by phase."""
    make_console().print(report_run(run))


def main() -> None:
    """The console script."""
    console = make_console(errors=True)
    with exit_codes(console):
        for problem in load_plugins().problems:
            console.print(f"warning: {problem}")
        app()
