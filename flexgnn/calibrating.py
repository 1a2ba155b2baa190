"""Measures computation, and every storage tier that is installed, or those that were named."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from rich.console import Console

from flexgnn.core.errors import FlexGNNError
from flexgnn.core.plan.profile import TierProfile
from flexgnn.core.plan.rates import ComputeRates
from flexgnn.core.plugins import load_plugins
from flexgnn.core.runtime.calibration import calibrate_tier
from flexgnn.core.runtime.compute_calibration import measure_compute
from flexgnn.core.runtime.storage import ConfiguredTier
from flexgnn.core.tier_spec import TierSpec

_THREADS = (1, 2, 4)


def calibrate_compute(console: Console) -> ComputeRates:
    """Measure how fast this machine computes with as many threads as a run takes."""
    with console.status("measuring computation"):
        return measure_compute(torch.get_num_threads())


def calibrate_tiers(tiers: Sequence[str], ssd_path: str | None, console: Console) -> list[TierProfile]:
    """Measure ``tiers``, as :meth:`TierSpec.parse` takes them; without any, every backend that can be used.

    Of those that were not named, one that can't be measured is told of on ``console`` and left out.

    Raises:
        FlexGNNError: if one that was named can't be measured.
    """
    plugins = load_plugins()
    named = [TierSpec.parse(tier) for tier in tiers]
    found = [
        TierSpec(name=b.name, backend=b.name, location=ssd_path if b.local else None)
        for b in plugins.tier_backends()
        if b.durable
    ]
    threads = [count for count in _THREADS if count <= (os.cpu_count() or 1)]
    profiles = []
    for spec in named or found:
        try:
            with console.status(f"measuring {spec.name}"):
                profiles.append(calibrate_tier(ConfiguredTier.configure(spec, plugins), threads=threads))
        except FlexGNNError as error:
            if named:
                raise
            console.print(f"{spec.name} is left out: {error}", markup=False)
    return profiles
