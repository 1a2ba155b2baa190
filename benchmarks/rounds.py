"""Trainers that are run in rounds, in another order each time, so that the machine's drift reaches all of them."""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping
from typing import TypeVar

import torch

from flexgnn import Trainer

Case = TypeVar("Case", bound=Hashable)


def run_in_rounds(
    trainers: Mapping[Case, Trainer], model: torch.nn.Module, rounds: int, epochs: int
) -> tuple[dict[Case, list[float]], dict[Case, set[tuple[float, ...]]]]:
    """Train every case from the parameters of ``model`` in every round.

    Returns:
        By case: the seconds of all epochs but the first of a round, and the losses of a round, each that differs.
    """
    seconds: dict[Case, list[float]] = {case: [] for case in trainers}
    losses: dict[Case, set[tuple[float, ...]]] = {case: set() for case in trainers}
    for number in range(rounds):
        cases = list(trainers)
        random.Random(number).shuffle(cases)
        for case in cases:
            trainer = trainers[case]
            trainer.model.load_state_dict(model.state_dict())
            trainer.optimizer.state.clear()
            trainer.history.clear()
            records = trainer.fit(epochs)
            seconds[case] += [record.seconds for record in records[1:]]
            losses[case].add(tuple(record.loss for record in records))
            print(f"round {number + 1}: {case}: {min(seconds[case]):.2f} s", flush=True)
    return seconds, losses
