"""The log of faults that repeat, such as an outage of the storage: no fault writes a line for each attempt."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable

from dynpin.counts import counted

__all__ = ["Outage", "Repeated"]

_log = logging.getLogger("dynpin.collector")
_REMIND_S, _NEW_CAUSE_S = 600.0, 60.0
# For so long after a failure the storage counts as unusable.
_RECENT_S = 60.0
_REPORTS = "reports"


class Repeated:
    """The rule for every fault that repeats: one line when it begins, one each ten minutes, and one when it ends.

    A fault that comes and goes is told each ten minutes too. If its cause changes, there is a line about the new cause,
    a minute after the last one at the earliest. Times are in seconds.
    """

    def __init__(self) -> None:
        self._told_at: dict[str, float] = {}
        self._causes: dict[str, str] = {}
        self._open: set[str] = set()

    def fails(self, fault: str, now: float, cause: str = "") -> bool:
        """The fault is there. True if a line is due. Numbers in the cause, such as the free bytes, may differ."""
        cause = re.sub("[0-9,]", "", cause)
        if self.is_told(fault, now, _REMIND_S if cause == self._causes.get(fault) else _NEW_CAUSE_S):
            return False
        self._told_at[fault], self._causes[fault] = now, cause
        self._open.add(fault)
        return True

    def is_told(self, fault: str, now: float, within: float = _REMIND_S) -> bool:
        """Whether there was a line about it within this time."""
        told_at = self._told_at.get(fault)
        return told_at is not None and 0 <= now - told_at < within

    def ends(self, fault: str) -> bool:
        """The fault is not there. True if a line is due, since the last one said that it was."""
        if fault not in self._open:
            return False
        self._open.discard(fault)
        return True


class Outage:
    """Counts the reports that were answered with 503, and logs what the storage fails to do.

    All work that fails shares one line, since it has one cause. If the first line was not about reports, the first
    report that is not stored gets one more.

    Args:
        clock: seconds since the epoch, UTC.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._lines = Repeated()
        self._failing: set[str] = set()
        self._fault = ("", float("-inf"))
        self._refused = 0
        self._declined = 0

    def failed(self, error: Exception, reports: int) -> None:
        """The storage could not be used, and `reports` reports get the answer 503; perhaps none."""
        with self._lock:
            self._failing.add(_REPORTS)
            self._refused += reports
            now, refused = self._clock(), self._refused
            self._fault = str(error), now
            is_due = self._lines.fails(_REPORTS, now, str(error))
        if is_due:
            _log.error("nothing is stored: %s%s", error, f"; {_answered(refused)} so far" if refused else "")

    def waits(self, work: str, error: Exception) -> None:
        """The storage could not be used for some work of the worker."""
        with self._lock:
            self._failing.add(work)
            now = self._clock()
            is_due = not self._lines.is_told(_REPORTS, now) and self._lines.fails("work", now, str(error))
        if is_due:
            _log.error("%s wait: %s", work, error)

    def ended(self, work: str = _REPORTS) -> None:
        """The storage works again, for reports or for some work of the worker."""
        if work not in self._failing:
            return
        with self._lock:
            self._failing.discard(work)
            if work == _REPORTS:
                self._fault = ("", float("-inf"))
            if self._failing:
                return
            is_due = self._lines.ends(_REPORTS) | self._lines.ends("work")
            refused = self._refused
            if is_due:
                self._refused = 0  # no line has told of the others: they are in the next one
        if is_due:
            _log.warning(
                "the report storage works again%s", f"; {_answered(refused)} in the meantime" if refused else ""
            )

    def fault(self) -> str:
        """Why reports could not be stored within the last minute; an empty text if there was no failure."""
        text, at = self._fault
        return text if 0 <= self._clock() - at < _RECENT_S else ""

    def overloaded(self, reports: int) -> None:
        """`reports` reports get the answer 503, since too many wait for the disk. The disk works."""
        with self._lock:
            self._declined += reports
            if not self._lines.fails("overload", self._clock()):
                return
            declined, self._declined = self._declined, 0
        _log.error("too many reports wait for the disk; %s since the last line of this kind", _answered(declined))


def _answered(reports: int) -> str:
    return f"{counted(reports, 'report')} {'was' if reports == 1 else 'were'} answered with 503"
