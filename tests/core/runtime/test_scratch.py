from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flexgnn.core.errors import TierError
from flexgnn.core.runtime.events import Event, ScratchRemoved
from flexgnn.core.runtime.scratch import scratch_location

HOLD = """
import sys
from pathlib import Path
from flexgnn.core.runtime.scratch import scratch_location

with scratch_location(sys.argv[1], print, local=True) as location:
    (Path(location) / "blob").write_bytes(bytes(5000))
    print(location, flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(parent: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that holds a scratch directory, and the directory."""
    command = [sys.executable, "-c", HOLD, str(parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip()).parent
        process.kill()


def scratch(parent: Path, events: list[Event] | None = None):  # type: ignore[no-untyped-def]
    return scratch_location(parent, [].append if events is None else events.append, local=True)


def test_it_is_private_and_gone_afterwards_whatever_happens(tmp_path: Path) -> None:
    def interrupted() -> None:
        with scratch(tmp_path) as location:
            for path in (Path(location), Path(location).parent):
                assert stat.S_IMODE(path.stat().st_mode) == 0o700
            (Path(location) / "blob").write_bytes(b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_two_runs_have_two_directories(tmp_path: Path) -> None:
    with scratch(tmp_path) as one, scratch(tmp_path) as other:
        assert one != other
        assert Path(one).is_dir()


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_directory_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TierError, match="--ssd-path"), scratch(tmp_path / name):
        pass


def test_places_elsewhere_get_a_name_that_no_one_can_guess() -> None:
    with scratch_location("s3://bucket/some/", print, local=False) as one:
        assert one.startswith("s3://bucket/some/flexgnn-")
        with scratch_location("s3://bucket/some/", print, local=False) as other:
            assert one != other


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    with holder(tmp_path) as (process, left):
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (left / "tier" / "blob").exists()
        events: list[Event] = []
        with scratch(tmp_path, events) as location:
            assert [path.name for path in tmp_path.iterdir()] == [Path(location).parent.name]
    assert events == [ScratchRemoved(path=str(left), size_bytes=5000)]


def test_what_a_living_run_uses_is_left(tmp_path: Path) -> None:
    with holder(tmp_path) as (_, used):
        events: list[Event] = []
        with scratch(tmp_path, events):
            assert (used / "tier" / "blob").exists()
        assert (used / "tier" / "blob").exists()
        assert events == []


def test_directories_that_only_look_like_it_are_left(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "owner.lock").touch()
    for name in ("flexgnn-data", "flexgnn-shared"):
        (tmp_path / name).mkdir(mode=0o700)
        (tmp_path / name / "mine").write_text("of a user")
    os.chmod(tmp_path / "flexgnn-shared", 0o755)
    (tmp_path / "flexgnn-shared" / "owner.lock").touch()
    (tmp_path / "flexgnn-link").symlink_to(elsewhere)
    (tmp_path / "flexgnn-file").touch()
    before = sorted(tmp_path.rglob("*"))
    with scratch(tmp_path):
        pass
    assert sorted(tmp_path.rglob("*")) == before
