"""Leases: only one worker does a kind of work at a time. If it dies, another one continues."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from ..storage import LEASE_S, Storage

__all__ = ["Leases"]


class Leases:
    """The leases of this worker.

    Args:
        storage: the storage that all workers share.
        clock: seconds since the epoch, UTC.
    """

    def __init__(self, storage: Storage, clock: Callable[[], float]) -> None:
        self._storage = storage
        self._clock = clock
        self._holder = secrets.token_hex(8)
        self._claimed: dict[str, float] = {}

    def holds(self, work: str) -> bool:
        """Whether this worker may do this work now. Takes or extends the lease if needed.

        Raises:
            StoreError: if the storage cannot be used.
        """
        now = self._clock()
        claimed_at = self._claimed.get(work)
        # Extending is a write to the disk, so do it late. At least twenty seconds remain for the next piece of work.
        if claimed_at is not None and 0 <= now - claimed_at < LEASE_S / 3:
            return True
        self._claimed.pop(work, None)
        if not self._storage.claim(work, self._holder):
            return False
        self._claimed[work] = now
        return True

    def give_back(self) -> None:
        """End the leases, so that other workers can continue at once."""
        if self._claimed:
            self._claimed.clear()
            self._storage.release(self._holder)
