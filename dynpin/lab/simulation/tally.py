"""What happened, added up: exact whole numbers, so that the order of the adding does not matter."""

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
        ever_locked_out: clients that were locked out at any time, whether or not they tried.
        ever_fooled: clients that an attacker had.
        turned_away: clients whose visit to the site was refused.
        protected: clients whose pins refused an attacker, and who were never fooled.
        refused_visits: visits to the site that were refused.
        visits: all visits.
        pinned: at the start of each epoch, how many clients hold pins that are alive.
    """

    clients: int
    locked_out: Integers
    fooled: Integers
    locked_out_seconds: int = 0
    fooled_seconds: int = 0
    ever_locked_out: int = 0
    ever_fooled: int = 0
    turned_away: int = 0
    protected: int = 0
    refused_visits: int = 0
    visits: int = 0
    pinned: dict[int, int] = field(default_factory=dict[int, int])

    @classmethod
    def empty(cls, samples: int) -> Self:
        """Nothing yet, at this many samples."""
        return cls(0, np.zeros(samples, np.int64), np.zeros(samples, np.int64))

    def add(self, other: Tally) -> None:
        """Take in the sums over other clients."""
        self.clients += other.clients
        self.locked_out += other.locked_out
        self.fooled += other.fooled
        self.locked_out_seconds += other.locked_out_seconds
        self.fooled_seconds += other.fooled_seconds
        self.ever_locked_out += other.ever_locked_out
        self.ever_fooled += other.ever_fooled
        self.turned_away += other.turned_away
        self.protected += other.protected
        self.refused_visits += other.refused_visits
        self.visits += other.visits
        for second, count in other.pinned.items():
            self.pinned[second] = self.pinned.get(second, 0) + count


class Writer:
    """A ledger that adds up what it is told, sampled every `step` seconds from 0."""

    def __init__(self, clients: int, samples: int, step: int) -> None:
        self._samples, self._step = samples, step
        self._changes = {"locked_out": np.zeros(samples + 1, np.int64), "fooled": np.zeros(samples + 1, np.int64)}
        self._flags = np.zeros((4, clients), np.bool_)
        self._ever_locked_out, self._ever_fooled, self._turned_away, self._foiled = self._flags
        self.tally = Tally.empty(samples)
        self.tally.clients = clients

    def locked_out(self, clients: Integers, start: Integers, end: Integers) -> None:
        """Add stretches in which a client's store refuses the site."""
        self.tally.locked_out_seconds += self._stretches("locked_out", start, end)
        self._ever_locked_out[clients] = True

    def fooled(self, clients: Integers, start: Integers, end: Integers) -> None:
        """Add stretches in which an attacker has a client."""
        self.tally.fooled_seconds += self._stretches("fooled", start, end)
        self._ever_fooled[clients] = True

    def refused(self, clients: Integers, first: Integers, end: Integers, *, attacker: bool) -> None:
        """Add visits that were refused."""
        (self._foiled if attacker else self._turned_away)[clients[end > first]] = True
        if not attacker:
            self.tally.refused_visits += int((end - first).sum())

    def pinned(self, second: int, clients: int) -> None:
        """Add the clients that hold living pins."""
        self.tally.pinned[second] = clients

    def finished(self, visits: int) -> Tally:
        """The sums, once everything is told."""
        tally = self.tally
        tally.locked_out = np.cumsum(self._changes["locked_out"][:-1])
        tally.fooled = np.cumsum(self._changes["fooled"][:-1])
        tally.ever_locked_out = int(np.count_nonzero(self._ever_locked_out))
        tally.ever_fooled = int(np.count_nonzero(self._ever_fooled))
        tally.turned_away = int(np.count_nonzero(self._turned_away))
        tally.protected = int(np.count_nonzero(self._foiled & ~self._ever_fooled))
        tally.visits = visits
        return tally

    def _stretches(self, name: str, start: Integers, end: Integers) -> int:
        # A stretch holds the samples from the first at or after its start to the last before its end.
        changes = self._changes[name]
        changes += np.bincount(-(-start // self._step), minlength=changes.size)[: changes.size]
        changes -= np.bincount(-(-end // self._step), minlength=changes.size)[: changes.size]
        return int((end - start).sum())
