"""Settings of all tests, those of the plug-ins too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.machine import keep_stated_profile


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Data sets are built once, no test waits for a measurement, and rates that were measured here change no test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEXGNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        keep_stated_profile()
        yield
