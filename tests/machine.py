"""A machine whose rates are known, so that tests need not measure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from flexgnn.core.plan.machines import load_machine, stated_compute
from flexgnn.core.plan.profile import save_profile


def keep_stated_profile() -> None:
    """Put the rates of a stated machine into the cache directory, as if they had been measured on this one."""
    stated = load_machine("laptop-nvme")
    rates = replace(stated_compute(stated), threads=torch.get_num_threads())
    save_profile(lambda profile: profile.with_compute(rates).with_tiers(stated.tiers))


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """With ``count`` threads, of which rates are known too."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        keep_stated_profile()
        yield
        assert torch.get_num_threads() == count, "training leaves torch's threads as they were"
    finally:
        torch.set_num_threads(before)
        keep_stated_profile()
