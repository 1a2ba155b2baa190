"""A machine whose rates are known, so that tests need not measure."""

from __future__ import annotations

from dataclasses import replace

import torch

from flexgnn.core.plan.machines import load_machine, stated_compute
from flexgnn.core.plan.profile import save_profile


def keep_stated_profile() -> None:
    """Put the rates of a stated machine into the cache directory, as if they had been measured on this one."""
    stated = load_machine("laptop-nvme")
    rates = replace(stated_compute(stated), threads=torch.get_num_threads())
    save_profile(lambda profile: profile.with_compute(rates).with_tiers(stated.tiers))
