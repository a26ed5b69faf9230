"""The log of an outage of the storage: one line a minute, and one when the storage works again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from .formatting import several

__all__ = ["Outage"]

_log = logging.getLogger("dynpin.collector")
_EVERY_S = 60.0


class Outage:
    """Counts the reports that were answered with 503, and logs the number once a minute.

    Args:
        clock: seconds since the epoch, UTC.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told_at: float | None = None
        self._fault = ("", 0.0)
        self._refused = 0
        self._overload_told_at: float | None = None
        self._declined = 0

    def failed(self, error: Exception, reports: int) -> None:
        """The storage could not be used, and `reports` reports get the answer 503; perhaps none."""
        with self._lock:
            self._refused += reports
            now = self._clock()
            self._fault = str(error), now
            if _is_recent(self._told_at, now):
                return
            self._told_at = now
            refused = self._refused
        _log.error("nothing is stored: %s%s", error, f"; {_answered(refused)} so far" if refused else "")

    def ended(self) -> None:
        """The storage works again."""
        if self._told_at is None:
            return
        with self._lock:
            refused, self._refused, self._told_at, self._fault = self._refused, 0, None, ("", 0.0)
        _log.warning("reports are stored again; %s in the meantime", _answered(refused))

    def fault(self) -> str:
        """Why reports could not be stored within the last minute; an empty text if there was no failure."""
        text, at = self._fault
        return text if _is_recent(at, self._clock()) else ""

    def overloaded(self, reports: int) -> None:
        """`reports` reports get the answer 503, since too many wait for the disk. The disk works."""
        with self._lock:
            self._declined += reports
            now = self._clock()
            if _is_recent(self._overload_told_at, now):
                return
            self._overload_told_at = now
            declined, self._declined = self._declined, 0
        _log.error("too many reports wait for the disk; %s since the last line of this kind", _answered(declined))


def _is_recent(told_at: float | None, now: float) -> bool:
    return told_at is not None and 0 <= now - told_at < _EVERY_S


def _answered(reports: int) -> str:
    return f"{several(reports, 'report')} {'was' if reports == 1 else 'were'} answered with 503"
