"""Play clients in a world: epoch by epoch, all clients at once.

Within an epoch only visits change anything, and most visits change only the expiry. So only two visits of each client
in an epoch matter: the first accepted one, after which the entry is that of the header, and the last one, which decides
the expiry. Both are found by binary search. The result is the same as that of playing every visit in turn.

If sites have signed lists, each look of a client ends one stretch and begins another: see :mod:`.healing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dynpin.lab.simulation.visits import Integers, Visits, ranges
from dynpin.lab.simulation.world import KEPT, NO_ENTRY, Epoch, World

__all__ = ["Booleans", "Game", "Ledger", "Stores", "Stretch", "play"]

Booleans = NDArray[np.bool_]


class Ledger(Protocol):
    """Records what happens. Stretches are in seconds, without their end; all arrays have the same length."""

    def locked_out(self, clients: Integers, start: Integers, end: Integers) -> None:
        """Stretches in which a client's store refuses the site."""

    def waited(self, clients: Integers, start: Integers, end: Integers) -> None:
        """Stretches in which a client had been refused by the site, and would still be refused."""

    def fooled(self, clients: Integers, start: Integers, end: Integers) -> None:
        """Stretches in which an attacker has a client: from the client's visit to the end of the attack."""

    def refused(self, clients: Integers, first: Integers, end: Integers, *, attacker: bool) -> None:
        """Visits that Pin Validation refused, by the range of their indices: at an attacker's server or the site's."""

    def pinned(self, second: int, clients: int) -> None:
        """How many clients have living pins at the start of an epoch."""


@dataclass
class Stores:
    """The content of each client's store.

    Attributes:
        entry: the row of the entry in the world's rules; `NO_ENTRY` for none.
        expires_at: the last second at which it is alive.
    """

    entry: Integers
    expires_at: Integers


@dataclass
class Stretch:
    """Some clients, each with a period in which only its visits change anything.

    Attributes:
        who: the clients.
        first: the index of each client's first visit in the stretch.
        end: the index after its last visit.
        since: the first second of the stretch.
        until: the second after its last.
    """

    who: Integers
    first: Integers
    end: Integers
    since: Integers
    until: Integers

    def only(self, kept: Integers) -> Stretch:
        """The same stretch for some of its clients."""
        return Stretch(self.who[kept], self.first[kept], self.end[kept], self.since[kept], self.until[kept])


class Meeting(Protocol):
    """How clients of sites with signed lists visit a face."""

    def meet(self, stretch: Stretch, face: int, *, attacker: bool) -> Integers:
        """Like :meth:`Game.meet`."""
        ...


def play(world: World, visits: Visits, targets: Booleans, ledger: Ledger, *, least_step: float = 0.0) -> Stores:
    """Let clients visit, until the horizon.

    Args:
        world: the policy in its calendar.
        visits: when they visit.
        targets: whether each attack (row) reaches each client (column).
        ledger: records what happens.
        least_step: the share of max-age by which an expiry must move to be written. It is 0.01 in dynpin's store, so
            that a busy client does not write at every response. It is 0 by the letter of RFC 7469 §2.3.3.

    Returns:
        the stores at the end.
    """
    game = Game(world, visits, ledger, least_step)
    game.play(targets, game)
    return game.stores


class Game:
    """The state of all clients, and the current epoch."""

    def __init__(self, world: World, visits: Visits, ledger: Ledger, least_step: float) -> None:
        self.world, self.rules, self.visits, self.ledger = world, world.rules, visits, ledger
        # The store's rule: the expiry must move by more than this, in whole seconds.
        self.least_step = np.floor(least_step * self.rules.max_age).astype(np.int64) if least_step else None
        self.everyone = np.arange(len(visits), dtype=np.int64)
        self.stores = Stores(np.zeros(len(visits), np.int64), np.full(len(visits), -1, np.int64))
        self.starts = self.ends = visits.starts[:-1]
        self.fooled_until = np.zeros(len(visits), np.int64)
        self.waits = np.zeros(len(visits), np.bool_)

    def play(self, targets: Booleans, meeting: Meeting) -> None:
        """Play all epochs. `meeting` plays the visits of clients to a face."""
        for epoch in self.world.epochs:
            self._begin(epoch)
            with_attacker = np.zeros(len(self.visits), np.bool_)
            for attack, face in epoch.attacks:
                theirs = targets[attack] & ~with_attacker
                with_attacker |= theirs
                stretch = self._stretch(np.flatnonzero(theirs))
                until = min(self.world.attacks[attack].until, self.visits.horizon)
                self._tell_fooled(stretch, meeting.meet(stretch, face, attacker=True), until)
            who = np.flatnonzero(~with_attacker) if epoch.attacks else self.everyone
            meeting.meet(self._stretch(who), epoch.site, attacker=False)

    def _begin(self, epoch: Epoch) -> None:
        self.epoch = epoch
        self.starts = self.ends
        self.ends = self.visits.index(self.everyone, epoch.end)
        alive = (self.stores.entry != NO_ENTRY) & (self.stores.expires_at >= epoch.start)
        self.ledger.pinned(epoch.start, int(np.count_nonzero(alive)))

    def _stretch(self, who: Integers) -> Stretch:
        start, end = (np.full(who.size, second, np.int64) for second in (self.epoch.start, self.epoch.end))
        return Stretch(who, self.starts[who], self.ends[who], start, end)

    def second_of(self, stretch: Stretch, index: Integers) -> Integers:
        """The second of one visit of each client; the end of the stretch if the index is past its last visit."""
        second = stretch.until.copy()
        real = index < stretch.end
        second[real] = self.visits.second(stretch.who[real], index[real])
        return second

    def _tell_fooled(self, stretch: Stretch, first: Integers, until: int) -> None:
        """Record the time from a visit to the end of the attack, without the part recorded for an earlier visit."""
        who = stretch.who
        since = np.where(first < stretch.end, self.second_of(stretch, first), until)
        since = np.maximum(since, self.fooled_until[who])
        had = np.flatnonzero(since < until)
        self.fooled_until[who[had]] = until
        self.ledger.fooled(who[had], since[had], np.full(had.size, until, np.int64))

    def meet(self, stretch: Stretch, face: int, *, attacker: bool) -> Integers:
        """Let clients visit one face; returns the index of each client's first accepted visit."""
        first, noted, becomes = self.face(stretch, face, attacker=attacker)
        if becomes != KEPT:
            self.note(noted, becomes, face)
        return first

    def face(self, stretch: Stretch, face: int, *, attacker: bool, notes: bool = True) -> tuple[Integers, Stretch, int]:
        """Pin Validation of one face (RFC 7469 §2.6).

        Args:
            stretch: the clients and their visits.
            face: the face.
            attacker: whether it is an attacker's.
            notes: whether a header changes the clients' entries.

        Returns:
            the index of each client's first accepted visit; the stretch from that visit on, for the clients that have
            one; and the new entry.
        """
        who, first = stretch.who, stretch.first
        entry, expires_at = self.stores.entry[who], self.stores.expires_at[who]
        accepted = self.rules.accepts[entry, face]
        if not attacker:
            self.waits[who[accepted]] = False
        # §2.6: the entry refuses a chain without its pins, until the entry has expired (§2.3.3).
        bad = np.flatnonzero(~accepted)
        if bad.size:
            refused = stretch.only(bad)
            released = np.clip(self.visits.index(who[bad], expires_at[bad] + 1), refused.first, refused.end)
            self.ledger.refused(who[bad], refused.first, released, attacker=attacker)
            if not attacker:
                self._tell_waited(refused, released, expires_at[bad])
            first = first.copy()
            first[bad] = released
        becomes = int(self.rules.becomes[NO_ENTRY, face])
        if not notes:
            becomes = KEPT
        elif becomes == KEPT and bool((self.rules.becomes[:, face] == NO_ENTRY).any()):
            becomes = NO_ENTRY
        until = expires_at + 1
        if becomes != KEPT:
            until = np.minimum(until, self.second_of(stretch, first))
        self._tell_locked_out(stretch, entry, until)
        noted = stretch.only(np.flatnonzero(first < stretch.end))
        noted.first = first[first < stretch.end]
        return first, noted, becomes

    def _tell_locked_out(self, stretch: Stretch, entry: Integers, until: Integers) -> None:
        refuses = np.flatnonzero(~self.rules.accepts[entry, self.epoch.site] & (until > stretch.since))
        if refuses.size:
            out = stretch.only(refuses)
            self.ledger.locked_out(out.who, out.since, np.minimum(until[refuses], out.until))

    def _tell_waited(self, refused: Stretch, released: Integers, expires_at: Integers) -> None:
        """Record the time from the first visit at which the site refused itself, to the end of the lock-out."""
        who = refused.who
        tried = released > refused.first
        since = np.where(self.waits[who], refused.since, self.second_of(refused, refused.first))
        until = np.minimum(refused.until, expires_at + 1)
        told = np.flatnonzero((self.waits[who] | tried) & (since < until))
        if told.size:
            self.ledger.waited(who[told], since[told], until[told])
        self.waits[who] = (self.waits[who] | tried) & (expires_at + 1 >= refused.until)

    def note(self, stretch: Stretch, becomes: int, face: int) -> None:
        """Note the header, from the first accepted visit to the last of the stretch."""
        who, first, end = stretch.who, stretch.first, stretch.end
        if becomes == NO_ENTRY:
            self.stores.entry[who] = NO_ENTRY
            return
        max_age = int(self.rules.max_age[face])
        if self.least_step is not None:
            self._note_by_steps(stretch, becomes, max_age, int(self.least_step[face]))
            return
        self.stores.entry[who] = becomes
        self.stores.expires_at[who] = self.visits.second(who, end - 1) + max_age
        if self.locks_out(becomes):
            # The site's chain does not match the pins of an attacker: from each visit to the next, or to their expiry.
            each, client = ranges(first, end), np.repeat(who, end - first)
            start = self.visits.second(client, each)
            following = np.append(start[1:], 0)
            following[np.cumsum(end - first) - 1] = stretch.until
            self.ledger.locked_out(client, start, np.minimum(following, start + max_age + 1))

    def locks_out(self, entry: int) -> bool:
        """Whether an entry refuses the site in its current state."""
        return not self.rules.accepts[entry, self.epoch.site]

    def _note_by_steps(self, stretch: Stretch, becomes: int, max_age: int, least_step: int) -> None:
        """The same, if an expiry that moves by at most `least_step` is not written."""
        entry, expires_at = self.stores.entry, self.stores.expires_at
        locks_out = self.locks_out(becomes)
        who, first = stretch.who, stretch.first
        # An entry that is alive and equal may stay unwritten at the first visit, and at some more.
        moved = self.visits.second(who, first) + max_age - expires_at[who]
        stands = np.flatnonzero((entry[who] == becomes) & (moved >= 0) & (moved <= least_step))
        at = first.copy()
        at[stands] = self.visits.index(who[stands], expires_at[who[stands]] - max_age + least_step + 1)
        if locks_out:
            same = stretch.only(stands)
            until = np.minimum(self.second_of(same, at[stands]), expires_at[same.who] + 1)
            self.ledger.locked_out(same.who, self.visits.second(same.who, same.first), until)
        while True:
            more = np.flatnonzero(at < stretch.end)
            if not more.size:
                return
            stretch, at = stretch.only(more), at[more]
            who = stretch.who
            written = self.visits.second(who, at)
            entry[who], expires_at[who] = becomes, written + max_age
            at = self.visits.index(who, written + least_step + 1)
            if locks_out:
                following = self.second_of(stretch, at)
                self.ledger.locked_out(who, written, np.minimum(following, written + max_age + 1))
