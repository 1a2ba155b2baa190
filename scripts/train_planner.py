"""Trains the learned planner to fill gaps as the ILP planner does, on random problems on paper.

Sketches of random problems are filled by HiGHS; a perceptron learns from :mod:`flexgnn.planners.gap_features` which
gaps were filled. The same arguments give the same weights, but where HiGHS runs into its time limit.

    python scripts/train_planner.py --problems 300
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch.nn.functional import binary_cross_entropy_with_logits

from flexgnn.core.plan.relaxation import optimal_filling
from flexgnn.core.plan.search import promising_sketches
from flexgnn.core.plan.sketch import Sketch
from flexgnn.planners.gap_features import FEATURES, gap_features
from flexgnn.testing.problems import random_problem

OUTPUT = Path(__file__).parent.parent / "flexgnn" / "planners" / "learned.safetensors"
FIRST_SEED = 1_000_000
"""Of the training problems: held-out ones have seeds below."""
HIDDEN = 32
SKETCHES = 3
"""Of each problem."""

Example = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Features of a sketch's gaps, which of them were filled, and what each is worth."""


def examples_of(seed: int, time_limit: float) -> Iterator[Example]:
    """What HiGHS makes of some sketches of the problem with that seed."""
    random = np.random.default_rng(seed)
    problem = random_problem(random)
    sketches = [sketch for sketch in promising_sketches(problem, problem.choices) if len(sketch.gaps)]
    for index in random.permutation(len(sketches))[:SKETCHES]:
        yield example_of(sketches[index], time_limit)


def example_of(sketch: Sketch, time_limit: float) -> Example:
    """Of one sketch."""
    start = sketch.greedy_filling
    filling = optimal_filling(sketch, start, time_limit=time_limit, relative_gap=1e-3)
    seconds = sketch.gaps.seconds
    return gap_features(sketch), filling.kept.astype(np.float32), seconds / max(seconds.sum(), 1e-12)


def train(examples: list[Example], epochs: int) -> dict[str, np.ndarray]:
    """The weights of the network, and how its inputs are scaled."""
    torch.manual_seed(0)
    features = torch.from_numpy(np.concatenate([f for f, _, _ in examples]))
    labels = torch.from_numpy(np.concatenate([kept for _, kept, _ in examples]))
    weights = torch.from_numpy(np.concatenate([w for _, _, w in examples]).astype(np.float32))
    mean, scale = features.mean(dim=0), features.std(dim=0).clamp(min=1e-3)
    inputs = (features - mean) / scale
    network = torch.nn.Sequential(
        torch.nn.Linear(len(FEATURES), HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, 1),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(inputs), generator=generator).split(4096):
            optimizer.zero_grad()
            losses = binary_cross_entropy_with_logits(network(inputs[batch])[:, 0], labels[batch], reduction="none")
            loss = (losses * weights[batch]).sum() / weights[batch].sum()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(batch)
        schedule.step()
        print(f"epoch {epoch + 1}: loss {total / len(inputs):.4f}")
    found = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    return {**found, "mean": mean.numpy(), "scale": scale.numpy()}


def main() -> None:
    """Collect examples, train, and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--time-limit", type=float, default=2.0, help="seconds for each sketch")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    examples: list[Example] = []
    for number in range(options.problems):
        examples += examples_of(FIRST_SEED + number, options.time_limit)
        if (number + 1) % 10 == 0:
            print(f"{number + 1} problems, {sum(len(kept) for _, kept, _ in examples)} gaps")
    save_file(train(examples, options.epochs), options.output)
    print(f"saved to {options.output}: {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
