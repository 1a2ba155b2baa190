"""Programs that compute the output of one module of a model: embeddings, rather than logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from flexgnn.core.errors import ConfigError, LoweringError
from flexgnn.core.program.edge_inputs import EdgeInputs
from flexgnn.core.program.lower import lower
from flexgnn.core.program.program import Program
from flexgnn.core.program.trace import calls_of_modules, make_root


def lower_output(
    model: torch.nn.Module, module: str, *, num_features: int, edges: EdgeInputs, rewrites: Sequence[str]
) -> Program:
    """As :func:`~flexgnn.core.program.lower.lower`, to what ``module`` of ``model`` returns and no further.

    Labels are not compared with it.

    Args:
        module: its path in the model, such as ``convs.0``.

    Raises:
        ConfigError: if it is not called exactly once, or returns something else than one float32 row a node; the
            message lists the modules that may be named.
    """
    calls = calls_of_modules(make_root(model, edges))

    def lowered(path: str) -> Program:
        program = lower(model, num_features=num_features, edges=edges, rewrites=rewrites, output=path)
        return replace(program, labelled=False)

    problem = _problem(model, module, calls.get(module, 0))
    if problem is None:
        try:
            return lowered(module)
        except LoweringError:
            problem = "does not return one float32 row a node"
    usable = []
    for path, times in calls.items():
        try:
            if times == 1 and lowered(path):
                usable.append(path)
        except LoweringError:
            continue
    there_are = f"there are: {', '.join(usable)}" if usable else "there is none whose output can be had"
    raise ConfigError(f"The module {module!r} {problem}; {there_are}.")


def _problem(model: torch.nn.Module, module: str, times: int) -> str | None:
    """Why the output of ``module``, which is called so many times, can't be had; None: nothing is known yet."""
    if times > 1:
        return f"is called {times} times in the model's forward, so that it has no one output"
    if times == 0:
        exists = module in dict(model.named_modules())
        return "is not called by itself in the model's forward" if exists else "does not exist in the model"
    return None
