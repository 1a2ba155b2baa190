"""An account of every byte of a tier, that refuses to go over its budget."""

from __future__ import annotations

from flexgnn.core.errors import BudgetError
from flexgnn.core.sizes import format_size


class Ledger:
    """Counts the bytes in use of one tier. Used from the main thread only."""

    def __init__(self, tier: str, budget_bytes: int) -> None:
        self.tier, self.budget_bytes = tier, budget_bytes
        self.used_bytes = 0
        self.peak_bytes = 0

    def take(self, size_bytes: int, what: str) -> None:
        """Account for ``size_bytes`` more.

        Raises:
            BudgetError: if that is more than the budget; nothing is taken then.
        """
        if self.used_bytes + size_bytes > self.budget_bytes:
            raise BudgetError(
                f"{what} needs {format_size(size_bytes)} of {self.tier}, where {format_size(self.used_bytes)} of "
                f"{format_size(self.budget_bytes)} are in use."
            )
        self.used_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)

    def give_back(self, size_bytes: int) -> None:
        """Account for ``size_bytes`` less."""
        self.used_bytes -= size_bytes
