"""Leases: of many workers one does a kind of work at a time, and another goes on where it died."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from ..storage import LEASE_S, Storage

__all__ = ["Leases"]


class Leases:
    """The kinds of work that this worker may do.

    Args:
        storage: where all workers look.
        clock: seconds since the epoch, UTC.
    """

    def __init__(self, storage: Storage, clock: Callable[[], float]) -> None:
        self._storage = storage
        self._clock = clock
        self._holder = secrets.token_hex(8)
        self._claimed: dict[str, float] = {}

    def holds(self, work: str) -> bool:
        """Whether this worker may do this now; claims or prolongs the lease where that is needed.

        Raises:
            StoreError: where the storage cannot be asked, or has no room for the answer.
        """
        now = self._clock()
        claimed_at = self._claimed.get(work)
        # To prolong it is a write to the disk; twenty seconds at least remain for what is begun now.
        if claimed_at is not None and 0 <= now - claimed_at < LEASE_S / 3:
            return True
        self._claimed.pop(work, None)
        if not self._storage.claim(work, self._holder):
            return False
        self._claimed[work] = now
        return True

    def give_back(self) -> None:
        """Let others go on at once."""
        if self._claimed:
            self._claimed.clear()
            self._storage.release(self._holder)
