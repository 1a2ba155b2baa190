"""Machines that are not at hand: profiles that come with FlexGNN, or that a user has in a file."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

from flexgnn.core.errors import ConfigError
from flexgnn.core.plan.cost import Rates
from flexgnn.core.plan.profile import MachineProfile, read_profile
from flexgnn.core.plan.rates import ComputeRates

_FOLDER = files("flexgnn") / "machines"


def machine_names() -> list[str]:
    """Of the profiles that come with FlexGNN."""
    return sorted(file.name.removesuffix(".json") for file in _FOLDER.iterdir() if file.name.endswith(".json"))


def load_machine(machine: str) -> MachineProfile:
    """The profile of that name, or in the file at that path.

    Raises:
        ConfigError: if there is none, or it does not say how fast the machine computes.
    """
    if machine in machine_names():
        with as_file(_FOLDER / f"{machine}.json") as path:
            return _checked(path)
    if not Path(machine).is_file():
        raise ConfigError(f"There is no machine {machine!r}: name a file, or one of {', '.join(machine_names())}.")
    return _checked(Path(machine))


def stated_compute(profile: MachineProfile) -> ComputeRates:
    """How fast the machine of a loaded profile computes."""
    assert profile.compute is not None, "checked when it was loaded"
    return profile.compute.rates


@lru_cache(maxsize=1)
def laptop_rates() -> Rates:
    """Of an ordinary machine: good enough to rank decisions where nothing better is known."""
    return Rates(compute=stated_compute(load_machine("laptop-nvme")))


def _checked(path: Path) -> MachineProfile:
    try:
        profile = read_profile(path)
        if profile.compute is None:
            raise ValueError("it says nothing of computation")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not the profile of a machine: {error}.") from error
    return profile
