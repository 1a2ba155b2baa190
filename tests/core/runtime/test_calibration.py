from __future__ import annotations

from pathlib import Path

import pytest

from flexgnn.backends.arrow import ArrowBackend
from flexgnn.core.errors import TierError
from flexgnn.core.plan.cost import ASSUMED_TIER_RATES
from flexgnn.core.plan.profile import load_profile, save_profile
from flexgnn.core.plugins import load_plugins
from flexgnn.core.runtime.calibration import calibrate_tier
from flexgnn.core.runtime.storage import ConfiguredTier
from flexgnn.core.tier_spec import TierSpec
from flexgnn.testing import ThrottledBackend


def configured(backend: object, location: Path) -> ConfiguredTier:
    return ConfiguredTier.configure(TierSpec(name="t", backend=backend, location=location), load_plugins())  # type: ignore[arg-type]


def test_a_slow_tier_measures_as_slow_as_it_is(tmp_path: Path) -> None:
    slow = ThrottledBackend.over(
        ArrowBackend, read_bytes_per_second=40e6, write_bytes_per_second=20e6, latency_seconds=0.01
    )
    tier = configured(slow, tmp_path)
    profile = calibrate_tier(tier, block_bytes=(2**18, 2**20), threads=(1, 2), total_bytes=2**22)
    assert [(m.block_bytes, m.threads) for m in profile.measurements] == [
        (2**18, 1),
        (2**18, 2),
        (2**20, 1),
        (2**20, 2),
    ]
    for m in profile.measurements:
        assert 0 < m.write_bytes_per_second < 20e6
        assert 0 < m.read_bytes_per_second < 40e6
        assert m.write_cpu_seconds_per_byte > 0
    assert list(tmp_path.iterdir()) == []


def test_plans_take_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXGNN_CACHE", str(tmp_path / "cache"))
    tier = configured("arrow", tmp_path)
    assert tier.for_planning(load_profile(), None, staged_bytes=0, cached=False).rates == ASSUMED_TIER_RATES
    profile = calibrate_tier(tier, block_bytes=(2**16, 2**18), total_bytes=2**19)
    save_profile(lambda known: known.with_tiers([profile]))
    assert tier.for_planning(load_profile(), None, staged_bytes=0, cached=False).rates == profile.rates()
    (tmp_path / "other").mkdir()
    assert configured("arrow", tmp_path / "other").known_rates(load_profile()) == profile.rates(), "on the same disk"


def test_a_tier_that_fails_is_told_of_and_leaves_nothing(tmp_path: Path) -> None:
    class Broken(ArrowBackend):
        def flush(self) -> None:
            raise TierError("the cable is loose")

    with pytest.raises(TierError, match="the cable is loose"):
        calibrate_tier(configured(Broken, tmp_path), block_bytes=(2**16,), total_bytes=2**16)
    assert list(tmp_path.iterdir()) == []
