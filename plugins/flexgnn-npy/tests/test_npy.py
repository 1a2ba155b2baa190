from pathlib import Path

import numpy as np

from flexgnn.core.tier import TierOptions
from flexgnn.testing import TierBackendTests, assert_same_bits, sample
from flexgnn_npy import NpyBackend


class TestNpyBackend(TierBackendTests):
    backend = NpyBackend


def test_numpy_reads_the_files(tmp_path: Path) -> None:
    tier = NpyBackend(TierOptions(location=str(tmp_path)))
    tier.put("activations/3", sample("float32", (7, 11)))
    assert_same_bits(np.load(tier.where("activations/3"), allow_pickle=False), sample("float32", (7, 11)))
