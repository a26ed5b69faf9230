"""What the log says while the storage cannot be used: one line a minute, and one when it is back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

__all__ = ["Outage"]

_log = logging.getLogger("dynpin.collector")
_EVERY_S = 60.0


class Outage:
    """Counts what could not be stored, and says so now and then.

    Args:
        clock: seconds since the epoch, UTC.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told_at: float | None = None
        self._refused = 0

    def failed(self, error: Exception, reports: int) -> None:
        """A batch of so many reports was not stored."""
        with self._lock:
            self._refused += reports
            now = self._clock()
            if self._told_at is not None and 0 <= now - self._told_at < _EVERY_S:
                return
            self._told_at = now
            refused = self._refused
        _log.error("nothing is stored: %s; %s reports were answered with 503 so far", error, refused)

    def ended(self) -> None:
        """Something was stored."""
        if self._told_at is None:
            return
        with self._lock:
            refused, self._refused, self._told_at = self._refused, 0, None
        _log.warning("reports are stored again; %s were answered with 503 meanwhile", refused)
