"""When each client looks at the signed list: the schedule of :mod:`dynpin.clientstore.store`, for many clients at once.

After a refusal the client looks at the list, at once or 30 seconds after its last look. If a look changes nothing it is
repeated after 30 seconds, 1, 2, 4 minutes and so on up to an hour, until a day after the last refusal. A client that
follows a list also looks daily. A look takes one second here: its result is known in the next second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .study_table import DAY
from .visits import Integers

__all__ = ["NEVER", "Looks"]

# Later than any study, even after a day is added.
NEVER = 1 << 60
_SOONEST, _LONGEST = 30, 3_600
# Seconds from a look to the next, by the number of failures before. The last value is for all further ones.
_GAPS = np.minimum(_SOONEST * 2 ** np.arange(8, dtype=np.int64), _LONGEST) + 1
_LAST = _GAPS.size - 1
_SUMS = np.concatenate(([0], np.cumsum(_GAPS[:-1])))


class Looks:
    """The looks of some clients.

    Args:
        clients: the number of clients.
        first: for clients that follow a list, the second of each one's first look; None if they do not follow it.

    Attributes:
        next: the second of each client's next look, or `NEVER`.
        looked: the second at which the result of the last look was known.
        asked: the second of the refusal that the looks are for, or minus `NEVER`.
        attempts: how many looks in a row changed nothing.
    """

    def __init__(self, clients: int, first: Integers | None) -> None:
        self.follows = first is not None
        self.next = np.full(clients, NEVER, np.int64) if first is None else first.copy()
        self.looked = np.full(clients, -NEVER, np.int64)
        self.asked = np.full(clients, -NEVER, np.int64)
        self.attempts = np.zeros(clients, np.int64)

    def ask(self, who: Integers, now: Integers) -> None:
        """These clients were refused."""
        self.attempts[who[now - self.asked[who] > DAY]] = 0
        self.asked[who] = now
        self.next[who] = np.minimum(self.next[who], np.maximum(now, self.looked[who] + _SOONEST))

    def drop(self, who: Integers) -> None:
        """These clients note the host anew, after it was forgotten. Their requests are forgotten too."""
        if not self.follows:
            self.next[who], self.looked[who], self.asked[who], self.attempts[who] = NEVER, -NEVER, -NEVER, 0

    def done(self, who: Integers, changed: NDArray[np.bool_]) -> None:
        """These clients have looked. `changed` says whose pins have changed."""
        now = self.next[who] + 1
        gap = _GAPS[np.minimum(self.attempts[who], _LAST)]
        over = changed | (now - self.asked[who] >= DAY)
        self.asked[who[changed]] = -NEVER
        self.attempts[who] = np.where(over, 0, self.attempts[who] + 1)
        self.looked[who] = now
        self.next[who] = np.where(over, now + DAY if self.follows else NEVER, now - 1 + gap)

    def skip(self, who: Integers, target: Integers) -> None:
        """Skip the looks of these clients before a second, since none of them changes anything."""
        begun, since = self.attempts[who], self.next[who]
        wanted = _looks_before(begun, target - since)
        # The last look for this refusal is the first whose result is known a day after the refusal.
        last = _looks_before(begun, self.asked[who] + DAY - 1 - since)
        ends = last < wanted
        passed = np.where(ends, last, wanted)
        at = since + _after(begun, passed)
        moved = passed > 0
        self.looked[who[moved]] = (since + _after(begun, passed - 1))[moved] + 1
        self.attempts[who] = begun + passed
        self.next[who] = at
        over, at = who[ends], at[ends]
        self.attempts[over], self.looked[over], self.next[over] = 0, at + 1, NEVER
        if self.follows:
            days = np.maximum(-(-(target[ends] - at) // (DAY + 1)), 1)
            self.looked[over] = at + (days - 1) * (DAY + 1) + 1
            self.next[over] = at + days * (DAY + 1)


def _after(attempts: Integers, looks: Integers) -> Integers:
    """Seconds from a look to the look that is so many later."""
    seconds: Integers = _sum(attempts + looks) - _sum(attempts)
    return seconds


def _sum(looks: Integers) -> Integers:
    seconds: Integers = _SUMS[np.clip(looks, 0, _LAST)] + np.maximum(looks - _LAST, 0) * _GAPS[-1]
    return seconds


def _looks_before(attempts: Integers, seconds: Integers) -> Integers:
    """How many looks begin before so many seconds have passed since the first look, which counts as well."""
    wanted = _sum(attempts) + np.maximum(seconds, 0)
    many = np.searchsorted(_SUMS, wanted)  # the first at or after it
    beyond = _LAST - (-(wanted - _SUMS[-1]) // _GAPS[-1])
    looks: Integers = np.maximum(np.where(many > _LAST, beyond, many) - attempts, 0)
    return looks
