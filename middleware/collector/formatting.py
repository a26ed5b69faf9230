"""Numbers and times for people."""

from __future__ import annotations

from dynpin.counts import counted
from dynpin.report import rfc3339

__all__ = ["ago", "count", "one_line", "when", "without_controls"]


def when(seconds: float | None) -> str:
    """A time (seconds since the epoch) as text, to the minute, UTC."""
    return "unknown" if seconds is None else rfc3339(seconds)[:16].replace("T", " ")


def ago(seconds: float, now: float) -> str:
    """How long ago, in the largest unit that fits."""
    elapsed = now - seconds
    if elapsed < 60:
        return "just now"
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if elapsed >= size:
            return f"{counted(int(elapsed // size), name)} ago"
    return "just now"


def count(number: int) -> str:
    """A number with commas between thousands."""
    return f"{number:,}"


def one_line(text: str, longest: int = 200) -> str:
    """A stranger's text that is safe in a log or a terminal: one line, without control sequences."""
    return "".join(character if character.isprintable() else "?" for character in text[:longest])


def without_controls(text: str) -> str:
    """A stranger's text of several lines, without control sequences."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)
