"""The steps of a ramp, and the rule when it moves: no file, no network, no clock (RFC 7469 §4.1, §4.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from dynpin.counts import counted
from dynpin.durations import duration
from dynpin.header import PublicKeyPins

__all__ = [
    "ASK_EVERY",
    "DEFAULT_STEPS",
    "REPORT_URI",
    "CollectorAnswer",
    "Position",
    "Ramp",
    "Step",
    "decide",
    "header_at",
    "reported",
    "shown",
    "unheard",
]

# Seconds between two questions to the collector, and the longest time between two answers that counts as quiet.
ASK_EVERY = 300
_LONGEST_GAP = 3 * ASK_EVERY

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
# The path of a report-uri of dynpin's collector. The text before it is the collector's address.
REPORT_URI = re.compile(r"(?P<collector>https?://.+)/r/(?P<token>[^/?#]+)/enforce")


@dataclass(frozen=True, slots=True)
class Step:
    """One step: the max-age, and how many seconds of quiet it needs.

    `max_age` is in seconds; None means report-only.
    """

    max_age: int | None
    stay: int


DEFAULT_STEPS = (
    Step(None, 7 * _DAY),
    Step(5 * _MINUTE, _DAY),
    Step(_HOUR, 2 * _DAY),
    Step(_DAY, 4 * _DAY),
    Step(7 * _DAY, 14 * _DAY),
)


@dataclass(frozen=True, slots=True)
class Ramp:
    """The ramp of one site.

    Attributes:
        steps: the steps before the target, each with a longer max-age than the one before.
        target: the last max-age, in seconds.
        collector: the address of the collector of reports, without a slash at its end.
        token: the token of this policy in the report-uri.
        report_uri: the address for reports. Before each move the ramp checks that it takes reports.
        state: the file that keeps the position.
        token_file: the file with a token of the collector's API in the first line; None: use DYNPIN_COLLECTOR_TOKEN, if
            it is set.
        ca: the file of roots, PEM, for a collector on https; None: the roots of the system.
        hosts: the hosts of the policy. The token must be able to read about them.
        is_on: whether the policy is enforced. If it is report-only or unpinned, the ramp starts again.
    """

    steps: tuple[Step, ...]
    target: int
    collector: str
    token: str
    report_uri: str
    state: Path
    token_file: Path | None = None
    ca: Path | None = None
    hosts: tuple[str, ...] = ()
    is_on: bool = True

    @property
    def levels(self) -> tuple[int | None, ...]:
        """The max-age of each step and the target, upwards; None means report-only."""
        return (*(step.max_age for step in self.steps), self.target)

    def begin(self, now: float) -> Position:
        """The position at the start of the ramp."""
        return Position(began_at=int(now), max_age=self.levels[0])

    def stay(self, max_age: int | None) -> int:
        """How many seconds of quiet this max-age needs before the next one."""
        passed = [step for step in self.steps if _height(step.max_age) <= _height(max_age)]
        # The steps may have been edited. Use the highest step that has been reached.
        return max(passed or self.steps[:1], key=lambda step: _height(step.max_age)).stay if self.steps else 0

    def above(self, max_age: int | None) -> int | None:
        """The next max-age, or None at the end."""
        return next((each for each in self.levels if each is not None and each > _height(max_age)), None)

    def below(self, max_age: int | None) -> int | None:
        """The max-age of the step before; at the start, the same."""
        lower = [each for each in self.levels if _height(each) < _height(max_age)]
        return lower[-1] if lower else max_age


@dataclass(frozen=True, slots=True)
class Position:
    """The position on a ramp. Times are seconds since the epoch, UTC.

    Attributes:
        began_at: when the ramp began; earlier reports do not count.
        max_age: the current max-age, in seconds; None means report-only.
        waited: seconds of quiet at this step, counted only while the collector answered.
        asked_at: when the collector last answered, or None.
        disturbed_at: when the last report that counts came, by the collector's clock, or None.
        open_groups: how many groups of reports nobody has looked at.
        is_held: whether a person holds the ramp.
        failure: why the collector could not be asked; empty if it answered.
    """

    began_at: int
    max_age: int | None
    waited: float = 0.0
    asked_at: float | None = None
    disturbed_at: float | None = None
    open_groups: int = 0
    is_held: bool = False
    failure: str = ""


class CollectorAnswer(NamedTuple):
    """The collector's answer about a policy, or why there is none. Times are seconds since the epoch, by its clock.

    Attributes:
        last_report_at: when the last report that counts came, or None.
        open_groups: how many groups of reports nobody has looked at.
        failure: why there is no answer; empty if there is one.
        newest_at: when the last report came, also of muted groups, or None.
    """

    last_report_at: float | None = None
    open_groups: int = 0
    failure: str = ""
    newest_at: float | None = None


def decide(position: Position, ramp: Ramp, answer: CollectorAnswer, now: float) -> Position:
    """The new position after an answer at `now`.

    The ramp moves up when a step's time has passed without a report. A report starts that time again. An open group
    holds the ramp until somebody has looked at it. The ramp never moves down by itself: a report may be the sign of an
    attack, and attackers or forged reports must not weaken the policy. Time without an answer of the collector, or
    while the server did not run, does not count. At most a quarter of an hour counts at once, in case the clock jumps.
    """
    # If the clock was ahead when the ramp began, reports before that time must still count.
    position = replace(position, began_at=min(position.began_at, int(now)))
    failure = unheard(position, answer)
    if failure:
        return replace(position, failure=failure)
    gap = 0.0 if position.asked_at is None else min(max(0.0, now - position.asked_at), _LONGEST_GAP)
    waited, disturbed_at, came_at = position.waited + gap, position.disturbed_at, answer.last_report_at
    # If the collector's clock was ahead, a report is in the future. It disturbs once, not until that time. While it is
    # the last report, later ones are not visible by their time, but by the groups that they open.
    is_ahead = came_at is not None and came_at > now
    if disturbed_at is not None and not is_ahead:
        disturbed_at = min(disturbed_at, now)
    if came_at is not None and (disturbed_at is None or came_at > disturbed_at or (is_ahead and answer.open_groups)):
        waited, disturbed_at = 0.0, came_at
    seen = replace(
        position,
        waited=waited,
        asked_at=now,
        disturbed_at=disturbed_at,
        open_groups=answer.open_groups,
        failure="",
    )
    above = ramp.above(seen.max_age)
    if above is None or seen.is_held or seen.open_groups or waited < ramp.stay(seen.max_age):
        return seen
    return replace(seen, max_age=above, waited=0.0)


def unheard(position: Position, answer: CollectorAnswer) -> str:
    """Why the collector's answer says nothing about the time until now; empty if it does."""
    if answer.failure:
        return answer.failure
    disturbed_at = position.disturbed_at
    if position.open_groups and disturbed_at is not None and (answer.newest_at or 0.0) < disturbed_at:
        return (
            "the collector has lost reports that nobody had looked at (is its database new, or was it pruned?); "
            "dynpin ramp restart starts again"
        )
    return ""


def header_at(header: PublicKeyPins, max_age: int | None) -> PublicKeyPins:
    """The target's header, with the max-age of the current step."""
    if max_age is None:
        uri = header.report_uri and re.sub("/enforce$", "/report-only", header.report_uri)
        return replace(header, max_age=None, report_uri=uri, report_only=True)
    return replace(header, max_age=min(max_age, header.max_age or 0))


def shown(max_age: int | None) -> str:
    """A step, as text."""
    return "report-only" if max_age is None else f"max-age of {duration(max_age)}"


def reported(position: Position, ramp: Ramp) -> str:
    """The reports of clients, as text."""
    open_groups = position.open_groups
    are = "is" if open_groups == 1 else "are"
    return f"{counted(open_groups, 'group')} of reports {are} open at {ramp.collector}"


def _height(max_age: int | None) -> int:
    return -1 if max_age is None else max_age
