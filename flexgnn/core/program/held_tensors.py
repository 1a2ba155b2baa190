"""The tensors that a loss or a decoder refers to, such as class weights: they have to be where it is computed."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

_DEPTH = 8
"""Of objects within objects that are looked into."""


def held_tensors(value: object) -> list[Tensor]:
    """Those that ``value`` refers to, each once.

    Looked for in modules; in functions, their closures and the globals that they name, and arguments given beforehand;
    in attributes of objects that are called; and in lists, tuples and dictionaries of all these.
    """
    found: dict[int, Tensor] = {}
    _collect(value, found, set(), _DEPTH)
    return list(found.values())


def _collect(value: object, found: dict[int, Tensor], seen: set[int], depth: int) -> None:
    if isinstance(value, Tensor):
        found[id(value)] = value
    elif depth > 0 and id(value) not in seen:
        seen.add(id(value))
        for part in _parts(value):
            _collect(part, found, seen, depth - 1)


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, torch.nn.Module):
        return [*value.parameters(), *value.buffers(), *_own_attributes(value)]
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if inspect.ismethod(value):
        return [value.__self__, value.__func__]
    if inspect.isfunction(value):
        return _of_function(value)
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple):
        return value
    return _own_attributes(value) if callable(value) and not isinstance(value, type) else []


def _of_function(function: object) -> Iterable[object]:
    assert inspect.isfunction(function)
    if (function.__module__ or "").partition(".")[0] == "torch":  # what they refer to is not the user's
        return []
    try:
        around = inspect.getclosurevars(function)
    except ValueError:  # something from around it has no value yet
        return []
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [*around.nonlocals.values(), *around.globals.values(), *defaults]


def _own_attributes(value: object) -> Iterable[object]:
    return list(getattr(value, "__dict__", {}).values())
