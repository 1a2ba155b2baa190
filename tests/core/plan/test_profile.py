from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flexgnn.core.errors import ConfigError
from flexgnn.core.plan.cost import read_seconds, write_seconds
from flexgnn.core.plan.machines import load_machine, stated_compute
from flexgnn.core.plan.profile import (
    ANY,
    LIFETIME,
    Measurement,
    TierProfile,
    load_profile,
    now,
    profile_path,
    save_profile,
)

RATES = stated_compute(load_machine("laptop-nvme"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("FLEXGNN_CACHE", str(path))
    return path


def measurement(size: int, *, threads: int = 1) -> Measurement:
    """As a tier would be that takes 2 ms a read, 3 ms a write, and moves 700 MB/s in and 1100 MB/s out."""
    return Measurement(
        block_bytes=size,
        threads=threads,
        write_bytes_per_second=size / (3e-3 + size / 7e8),
        read_bytes_per_second=size / (2e-3 + size / 11e8),
        write_cpu_seconds_per_byte=5e-10,
        read_cpu_seconds_per_byte=3e-10,
    )


PROFILE = TierProfile(
    backend="zarr",
    settings={"compression": "zstd"},
    place="/mnt",
    measured_at=now(),
    measurements=(*(measurement(2**bits) for bits in (20, 24, 26)), measurement(2**20, threads=2)),
)


def test_rates_give_back_the_seconds_that_were_measured() -> None:
    rates = PROFILE.rates()
    for size in (2**20, 2**24, 2**26):
        assert read_seconds(rates, size) == pytest.approx(2e-3 + size / 11e8, abs=6e-4)
        assert write_seconds(rates, size) == pytest.approx(3e-3 + size / 7e8, abs=6e-4)
    assert (rates.read_cpu_seconds_per_byte + rates.write_cpu_seconds_per_byte) / 2 == pytest.approx(4e-10)


def keep(*tiers: TierProfile) -> None:
    save_profile(lambda profile: profile.with_tiers(tiers))


def test_a_tier_is_found_by_backend_settings_and_place() -> None:
    keep(PROFILE)
    known = load_profile()
    assert known.find_rates("zarr", {"compression": "zstd"}, "/mnt") == PROFILE.rates()
    assert known.find_rates("zarr", {"compression": "zstd"}) == PROFILE.rates()
    for other in (("lmdb", PROFILE.settings, "/mnt"), ("zarr", {}, "/mnt"), ("zarr", PROFILE.settings, "/")):
        assert known.find_rates(*other) is None


def test_what_is_stated_of_any_tier_holds_where_nothing_was_measured() -> None:
    stated = replace(PROFILE, backend=ANY, settings={}, place=ANY, measured_at=None, measurements=(measurement(2**20),))
    keep(stated, PROFILE)
    known = load_profile()
    assert known.find_rates("lmdb", {"a": "b"}, "/") == stated.rates()
    assert known.find_rates("zarr", {"compression": "zstd"}, "/mnt") == PROFILE.rates()


def test_what_was_measured_long_ago_is_measured_again() -> None:
    old = (datetime.now(UTC) - LIFETIME - timedelta(days=1)).isoformat()
    keep(replace(PROFILE, measured_at=old))
    assert load_profile().find_rates("zarr", PROFILE.settings, "/mnt") is None
    known = load_profile().with_compute(RATES)
    assert known.compute is not None
    assert replace(known, compute=replace(known.compute, measured_at=old)).compute_rates(RATES.threads) is None


def test_rates_of_computation_are_those_of_this_machine_and_its_libraries() -> None:
    save_profile(lambda profile: profile.with_compute(RATES))
    known = load_profile()
    assert known.compute_rates(RATES.threads) == RATES
    assert known.compute_rates(RATES.threads + 1) is None
    assert known.compute is not None
    for change in ({"cpu": "abacus"}, {"torch": "0.1"}, {"numba": "0.1"}, {"cores": 99}):
        machine = replace(known.compute.machine, **change)
        assert replace(known, compute=replace(known.compute, machine=machine)).compute_rates(RATES.threads) is None


def test_a_new_measurement_takes_the_place_of_the_old_one_alone() -> None:
    elsewhere, again = replace(PROFILE, place="/"), replace(PROFILE, measured_at=now())
    keep(PROFILE, elsewhere)
    keep(again)
    assert sorted(load_profile().tiers, key=lambda profile: profile.place) == [elsewhere, again]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"flexgnn_profile": 99, "tiers": []}', '{"flexgnn_profile": 2}'])
def test_a_file_that_makes_no_sense_counts_as_nothing_measured(content: str) -> None:
    profile_path().parent.mkdir()
    profile_path().write_text(content)
    assert load_profile().tiers == ()
    keep(PROFILE)
    assert load_profile().tiers == (PROFILE,)


def test_a_cache_that_can_not_be_written_is_told_of(cache: Path) -> None:
    cache.write_text("in the way")
    with pytest.raises(ConfigError, match="FLEXGNN_CACHE"):
        keep(PROFILE)
