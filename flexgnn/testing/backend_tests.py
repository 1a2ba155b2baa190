"""The tests that every storage backend must pass.

A subclass of :class:`TierBackendTests` in a test file, with the backend as its one required piece, is run by
pytest; its own name must begin with ``Test``::

    from flexgnn.testing import TierBackendTests

    class TestMyBackend(TierBackendTests):
        backend = MyBackend
"""

from __future__ import annotations

from typing import Any

from flexgnn.core.tier import CONTRACT_VERSION
from flexgnn.testing.account_tests import AccountTests
from flexgnn.testing.blob_tests import BlobTests
from flexgnn.testing.disk_tests import DiskTests
from flexgnn.testing.kit import check_pieces
from flexgnn.testing.process_tests import ProcessTests
from flexgnn.testing.row_tests import RowTests
from flexgnn.testing.state_machine import StateMachineTests
from flexgnn.testing.thread_tests import ThreadTests
from flexgnn.testing.training_tests import TrainingTests


class TierBackendTests(
    BlobTests, RowTests, AccountTests, ThreadTests, DiskTests, ProcessTests, StateMachineTests, TrainingTests
):
    """What every :class:`~flexgnn.core.tier.TierBackend` must do.

    A backend that is not on this machine (``local = False``) must also override the fixture :meth:`location`, which
    gives an empty place of its own to each test. The backend must be registered by an entry point: the last test
    trains over it from the command line.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_pieces(cls)

    def test_has_a_name_and_the_version_of_the_contract(self) -> None:
        name, version = getattr(self.backend, "name", None), getattr(self.backend, "contract_version", None)
        assert isinstance(name, str)
        assert name
        assert version == CONTRACT_VERSION, f"{self.backend.__name__}.contract_version is {version}"
