"""The sums over clients. They are exact whole numbers, so the order of the additions does not matter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from dynpin.lab.simulation.visits import Integers

__all__ = ["Tally", "Writer"]


@dataclass
class Tally:
    """Sums over clients.

    Attributes:
        clients: how many there are.
        locked_out: at each sample, how many clients' stores refuse the site.
        fooled: at each sample, how many clients an attacker has.
        locked_out_seconds: the sum over clients of the seconds locked out.
        fooled_seconds: the sum over clients of the seconds in an attacker's hands.
        waited_seconds: the sum over clients of the seconds in which the site had refused them, and would still refuse
            them.
        locked_out_squares: the sum over clients of the square of each one's seconds locked out.
        fooled_squares: the same for the seconds in an attacker's hands.
        waited_squares: the same for the seconds waited.
        ever_locked_out: clients that were locked out at any time, whether or not they tried.
        ever_fooled: clients that an attacker had.
        turned_away: clients whose visit to the site was refused.
        protected: clients whose pins refused an attacker, and that were never fooled.
        refused_visits: visits to the site that were refused.
        visits: all visits.
        pinned: at the start of each epoch, how many clients have living pins.
    """

    clients: int
    locked_out: Integers
    fooled: Integers
    locked_out_seconds: int = 0
    fooled_seconds: int = 0
    waited_seconds: int = 0
    locked_out_squares: int = 0
    fooled_squares: int = 0
    waited_squares: int = 0
    ever_locked_out: int = 0
    ever_fooled: int = 0
    turned_away: int = 0
    protected: int = 0
    refused_visits: int = 0
    visits: int = 0
    pinned: dict[int, int] = field(default_factory=dict[int, int])

    @classmethod
    def empty(cls, samples: int) -> Self:
        """Sums of zero, with this many samples."""
        return cls(0, np.zeros(samples, np.int64), np.zeros(samples, np.int64))

    def add(self, other: Tally) -> None:
        """Add the sums over other clients."""
        self.clients += other.clients
        self.locked_out += other.locked_out
        self.fooled += other.fooled
        self.locked_out_seconds += other.locked_out_seconds
        self.fooled_seconds += other.fooled_seconds
        self.waited_seconds += other.waited_seconds
        self.locked_out_squares += other.locked_out_squares
        self.fooled_squares += other.fooled_squares
        self.waited_squares += other.waited_squares
        self.ever_locked_out += other.ever_locked_out
        self.ever_fooled += other.ever_fooled
        self.turned_away += other.turned_away
        self.protected += other.protected
        self.refused_visits += other.refused_visits
        self.visits += other.visits
        for second, count in other.pinned.items():
            self.pinned[second] = self.pinned.get(second, 0) + count


class Writer:
    """A ledger that adds up its records, with a sample every `step` seconds from 0."""

    def __init__(self, clients: int, samples: int, step: int) -> None:
        self._samples, self._step = samples, step
        self._changes = {"locked_out": np.zeros(samples + 1, np.int64), "fooled": np.zeros(samples + 1, np.int64)}
        self._seconds = {name: np.zeros(clients, np.int64) for name in ("locked_out", "fooled", "waited")}
        self._flags = np.zeros((4, clients), np.bool_)
        self._ever_locked_out, self._ever_fooled, self._turned_away, self._foiled = self._flags
        self.tally = Tally.empty(samples)
        self.tally.clients = clients

    def locked_out(self, clients: Integers, start: Integers, end: Integers) -> None:
        """Add stretches in which a client's store refuses the site."""
        self._add("locked_out", clients, start, end)
        self._sample("locked_out", start, end)
        self._ever_locked_out[clients] = True

    def fooled(self, clients: Integers, start: Integers, end: Integers) -> None:
        """Add stretches in which an attacker has a client."""
        self._add("fooled", clients, start, end)
        self._sample("fooled", start, end)
        self._ever_fooled[clients] = True

    def waited(self, clients: Integers, start: Integers, end: Integers) -> None:
        """Add stretches in which a client had been refused by the site, and would still be refused."""
        self._add("waited", clients, start, end)

    def refused(self, clients: Integers, first: Integers, end: Integers, *, attacker: bool) -> None:
        """Add visits that were refused."""
        (self._foiled if attacker else self._turned_away)[clients[end > first]] = True
        if not attacker:
            self.tally.refused_visits += int((end - first).sum())

    def pinned(self, second: int, clients: int) -> None:
        """Add the clients with living pins."""
        self.tally.pinned[second] = clients

    def finished(self, visits: int) -> Tally:
        """The sums, after the last record."""
        tally = self.tally
        tally.locked_out = np.cumsum(self._changes["locked_out"][:-1])
        tally.fooled = np.cumsum(self._changes["fooled"][:-1])
        tally.locked_out_seconds, tally.locked_out_squares = _sums(self._seconds["locked_out"])
        tally.fooled_seconds, tally.fooled_squares = _sums(self._seconds["fooled"])
        tally.waited_seconds, tally.waited_squares = _sums(self._seconds["waited"])
        tally.ever_locked_out = int(np.count_nonzero(self._ever_locked_out))
        tally.ever_fooled = int(np.count_nonzero(self._ever_fooled))
        tally.turned_away = int(np.count_nonzero(self._turned_away))
        tally.protected = int(np.count_nonzero(self._foiled & ~self._ever_fooled))
        tally.visits = visits
        return tally

    def _add(self, name: str, clients: Integers, start: Integers, end: Integers) -> None:
        # A client may occur more than once. The weights are whole numbers below 2**53, so floats add them exactly.
        seconds = np.bincount(clients, (end - start).astype(np.float64), self._seconds[name].size)
        self._seconds[name] += seconds.astype(np.int64)

    def _sample(self, name: str, start: Integers, end: Integers) -> None:
        # A stretch contains the samples from the first one at or after its start to the last one before its end.
        changes = self._changes[name]
        changes += np.bincount(-(-start // self._step), minlength=changes.size)[: changes.size]
        changes -= np.bincount(-(-end // self._step), minlength=changes.size)[: changes.size]


def _sums(seconds: Integers) -> tuple[int, int]:
    # A square may exceed an integer of 64 bits. As floats squares are rounded, in the same way in each chunk.
    return int(seconds.sum()), int(np.square(seconds.astype(np.float64)).sum())
