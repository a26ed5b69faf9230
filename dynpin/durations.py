"""Lengths of time: write them as text, and read them from text."""

from __future__ import annotations

import re

from dynpin.counts import plural

__all__ = ["duration", "parse_duration"]

_UNITS = {"year": 31_536_000, "week": 604_800, "day": 86_400, "hour": 3600, "minute": 60, "second": 1}
_TEXT = re.compile(rf"(?P<count>[0-9]{{1,9}})\s*(?P<unit>{'|'.join(_UNITS)})s?")


def duration(seconds: float) -> str:
    """A length of time (seconds) as text, in the largest unit that fits: ``"3 days"``, ``"90 minutes"``, ``"1 year"``.

    The rest is dropped if there are three of the unit or more. A fraction of a second is dropped too.
    """
    whole = max(0, int(seconds))
    for unit, size in _UNITS.items():
        count, rest = divmod(whole, size)
        if unit != "week" and count and (not rest or count >= 3):
            return f"{count} {plural(count, unit)}"
    return "0 seconds"


def parse_duration(text: str) -> int:
    """The seconds of a text such as ``"30 days"``, ``"12 hours"`` or ``"90 minutes"``; a year has 365 days.

    Raises:
        ValueError: if it is not such a text.
    """
    match = _TEXT.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f'{text!r} is not a length of time: write one such as "30 days", "12 hours" or "90 minutes"')
    return int(match["count"]) * _UNITS[match["unit"]]
