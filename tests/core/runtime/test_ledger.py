from __future__ import annotations

import pytest

from flexgnn.core.errors import BudgetError
from flexgnn.core.runtime.ledger import Ledger


def test_the_peak_is_the_most_at_any_moment() -> None:
    ledger = Ledger("ram", 100)
    ledger.take(60, "a")
    ledger.give_back(60)
    ledger.take(50, "b")
    assert (ledger.used_bytes, ledger.peak_bytes) == (50, 60)


def test_going_over_budget_is_refused_and_takes_nothing() -> None:
    ledger = Ledger("ram", 100)
    ledger.take(100, "a")
    with pytest.raises(BudgetError, match="pack h1 needs 1 B of ram"):
        ledger.take(1, "pack h1")
    assert ledger.used_bytes == 100
