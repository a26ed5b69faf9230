"""Numbers and times as people read them."""

from __future__ import annotations

from dynpin.report import rfc3339

__all__ = ["ago", "count", "one_line", "several", "things", "when", "without_controls"]


def when(seconds: float | None) -> str:
    """A time to the minute, UTC."""
    return "unknown" if seconds is None else rfc3339(seconds)[:16].replace("T", " ")


def ago(seconds: float, now: float) -> str:
    """How long ago, in the largest unit that fits."""
    elapsed = now - seconds
    if elapsed < 60:
        return "just now"
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if elapsed >= size:
            return f"{several(int(elapsed // size), name)} ago"
    return "just now"


def several(number: int, thing: str) -> str:
    """A number of things: ``1 group``, ``2,000 groups``."""
    return f"{count(number)} {things(number, thing)}"


def things(number: int, thing: str) -> str:
    """The word for a number of things, without the number: ``group``, ``groups``."""
    return thing if number == 1 else f"{thing}s"


def count(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}"


def one_line(text: str, longest: int = 200) -> str:
    """What a stranger wrote, as a log or a terminal may show it: no line and no control sequence of its own."""
    return "".join(character if character.isprintable() else "?" for character in text[:longest])


def without_controls(text: str) -> str:
    """Text of several lines that a stranger wrote, without what a terminal would obey."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)
