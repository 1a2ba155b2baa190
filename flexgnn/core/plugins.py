"""Find, check and look up the plug-ins, FlexGNN's own and third parties' alike.

Each plug-in is loaded and asked by itself, so that one that is broken is told of and the others go on.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, entry_points
from types import ModuleType
from typing import Any, cast

import pluggy

from flexgnn.core import hookspecs
from flexgnn.core.compute import ComputeBackend
from flexgnn.core.errors import PluginError
from flexgnn.core.graph.dataset import Dataset
from flexgnn.core.planner import Planner
from flexgnn.core.tier import CONTRACT_VERSION, TierBackend


@dataclass(frozen=True)
class _Kind:
    """What one hook lists."""

    word: str
    hook: str
    contract: type


_TIER_BACKEND = _Kind("SSD backend", "flexgnn_list_tier_backends", TierBackend)
_COMPUTE_BACKEND = _Kind("compute backend", "flexgnn_list_compute_backends", ComputeBackend)
_PLANNER = _Kind("planner", "flexgnn_list_planners", Planner)
_DATASET = _Kind("data set", "flexgnn_list_datasets", Dataset)
_KINDS = (_TIER_BACKEND, _COMPUTE_BACKEND, _PLANNER, _DATASET)
_PLUGIN = "plug-in"
"""The kind of an entry that failed before it could say what it brings."""

_OPTIONAL_REQUIREMENT = re.compile(r"""([A-Za-z0-9._-]+).*;.*\bextra\s*==\s*["']([^"']+)["']""")


@dataclass(frozen=True, kw_only=True)
class PluginEntry:
    """One thing that a plug-in brings, or a plug-in that could not be asked what it brings."""

    kind: str
    """``SSD backend``, ``compute backend``, ``planner``, ``data set``; ``plug-in`` if it failed to load."""
    name: str
    package: str
    version: str
    reason: str | None = None
    """Why it can't be used; None if it can."""
    faulty: bool = True
    """Whether that is a fault of the plug-in, and not of a machine that lacks what it is for."""
    summary: str = ""

    @property
    def usable(self) -> bool:
        """Whether a run can use it."""
        return self.reason is None


class Plugins:
    """All plug-ins of this environment, by kind and name. :func:`load_plugins` makes it."""

    def __init__(self, found: Iterable[tuple[PluginEntry, object]]) -> None:
        self._entries: list[PluginEntry] = []
        self._usable: dict[tuple[str, str], object] = {}
        self._package: dict[tuple[str, str], str] = {}
        for entry, thing in found:
            self._add(entry, thing)

    def tier_backend(self, name: str) -> type[TierBackend]:
        """The storage backend of that name, else :class:`PluginError`."""
        return cast(type[TierBackend], self._look_up(_TIER_BACKEND, name))

    def tier_backends(self) -> list[type[TierBackend]]:
        """Every storage backend that can be used."""
        return [cast(type[TierBackend], t) for (word, _), t in self._usable.items() if word == _TIER_BACKEND.word]

    def compute_backend(self, name: str) -> type[ComputeBackend]:
        """The compute backend of that name, else :class:`PluginError`."""
        return cast(type[ComputeBackend], self._look_up(_COMPUTE_BACKEND, name))

    def compute_backends(self) -> list[str]:
        """The names of all compute backends, those that this machine lacks the device for among them."""
        return [entry.name for entry in self._entries if entry.kind == _COMPUTE_BACKEND.word]

    def planner(self, name: str) -> type[Planner]:
        """The planner of that name, else :class:`PluginError`."""
        return cast(type[Planner], self._look_up(_PLANNER, name))

    def dataset(self, name: str) -> Dataset:
        """The data set of that name, else :class:`PluginError`."""
        return cast(Dataset, self._look_up(_DATASET, name))

    def entries(self) -> list[PluginEntry]:
        """Everything found, usable or not, FlexGNN's own first."""
        return list(self._entries)

    @property
    def problems(self) -> list[str]:
        """One line for each entry that can't be used."""
        return [
            f"The {e.kind} {e.name!r} of {e.package} {e.version} can't be used: {e.reason}"
            for e in self._entries
            if e.reason is not None and e.faulty
        ]

    def _add(self, entry: PluginEntry, thing: object) -> None:
        key = (entry.kind, entry.name)
        if entry.usable and key in self._usable:
            taken = f"{self._package[key]} brings one of that name already."
            entry = PluginEntry(
                kind=entry.kind, name=entry.name, package=entry.package, version=entry.version, reason=taken
            )
        elif entry.usable:
            self._usable[key] = thing
            self._package[key] = entry.package
        self._entries.append(entry)

    def _look_up(self, kind: _Kind, name: str) -> object:
        if (kind.word, name) in self._usable:
            return self._usable[kind.word, name]
        for entry in self._entries:
            if entry.name == name and entry.kind in (kind.word, _PLUGIN):
                raise PluginError(f"The {entry.kind} {name!r} of {entry.package} can't be used: {entry.reason}")
        names = sorted(known for word, known in self._usable if word == kind.word)
        if not names:
            raise PluginError(
                f"There is no {kind.word} {name!r} and no other: `flexgnn plugins` says what failed to load."
            )
        close = difflib.get_close_matches(name, names, n=1)
        guess = f" Did you mean {close[0]!r}?" if close else ""
        raise PluginError(f"There is no {kind.word} {name!r}.{guess} There are: {', '.join(names)}.")


@functools.cache
def load_plugins() -> Plugins:
    """Load every plug-in once; raises nothing, whatever a plug-in does: see :attr:`Plugins.problems`."""
    registered = [(e, e.dist) for e in entry_points(group=hookspecs.PROJECT)]
    in_order = sorted(
        ((e, dist) for e, dist in registered if dist is not None),
        key=lambda pair: (_package(pair[1]) != hookspecs.PROJECT, _package(pair[1]).lower(), pair[0].name),
    )
    return Plugins(found for entry_point, dist in in_order for found in _load(entry_point, dist))


def _load(entry_point: EntryPoint, distribution: Distribution) -> list[tuple[PluginEntry, object]]:
    """What the plug-in brings, each with its entry; or one entry that says why it failed."""
    describe = functools.partial(PluginEntry, package=_package(distribution), version=_version(distribution))
    try:
        listed = list(_ask(entry_point.load()))
        return [(_described(kind, thing, describe), thing) for kind, thing in listed]
    except (Exception, SystemExit) as error:
        return [(describe(kind=_PLUGIN, name=entry_point.name, reason=_why(error, entry_point, distribution)), None)]


def _described(kind: _Kind, thing: Any, describe: Callable[..., PluginEntry]) -> PluginEntry:
    fault = _fault(kind, thing)
    lacking = thing.obstacle() if fault is None and kind is _COMPUTE_BACKEND else None
    return describe(
        kind=kind.word,
        name=_name(thing),
        reason=fault or lacking,
        faulty=fault is not None,
        summary=_summary(thing),
    )


def _ask(module: ModuleType) -> Iterator[tuple[_Kind, Any]]:
    """Call the module's hooks through a plug-in manager of its own, which leaves nothing behind if it fails."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    _reject_unknown_hooks(manager, module)
    manager.register(module)
    for kind in _KINDS:
        for things in getattr(manager.hook, kind.hook)():
            for thing in things:
                yield kind, thing


def _reject_unknown_hooks(manager: pluggy.PluginManager, module: ModuleType) -> None:
    """Refuse what pluggy would skip in silence: a misspelt hook, or one that lacks its mark."""
    hooks = [kind.hook for kind in _KINDS]
    for name in dir(module):
        marked = manager.parse_hookimpl_opts(module, name) is not None
        meant = name.startswith(f"{hookspecs.PROJECT}_") and inspect.isroutine(getattr(module, name))
        if name in hooks and meant and not marked:
            raise PluginError(f"its {name} is not marked with flexgnn.hookimpl.")
        if name not in hooks and (meant or marked):
            raise PluginError(f"it has an unknown hook {name!r}; the hooks are {', '.join(hooks)}.")


def _fault(kind: _Kind, thing: Any) -> str | None:
    """Why ``thing`` does not meet its contract; None if it does."""
    wanted = kind.contract.__name__
    if kind is _DATASET:
        return None if isinstance(thing, Dataset) else f"it is no {wanted}."
    if not (isinstance(thing, type) and issubclass(thing, kind.contract)):
        return f"it is no subclass of {wanted}."
    missing: frozenset[str] = getattr(thing, "__abstractmethods__", frozenset())
    if missing:
        return f"it lacks {', '.join(sorted(missing))} of {wanted}."
    if not isinstance(getattr(thing, "name", None), str):
        return f"{thing.__qualname__} has no name."
    return _contract_fault(thing) if kind is _TIER_BACKEND else None


def _contract_fault(backend: Any) -> str | None:
    """Why a storage backend was written for another FlexGNN; None if it was written for this one."""
    version = getattr(backend, "contract_version", None)
    if not isinstance(version, int):
        return (
            f"{backend.__qualname__} does not say which version of the contract of tiers it was written for: "
            f"set contract_version = {CONTRACT_VERSION} once it meets flexgnn.core.tier.TierBackend."
        )
    if version != CONTRACT_VERSION:
        newer = "FlexGNN" if version > CONTRACT_VERSION else "package"
        return (
            f"it was written for version {version} of the contract of tiers, and this FlexGNN has version "
            f"{CONTRACT_VERSION}: install a newer version of the {newer}."
        )
    return None


def _name(thing: Any) -> str:
    name = getattr(thing, "name", None)
    return name if isinstance(name, str) else getattr(thing, "__qualname__", repr(thing))


def _summary(thing: Any) -> str:
    text = thing.summary if isinstance(thing, Dataset) else thing.__doc__ or ""
    return next(iter(text.strip().splitlines()), "")


def _why(error: BaseException, entry_point: EntryPoint, distribution: Distribution) -> str:
    """``error`` in one line, with the extra to install where a module is missing."""
    if isinstance(error, ModuleNotFoundError) and error.name and not _is_part(error.name, entry_point.module):
        extra = next(iter(entry_point.extras), None) or _extra_that_brings(error.name, distribution)
        install = f"pip install '{_package(distribution)}[{extra}]'" if extra else "install it"
        return f"it needs the module {error.name!r}: {install}."
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"


def _is_part(module: str, of: str) -> bool:
    return f"{of}.".startswith(f"{module}.")


def _extra_that_brings(module: str, distribution: Distribution) -> str | None:
    """The extra of ``distribution`` that asks for a package called like ``module``."""
    wanted = module.partition(".")[0].lower()
    for requirement in distribution.requires or ():
        match = _OPTIONAL_REQUIREMENT.match(requirement)
        if match and re.sub(r"[-.]", "_", match[1]).lower() == wanted:
            return match[2]
    return None


def _package(distribution: Distribution) -> str:
    return _field(distribution, "Name", "an unnamed package")


def _version(distribution: Distribution) -> str:
    return _field(distribution, "Version", "of unknown version")


def _field(distribution: Distribution, field: str, otherwise: str) -> str:
    if field not in distribution.metadata:
        return otherwise
    return distribution.metadata[field]
