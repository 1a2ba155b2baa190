"""The split of a graph that comes without one."""

from __future__ import annotations

import numpy as np

from flexgnn.core.graph.layout import TEST, TRAIN, VAL
from flexgnn.core.tier import Array


def seeded_split(labelled: Array) -> Array:
    """A 60/20/20 split of the labelled nodes, the same in every run: uint8 [N] of ``labelled``, bool [N]."""
    ids = np.random.default_rng(0).permutation(np.flatnonzero(labelled))
    num_train, num_val = -(-len(ids) * 6 // 10), len(ids) * 2 // 10
    split = np.zeros(len(labelled), dtype=np.uint8)
    split[ids[:num_train]] = TRAIN
    split[ids[num_train : num_train + num_val]] = VAL
    split[ids[num_train + num_val :]] = TEST
    return split
