"""The root that each client has noted: the rule of :mod:`dynpin.recovery`, for many clients at once.

A site's header names its owner's root, and an attacker's header the attacker's own, as in the stories of the lab.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynpin.recovery import ADOPTION

from .visits import Integers

__all__ = ["NOBODY", "OWNER", "THIEF", "Roots"]

NOBODY, OWNER, THIEF = 0, 1, 2
# A root that ends with the pins, and no other root was offered.
_WITH_PINS = -1
_ADOPTION = int(ADOPTION)


@dataclass
class Roots:
    """What each client has noted besides its pins; the fields of :class:`dynpin.recovery.NotedRecovery`."""

    standing: Integers
    until: Integers
    version: Integers
    offered: Integers
    offered_at: Integers

    @classmethod
    def of(cls, clients: int) -> Roots:
        """No root is noted yet."""
        nothing = np.zeros(clients, np.int64)
        return cls(nothing, np.full(clients, _WITH_PINS, np.int64), nothing.copy(), nothing.copy(), nothing.copy())

    def ends(self, who: Integers, expires_at: Integers) -> Integers:
        """The last second of each root, from that of the pins."""
        until = self.until[who]
        return np.where(until == _WITH_PINS, expires_at, until)

    def keep(self, who: Integers, expires_at: Integers, now: Integers) -> None:
        """Remove living pins, but keep the root until they would have expired."""
        alive = expires_at >= now
        who, expires_at, now = who[alive], expires_at[alive], now[alive]
        ends = self.ends(who, expires_at)
        gone = who[ends < now]
        self.standing[gone], self.version[gone] = NOBODY, 0
        self.until[who] = np.where(ends < now, expires_at, ends)
        self.offered[who] = NOBODY

    def is_plain(
        self, who: Integers, expires_at: Integers, now: Integers, named: int, max_age: int
    ) -> NDArray[np.bool_]:
        """Whether visits from `now` on with this root only change its end, which is that of the pins.

        That is so if the host is unknown, or if this root is noted and the pins are not shortened.
        """
        ends = self.ends(who, expires_at)
        lives = ends >= now
        same = (
            (ends <= now + max_age)
            & (self.standing[who] == named)
            & (self.until[who] == _WITH_PINS)
            & (self.offered[who] == NOBODY)
        )
        plain: NDArray[np.bool_] = np.where(lives, same, expires_at < now)
        return plain

    def begin(self, who: Integers, named: int) -> None:
        """Note the first header of unknown hosts."""
        self.standing[who], self.until[who], self.version[who], self.offered[who] = named, _WITH_PINS, 0, NOBODY

    def adopt(
        self, who: Integers, expires_at: Integers, now: Integers, named: int, renewed: Integers
    ) -> NDArray[np.bool_]:
        """Note one header of each client; returns the clients whose noted root or end has changed.

        Args:
            who: the clients.
            expires_at: the last second of their pins, or an earlier one if there are none.
            now: the seconds of their visits.
            named: the root that the header names.
            renewed: the last second of the pins that the header sets.
        """
        everyone, before = who, self._rows(who)
        ends = self.ends(who, expires_at)
        lives, alive = ends >= now, expires_at >= now
        self.begin(who[~lives & ~alive], named)
        gone = who[~lives & alive]
        self.standing[gone], self.version[gone] = NOBODY, 0
        known = np.flatnonzero(lives | alive)
        who, now, renewed = who[known], now[known], renewed[known]
        ends = np.where(lives, ends, expires_at)[known]
        other = (self.standing[who] != NOBODY) & (self.standing[who] != named)
        self.until[who] = np.where(other | (ends > renewed), ends, _WITH_PINS)
        offers = ~other & (self.standing[who] == NOBODY)
        again = offers & (self.offered[who] == named)
        adopted = again & (now - self.offered_at[who] >= _ADOPTION)
        self.offered[who[~offers | adopted]] = NOBODY
        self.standing[who[adopted]] = named
        first = who[offers & ~again]
        self.offered[first], self.offered_at[first] = named, now[offers & ~again]
        changed: NDArray[np.bool_] = (self._rows(everyone) != before).any(axis=0)
        return changed

    def _rows(self, who: Integers) -> Integers:
        offered = self.offered[who]
        at = np.where(offered == NOBODY, 0, self.offered_at[who])
        return np.stack((self.standing[who], self.until[who], self.version[who], offered, at))
