"""Times of reports (RFC 3339), to and from seconds since the epoch, UTC."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["FIRST_SECOND", "LAST_SECOND", "read_time", "rfc3339"]

# The range of RFC 3339 §5.6: 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z.
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799


def rfc3339(seconds: float) -> str:
    """A time in seconds since the epoch as RFC 3339 §5.6 text in UTC, such as ``2014-04-06T13:00:50Z``.

    RFC 3339 has the years 0001 to 9999. A time outside of them, such as that of a pin that never expires, becomes the
    first or the last second.
    """
    # Not strftime: its %Y has fewer than four digits before the year 1000.
    within = datetime.fromtimestamp(min(max(seconds, FIRST_SECOND), LAST_SECOND), UTC)
    return within.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def read_time(text: object, name: str) -> tuple[float | None, str]:
    """A time of a report in seconds since the epoch, UTC, and its flag, or ``""``.

    The flag is ``no-``, ``bad-`` or ``naive-`` and the name. A naive time has no offset, and is read as UTC.
    """
    if text is None:
        return None, f"no-{name}"
    moment = _moment(text)
    if moment is None:
        return None, f"bad-{name}"
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC).timestamp(), f"naive-{name}"
    return moment.timestamp(), ""


def _moment(text: object) -> datetime | None:
    """A time of a report; None if it is not a date-time, or its offset leads out of the years of RFC 3339."""
    if not isinstance(text, str) or "T" not in text.upper():
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    return moment if FIRST_SECOND <= seconds <= LAST_SECOND else None
