"""The storage tier during a run, with an account of what is on it."""

from __future__ import annotations

from threading import Lock

from flexgnn.core.runtime.ledger import Ledger
from flexgnn.core.tier import Array, TierBackend


class Storage:
    """Puts and reads blobs; keeps the ledger. A key that is put again replaces its blob, and counts once."""

    def __init__(self, tier: TierBackend, budget_bytes: int) -> None:
        self._tier = tier
        self._sizes: dict[str, int] = {}
        self._lock = Lock()
        self.ledger = Ledger(tier.name, budget_bytes)

    def put(self, key: str, array: Array) -> None:
        """Store ``array`` under ``key``."""
        with self._lock:
            self.ledger.give_back(self._sizes.pop(key, 0))
            self.ledger.take(array.nbytes, key)
            self._sizes[key] = array.nbytes
        self._tier.put(key, array)

    def get_rows(self, key: str, start: int, out: Array) -> None:
        """Fill ``out`` with rows of blob ``key``, from row ``start`` on."""
        self._tier.get_rows(key, start, out)
