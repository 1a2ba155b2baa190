from __future__ import annotations

import stat
from pathlib import Path

import pytest

from flexgnn.core.errors import TierError
from flexgnn.core.runtime.scratch import scratch_directory


def test_it_is_private_and_gone_afterwards_whatever_happens(tmp_path: Path) -> None:
    def interrupted() -> None:
        with scratch_directory(tmp_path) as path:
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
            (path / "blob").write_bytes(b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_two_runs_have_two_directories(tmp_path: Path) -> None:
    with scratch_directory(tmp_path) as one, scratch_directory(tmp_path) as other:
        assert one != other


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_directory_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TierError, match="--ssd-path"), scratch_directory(tmp_path / name):
        pass
