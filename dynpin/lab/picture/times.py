"""The time axis: events that are seconds or months apart."""

from __future__ import annotations

from dataclasses import dataclass

from dynpin.durations import duration
from dynpin.lab.timeline import Event, Timeline, day

__all__ = ["Moment", "moments"]

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Moment:
    """One event at its place.

    Attributes:
        number: counted from 1; texts refer to the event by it.
        event: the event.
        sentence: the event in words.
        when: the time in words, such as ``"day 30"``.
        gap: how long nothing happened before it, such as ``"29 days"``; empty if `when` did not change.
    """

    number: int
    event: Event
    sentence: str
    when: str
    gap: str


def moments(timeline: Timeline) -> list[Moment]:
    """The events in order of time, each with its heading."""
    found: list[Moment] = []
    for number, event in enumerate(timeline.events, start=1):
        before = found[-1] if found else None
        when = day(event.at)
        gap = "" if before is None or before.when == when else _length(event.at - before.event.at)
        found.append(Moment(number, event, timeline.sentence(event), when, gap))
    return found


def _length(seconds: float) -> str:
    return {60: "1 minute", 3600: "1 hour", _DAY: "1 day"}.get(round(seconds)) or duration(seconds)
