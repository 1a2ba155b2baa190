"""The options that ``flexgnn run`` and ``flexgnn plan`` share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

from typer import Option

from flexgnn.core.plan.placement import TENSOR_CLASSES
from flexgnn.core.plan.stored_types import STORAGE_DTYPES
from flexgnn.core.program.rewrites import ALL_REWRITES
from flexgnn.core.runtime.matmul_precision import MATMUL_PRECISIONS
from flexgnn.core.tier_spec import DEFAULT_BACKEND, FORM
from flexgnn.launch import RunConfig
from flexgnn.models import MODELS, NORMS


def run_config(
    *,
    dataset: Annotated[str, Option(help="Name of a data set, or path of a graph store.")] = "wordnet",
    model: Annotated[str, Option(help=f"{', '.join(MODELS)}.")] = "gcn",
    layers: Annotated[int, Option(help="Layers of the model.")] = 3,
    hidden: Annotated[int, Option(help="Width of hidden layers.")] = 128,
    dropout: Annotated[float, Option(help="Share of hidden values dropped in training.")] = 0.3,
    norm: Annotated[
        str | None, Option(help=f"Norm after each hidden layer: {', '.join(NORMS)}. Without: none.")
    ] = None,
    heads: Annotated[int, Option(help="Heads of attention that share a layer's width (gat, gatv2).")] = 4,
    learning_rate: Annotated[float, Option("--lr", help="Learning rate of Adam.")] = 0.01,
    epochs: Annotated[int, Option(help="Epochs to train.")] = 30,
    eval_every: Annotated[int, Option(help="With dropout or batch norms: epochs from one evaluation to the next.")] = 1,
    patience: Annotated[
        int | None,
        Option(
            metavar="N",
            help="Stop once N evaluations in a row bring no better validation score; the best weights are kept.",
        ),
    ] = None,
    planner: Annotated[str, Option(help="Name of a planner.")] = "greedy",
    storage_dtype: Annotated[
        str,
        Option(help=f"{' or '.join(STORAGE_DTYPES)}, of values and gradients: half the bytes, rounded."),
    ] = STORAGE_DTYPES[0],
    matmul_precision: Annotated[
        str, Option(help=f"{' or '.join(MATMUL_PRECISIONS)}, of products: high is TF32, on GPUs that have it.")
    ] = MATMUL_PRECISIONS[0],
    no_rewrite: Annotated[
        list[str] | None,
        Option(metavar="NAME", help=f"Leave out one of the rewrites {', '.join(ALL_REWRITES)}; repeatable."),
    ] = None,
    plan: Annotated[str | None, Option(metavar="FILE", help="A saved plan to follow, instead of a planner's.")] = None,
    ssd_backend: Annotated[str, Option(help="Name of a storage backend.")] = DEFAULT_BACKEND,
    ssd_path: Annotated[
        str | None, Option(help="Existing directory for scratch files, removed afterwards (or a backend's URL).")
    ] = None,
    ssd_option: Annotated[
        list[str] | None, Option(metavar="NAME=VALUE", help="A setting of the storage backend; repeatable.")
    ] = None,
    tier: Annotated[
        list[str] | None, Option(metavar="TIER", help=f"A storage tier, {FORM}; repeatable, instead of --ssd-backend.")
    ] = None,
    place: Annotated[
        list[str] | None,
        Option(
            metavar="TENSORS=TIER",
            help=f"Put {', '.join(TENSOR_CLASSES)} on a tier; repeatable. Without: the planner's choice.",
        ),
    ] = None,
    verify: Annotated[bool, Option("--verify", help="Check all that is read back from storage.")] = False,
    device: Annotated[str, Option(help="cpu, or cuda for an NVIDIA GPU.")] = "cpu",
    device_memory: Annotated[
        str | None, Option(help="Budget of the compute tier, as in 512MiB. Without: what is free.")
    ] = None,
    host_memory: Annotated[
        str | None,
        Option(help="Budget of pinned RAM, between a GPU's memory and storage. Without: 3/4 of what is free."),
    ] = None,
    seed: Annotated[int, Option(help="Of initial parameters and dropout.")] = 0,
) -> RunConfig:
    """A checked config; parameters are the options."""
    return RunConfig(**locals())


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command(config, **more)`` the options of :func:`run_config` in place of ``config``."""
    shared = inspect.signature(run_config, eval_str=True).parameters
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "config"]

    @functools.wraps(command)
    def wrapper(**options: Any) -> None:
        config = run_config(**{name: options.pop(name) for name in shared})
        command(config, **options)

    parameters = [*shared.values(), *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own)]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    hints = get_type_hints(run_config, include_extras=True) | get_type_hints(command, include_extras=True)
    wrapper.__annotations__ = {p.name: hints[p.name] for p in parameters}
    return wrapper
