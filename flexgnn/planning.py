"""Plans for a machine or a graph that is not at hand, and plans side by side."""

from __future__ import annotations

import time

import torch

from flexgnn.core.compute import CPU_TIER, DEVICE_TILE_ROWS
from flexgnn.core.errors import ConfigError
from flexgnn.core.graph.store import GraphStore
from flexgnn.core.plan.cost import ASSUMED_TIER_RATES, Rates
from flexgnn.core.plan.machines import stated_compute
from flexgnn.core.plan.paper import PaperGraph
from flexgnn.core.plan.placement import StorageTier, check_wanted
from flexgnn.core.plan.plan import Plan, freeze
from flexgnn.core.plan.problem import PlanningProblem
from flexgnn.core.plan.profile import MachineProfile
from flexgnn.core.plan.stored_types import check_storage_dtype
from flexgnn.core.plugins import load_plugins
from flexgnn.core.program.edge_inputs import NO_EDGE_INPUTS, EdgeInputs
from flexgnn.core.program.links import LINK_LOSS
from flexgnn.core.program.lower import lower
from flexgnn.core.program.rewrites import all_but
from flexgnn.core.runtime.link_training import links_of
from flexgnn.core.sizes import parse_size
from flexgnn.core.tier_spec import HOST_TIER, TierSpec, check_no_host_tier, parse_pairs, tier_specs
from flexgnn.launch import RunConfig, configured_model


def plan_for(config: RunConfig, graph: GraphStore | PaperGraph, machine: MachineProfile) -> Plan:
    """What a run of ``config`` would do on ``machine``, with all its memory unless ``config`` names a budget.

    Raises:
        BudgetError: if the budget is too small.
        ConfigError, PluginError: if a setting is not accepted.
    """
    torch.manual_seed(config.seed)
    model = configured_model(config, graph.info)
    info, rewrites = graph.info, all_but(config.no_rewrite or [])
    edges = EdgeInputs.of(graph) if isinstance(graph, GraphStore) else NO_EDGE_INPUTS
    links = links_of(None, graph) if isinstance(graph, GraphStore) else None
    over_pairs = None if links is None else links.convolution
    program = lower(model, num_features=info.num_features, edges=edges, rewrites=rewrites, links=over_pairs)
    specs = tier_specs(
        config.tier or [],
        ssd_backend=config.ssd_backend,
        ssd_path=config.ssd_path,
        ssd_options=parse_pairs(config.ssd_option or []),
    )
    host_tiers = _host_tiers(config, machine)
    if host_tiers:
        check_no_host_tier(specs)
    specs = [*host_tiers, *specs]
    rates = stated_compute(machine)
    problem = PlanningProblem(
        program=program,
        store=graph,
        budget_bytes=machine.memory_bytes if config.device_memory is None else parse_size(config.device_memory),
        compute_tier=machine.compute_tier,
        storage_tiers=tuple(_tier(spec, machine) for spec in specs),
        least_tile_rows=1 if machine.compute_tier == CPU_TIER else DEVICE_TILE_ROWS,
        wanted=check_wanted(parse_pairs(config.place or []), [spec.name for spec in specs]),
        storage_dtype=check_storage_dtype(config.storage_dtype),
        threads=rates.threads,
        training=True,
        evaluation=program.evaluates_apart,
        rates=Rates(compute=rates),
        loss=None if links is None else LINK_LOSS,
    )
    planner = load_plugins().planner(config.planner)()
    return freeze(problem, planner.decide(problem), planner.name)


def compare_planners(problem: PlanningProblem) -> dict[str, tuple[Plan, float]]:
    """By name of every planner that can be used: its plan, and the seconds that it took to decide."""
    plugins = load_plugins()
    found = {}
    for entry in plugins.entries():
        if entry.kind == "planner" and entry.usable:
            planner = plugins.planner(entry.name)()
            began = time.perf_counter()
            decisions = planner.decide(problem)
            found[entry.name] = freeze(problem, decisions, entry.name), time.perf_counter() - began
    return found


def _host_tiers(config: RunConfig, machine: MachineProfile) -> list[TierSpec]:
    """The tier in the memory of the host, where the machine computes in other memory."""
    if machine.compute_tier != CPU_TIER:
        capacity = config.host_memory or machine.host_memory_bytes
        return [TierSpec(name=HOST_TIER, backend=HOST_TIER, capacity=capacity)]
    if config.host_memory is not None:
        raise ConfigError("A budget of host memory (--host-memory) only makes sense with a machine that has a GPU.")
    return []


def _tier(spec: TierSpec, machine: MachineProfile) -> StorageTier:
    rates = machine.find_rates(str(spec.backend), spec.settings)
    return StorageTier(
        name=spec.name,
        capacity_bytes=machine.storage_bytes if spec.capacity_bytes is None else spec.capacity_bytes,
        rates=rates or ASSUMED_TIER_RATES,
        in_host_memory=spec.backend == HOST_TIER,
    )
