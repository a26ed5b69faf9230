"""The time axis: moments that lie seconds or months apart, in columns that a reader can follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dynpin.durations import duration
from dynpin.lab.timeline import Event, Timeline, day

__all__ = ["Moment", "moments", "rows"]

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Moment:
    """One event in its column.

    Attributes:
        number: counted from 1; what is written beside the event refers to it.
        event: what happened.
        sentence: the same in words.
        when: the time in words, such as ``"day 30"``.
        gap: how long nothing was told before it, such as ``"29 days"``; empty where the same `when` goes on.
    """

    number: int
    event: Event
    sentence: str
    when: str
    gap: str


def moments(timeline: Timeline) -> list[Moment]:
    """The events in the order of time, each with its column's heading."""
    found: list[Moment] = []
    for number, event in enumerate(timeline.events, start=1):
        before = found[-1] if found else None
        when = day(event.at)
        gap = "" if before is None or before.when == when else _length(event.at - before.event.at)
        found.append(Moment(number, event, timeline.sentence(event), when, gap))
    return found


def _length(seconds: float) -> str:
    return {60: "1 minute", 3600: "1 hour", _DAY: "1 day"}.get(round(seconds)) or duration(seconds)


def rows(found: Sequence[Moment], most: int) -> list[list[Moment]]:
    """The moments in rows of about the same length and at most `most`, as a score is broken into systems."""
    if not found:
        return []
    count = -(-len(found) // most)
    each, longer = divmod(len(found), count)
    ends = [each * (number + 1) + min(number + 1, longer) for number in range(count)]
    return [list(found[end - each - (number < longer) : end]) for number, end in enumerate(ends)]
