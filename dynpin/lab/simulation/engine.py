"""Clients against a world: epoch by epoch, all clients at once.

Within an epoch nothing changes but by visits, and most visits change nothing but the expiry. So of each client's visits
in an epoch two decide: the first that is accepted, from which on the entry is that of the header, and the last, from
which the expiry counts. Both are found by binary search; the outcome is that of playing every visit in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dynpin.lab.simulation.visits import Integers, Visits, ranges
from dynpin.lab.simulation.world import KEPT, NO_ENTRY, Epoch, World

__all__ = ["Ledger", "Stores", "play"]

Booleans = NDArray[np.bool_]


class Ledger(Protocol):
    """Who writes down what happens. Stretches are of seconds, the end excluded; all arrays have one length."""

    def locked_out(self, clients: Integers, start: Integers, end: Integers) -> None:
        """Stretches in which a client's store refuses the site."""

    def fooled(self, clients: Integers, start: Integers, end: Integers) -> None:
        """Stretches in which an attacker has a client: from a visit that was his, until the attack ends."""

    def refused(self, clients: Integers, first: Integers, end: Integers, *, attacker: bool) -> None:
        """Visits that Pin Validation ended, by the range of their indices: the attacker's, or the site's own."""

    def pinned(self, second: int, clients: int) -> None:
        """How many clients hold pins that are alive at the start of an epoch."""


@dataclass
class Stores:
    """What each client's store holds.

    Attributes:
        entry: the row of the entry in the world's rules; `NO_ENTRY` for none.
        expires_at: the last second at which it is alive.
    """

    entry: Integers
    expires_at: Integers


def play(world: World, visits: Visits, targets: Booleans, ledger: Ledger, *, least_step: float = 0.0) -> Stores:
    """Let clients visit, until the horizon.

    Args:
        world: the policy in its calendar.
        visits: when they visit.
        targets: whether each attack (row) reaches each client (column).
        ledger: is told what happens.
        least_step: the share of max-age by which an expiry must move to be written. dynpin's store has 0.01, so that
            a busy client does not write on every response; by the letter of RFC 7469 §2.3.3 it is 0.

    Returns:
        the stores at the end.
    """
    game = _Game(world, visits, ledger, least_step)
    for epoch in world.epochs:
        game.begin(epoch)
        with_attacker = np.zeros(len(visits), np.bool_)
        for attack, face in epoch.attacks:
            theirs = targets[attack] & ~with_attacker
            with_attacker |= theirs
            who = np.flatnonzero(theirs)
            game.tell_fooled(who, game.meet(who, face, attacker=True), min(world.attacks[attack].until, visits.horizon))
        game.meet(np.flatnonzero(~with_attacker) if epoch.attacks else game.everyone, epoch.site, attacker=False)
    return game.stores


class _Game:
    """The state of all clients, and the epoch that is played."""

    def __init__(self, world: World, visits: Visits, ledger: Ledger, least_step: float) -> None:
        self.rules, self.visits, self.ledger = world.rules, visits, ledger
        # As the store compares: the expiry must move by more than this, in whole seconds.
        self.least_step = np.floor(least_step * self.rules.max_age).astype(np.int64) if least_step else None
        self.everyone = np.arange(len(visits), dtype=np.int64)
        self.stores = Stores(np.zeros(len(visits), np.int64), np.full(len(visits), -1, np.int64))
        self.starts = self.ends = visits.starts[:-1]
        self.fooled_until = np.zeros(len(visits), np.int64)

    def begin(self, epoch: Epoch) -> None:
        self.epoch = epoch
        self.starts = self.ends
        self.ends = self.visits.index(self.everyone, epoch.end)
        alive = (self.stores.entry != NO_ENTRY) & (self.stores.expires_at >= epoch.start)
        self.ledger.pinned(epoch.start, int(np.count_nonzero(alive)))

    def second_of(self, who: Integers, index: Integers, otherwise: int) -> Integers:
        """The seconds of visits of this epoch; `otherwise` where the index is past the epoch's last."""
        second = np.full(who.size, otherwise, np.int64)
        real = index < self.ends[who]
        second[real] = self.visits.second(who[real], index[real])
        return second

    def tell_fooled(self, who: Integers, first: Integers, until: int) -> None:
        """Who is an attacker's from a visit until the attack ends, but for what has been told of an earlier one."""
        since = np.maximum(self.second_of(who, first, until), self.fooled_until[who])
        had = np.flatnonzero(since < until)
        self.fooled_until[who[had]] = until
        self.ledger.fooled(who[had], since[had], np.full(had.size, until, np.int64))

    def meet(self, who: Integers, face: int, *, attacker: bool) -> Integers:
        """Have clients meet one face for the epoch; returns the index of each one's first visit that is accepted."""
        if not who.size:
            return who
        first, end = self.starts[who], self.ends[who]
        entry, expires_at = self.stores.entry[who], self.stores.expires_at[who]
        # §2.6: an entry that the chain does not satisfy refuses it, until the entry has expired (§2.3.3).
        bad = np.flatnonzero(~self.rules.accepts[entry, face])
        if bad.size:
            released = np.clip(self.visits.index(who[bad], expires_at[bad] + 1), first[bad], end[bad])
            self.ledger.refused(who[bad], first[bad], released, attacker=attacker)
            first = first.copy()
            first[bad] = released
        becomes = int(self.rules.becomes[NO_ENTRY, face])
        if becomes == KEPT and bool((self.rules.becomes[:, face] == NO_ENTRY).any()):
            becomes = NO_ENTRY
        until = expires_at + 1
        if becomes != KEPT:
            until = np.minimum(until, self.second_of(who, first, self.epoch.end))
        self._tell_locked_out(who, entry, until)
        if becomes != KEPT:
            noted = np.flatnonzero(first < end)
            self._note(who[noted], first[noted], end[noted], becomes, face)
        return first

    def _tell_locked_out(self, who: Integers, entry: Integers, until: Integers) -> None:
        refuses = np.flatnonzero(~self.rules.accepts[entry, self.epoch.site] & (until > self.epoch.start))
        if refuses.size:
            start = np.full(refuses.size, self.epoch.start, np.int64)
            self.ledger.locked_out(who[refuses], start, np.minimum(until[refuses], self.epoch.end))

    def _note(self, who: Integers, first: Integers, end: Integers, becomes: int, face: int) -> None:
        """Take in the header, from the first visit that was accepted to the last of the epoch."""
        if becomes == NO_ENTRY:
            self.stores.entry[who] = NO_ENTRY
            return
        max_age = int(self.rules.max_age[face])
        locks_out = not self.rules.accepts[becomes, self.epoch.site]
        if self.least_step is not None:
            step = int(self.least_step[face])
            self._note_by_steps(who, first, end, becomes=becomes, max_age=max_age, least_step=step, locks_out=locks_out)
            return
        self.stores.entry[who] = becomes
        self.stores.expires_at[who] = self.visits.second(who, end - 1) + max_age
        if locks_out:
            # Pins that the site does not satisfy, an attacker's: from each visit to the next, or to their expiry.
            each, client = ranges(first, end), np.repeat(who, end - first)
            start = self.visits.second(client, each)
            following = np.append(start[1:], self.epoch.end)
            following[np.cumsum(end - first) - 1] = self.epoch.end
            self.ledger.locked_out(client, start, np.minimum(following, start + max_age + 1))

    def _note_by_steps(
        self,
        who: Integers,
        first: Integers,
        end: Integers,
        *,
        becomes: int,
        max_age: int,
        least_step: int,
        locks_out: bool,
    ) -> None:
        """The same, where an expiry that moves by no more than `least_step` is not written."""
        entry, expires_at = self.stores.entry, self.stores.expires_at
        at = first
        # An entry that is alive and the same may stand through the first visit, and then for some more.
        moved = self.visits.second(who, first) + max_age - expires_at[who]
        stands = np.flatnonzero((entry[who] == becomes) & (moved >= 0) & (moved <= least_step))
        at = first.copy()
        at[stands] = self.visits.index(who[stands], expires_at[who[stands]] - max_age + least_step + 1)
        if locks_out:
            self.ledger.locked_out(
                who[stands],
                self.visits.second(who[stands], first[stands]),
                np.minimum(self.second_of(who[stands], at[stands], self.epoch.end), expires_at[who[stands]] + 1),
            )
        while True:
            more = np.flatnonzero(at < end)
            if not more.size:
                return
            who, at, end = who[more], at[more], end[more]
            written = self.visits.second(who, at)
            entry[who], expires_at[who] = becomes, written + max_age
            at = self.visits.index(who, written + least_step + 1)
            if locks_out:
                following = self.second_of(who, at, self.epoch.end)
                self.ledger.locked_out(who, written, np.minimum(following, written + max_age + 1))
