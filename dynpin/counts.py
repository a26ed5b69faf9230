"""Numbers of things, as text."""

from __future__ import annotations

__all__ = ["counted", "plural"]


def counted(number: int, thing: str) -> str:
    """A number of things: ``"1 group"``, ``"2,000 groups"``. The plural of `thing` must end with one s more."""
    return f"{number:,} {plural(number, thing)}"


def plural(number: float, thing: str) -> str:
    """The thing in the singular or plural: ``"group"`` for 1, ``"groups"`` for 0, 2 and so on."""
    return thing if number == 1 else f"{thing}s"
