"""What a ramp sent before its file begins: that file may have been lost, and be younger than the history.

Without it, max-age may have grown up to the target, and clients may hold the pins for as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from .history import History, Published

if TYPE_CHECKING:
    from dynpin.middleware.policy.ramp import Ramp

__all__ = ["unknown_steps"]


def unknown_steps(
    history: History, ramp: Ramp, sent: Sequence[tuple[float, int | None]], now: float
) -> list[tuple[float, int | None]]:
    """The steps that a ramp may have taken before the first known one: pairs of time and max-age, oldest first.

    A step needs its time. So there is none if the server started soon after the header was recorded.

    Args:
        history: the recorded events.
        ramp: the ramp of the site.
        sent: its known steps, oldest first.
        now: seconds since the epoch, UTC.
    """
    until = sent[0][0] if sent else now
    published = [event for event in history.events if isinstance(event, Published) and event.at < until]
    steps: list[tuple[float, int | None]] = []
    has_climbed = False
    for event, after in pairwise([*published, Published(until, None)]):
        if event.header is None or event.is_assumed or event.header.max_age == 0:
            continue
        at, max_age = event.at, event.header.max_age
        steps.append((at, max_age))
        while (above := ramp.above(max_age)) is not None and at + ramp.stay(max_age) < after.at:
            at, max_age, has_climbed = at + ramp.stay(max_age), above, True
            steps.append((at, max_age))
    return steps if has_climbed else []
