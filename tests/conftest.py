"""Settings of the tests of this package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flexgnn.testing import mounted_disk


@pytest.fixture(autouse=True)
def _scratch_files_are_gone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Whatever a test does, a run leaves nothing in the temporary directory."""
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    yield
    assert not list(Path(scratch).glob("flexgnn-*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    with mounted_disk(tmp_path / "disk", 2**20) as disk:
        yield disk
