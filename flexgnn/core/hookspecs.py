"""Every hook of FlexGNN.

A plug-in is a module with functions of these names, each marked with :data:`hookimpl`, that its
distribution names under the entry-point group ``flexgnn``::

    [project.entry-points.flexgnn]
    lmdb = "flexgnn_lmdb.backend"

Every hook is optional, takes no argument, and is called once, when a process first looks up a plug-in.
Give the entry point the name of what it brings, so that a plug-in that fails to load can be told of by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from flexgnn.core.compute import ComputeBackend
    from flexgnn.core.graph.dataset import Dataset
    from flexgnn.core.planner import Planner
    from flexgnn.core.tier import TierBackend

PROJECT = "flexgnn"
"""The entry-point group, and the prefix of every hook."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a plug-in's function as the implementation of the hook of that name."""


@hookspec
def flexgnn_list_tier_backends() -> Sequence[type[TierBackend]]:
    """The storage backends a plug-in brings.

    Called when backends are listed or one is looked up by ``--ssd-backend``; nothing is opened yet.

    Returns:
        Concrete subclasses of :class:`~flexgnn.core.tier.TierBackend`, each with a ``name`` of its own.
    """


@hookspec
def flexgnn_list_compute_backends() -> Sequence[type[ComputeBackend]]:
    """The memories to compute in that a plug-in brings.

    Called when backends are listed or one is looked up by ``--device``; nothing is allocated yet.

    Returns:
        Concrete subclasses of :class:`~flexgnn.core.compute.ComputeBackend`, each with a ``name`` of its own.
    """


@hookspec
def flexgnn_list_planners() -> Sequence[type[Planner]]:
    """The planners a plug-in brings.

    Called when planners are listed or one is looked up by ``--planner``; nothing is planned yet.

    Returns:
        Concrete subclasses of :class:`~flexgnn.core.planner.Planner`, each with a ``name`` of its own.
    """


@hookspec
def flexgnn_list_datasets() -> Sequence[Dataset]:
    """The data sets a plug-in brings.

    Called when data sets are listed or one is looked up by ``--dataset``; nothing is downloaded or built yet.

    Returns:
        Instances of :class:`~flexgnn.core.graph.dataset.Dataset`, each with a ``name`` of its own.
    """
