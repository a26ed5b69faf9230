"""Lengths of time in words."""

from __future__ import annotations

__all__ = ["duration"]


def duration(seconds: float) -> str:
    """A length of time in the unit that a person would choose: ``"3 days"``, ``"1 hour"``, ``"20 seconds"``."""
    for size, unit in ((86_400.0, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    count = max(0, int(seconds))
    return f"{count} second{'s' if count != 1 else ''}"
