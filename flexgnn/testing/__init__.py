"""What third parties need to prove their backends and planners right, and tiers that misbehave."""

import pytest

for _part in ("account", "backend", "blob", "disk", "planner", "process", "row", "thread", "training"):
    pytest.register_assert_rewrite(f"flexgnn.testing.{_part}_tests")

from flexgnn.testing.backend_tests import TierBackendTests  # noqa: E402
from flexgnn.testing.disk_tests import mounted_disk  # noqa: E402
from flexgnn.testing.planner_tests import PlannerTests  # noqa: E402
from flexgnn.testing.samples import assert_same_bits, read_back, sample  # noqa: E402
from flexgnn.testing.state_machine import TierStateMachine  # noqa: E402
from flexgnn.testing.wrappers import (  # noqa: E402
    FailingBackend,
    FullBackend,
    ThrottledBackend,
    WrapperBackend,
)

__all__ = [
    "FailingBackend",
    "FullBackend",
    "PlannerTests",
    "ThrottledBackend",
    "TierBackendTests",
    "TierStateMachine",
    "WrapperBackend",
    "assert_same_bits",
    "mounted_disk",
    "read_back",
    "sample",
]
