"""Every kind of event in the simulator's calendar, with clients whose results can be computed by hand.

The site pins for ten days with one backup, unless a case says otherwise; clients cap max-age at sixty. Times are days.
Pins are alive during their last second, so their expiry takes effect a second after their day: :func:`gone`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from dynpin.lab.simulation.calendar import Attack, CAChange, Compromise, Event, Loss, Mistake, Rotation, Unpin
from dynpin.lab.simulation.engine import play
from dynpin.lab.simulation.site_policy import SitePolicy
from dynpin.lab.simulation.study_table import DAY
from dynpin.lab.simulation.visits import Integers, Visits
from dynpin.lab.simulation.world import build

KEY = SitePolicy("key", 10 * DAY)
CA = replace(KEY, pinned="ca")
BOTH = replace(KEY, pinned="both")
HORIZON = 90 * DAY


def at(day: float) -> int:
    return round(day * DAY)


def gone(day: float) -> float:
    """The time after the last second of pins that expire on a day."""
    return day + 1 / DAY


@dataclass(frozen=True)
class Fate:
    """One client: its visits, the attacks that reach it, and the expected result."""

    visits: Sequence[float]
    refused: Sequence[float] = ()
    locked_out: Sequence[tuple[float, float]] = ()
    fooled: Sequence[tuple[float, float]] = ()
    attacks: Sequence[int] = (0,)


def rotation(day: float, announced: float = 0, to: str = "new") -> Rotation:
    return Rotation(at(day), "new" if to == "new" else "backup", at(announced))


def attack(first: float, until: float, shows: str = "other-ca", pins_for: float = 0) -> Attack:
    return replace(Attack(at(first), at(until), 1.0), shows=shows, pins_for=at(pins_for))  # type: ignore[arg-type]


CASES: dict[str, tuple[SitePolicy, list[Event], list[Fate]]] = {
    "a rotation to the backup": (KEY, [rotation(10, to="backup")], [Fate([0, 8, 12, 25])]),
    "to the backup of before": (
        KEY,
        [rotation(10, to="backup"), rotation(14, to="backup")],
        # The backup that was added after the first rotation is known to clients that have visited since.
        [Fate([8, 12, 15]), Fate([8, 15], refused=[15], locked_out=[(14, gone(18))])],
    ),
    "a rotation to a new key": (
        KEY,
        [rotation(10)],
        [Fate([8, 12, 19], refused=[12], locked_out=[(10, gone(18))]), Fate([11, 20])],
    ),
    "one that was announced": (
        KEY,
        [rotation(10, announced=4)],
        [Fate([5, 11], refused=[11], locked_out=[(10, gone(15))]), Fate([5, 7, 11])],
    ),
    "announced before the last is done": (
        KEY,
        [rotation(day, announced=5) for day in range(2, 40, 2)],
        # On day 10 the header names the keys until 15; that of 16 is not among them. On day 19 it names those until 24.
        [
            Fate([10, 14.5, 19], locked_out=[(26, gone(29))]),
            Fate([10, 17], refused=[17], locked_out=[(16, gone(20))]),
        ],
    ),
    "all keys lost": (
        KEY,
        [Loss(at(10))],
        [Fate([1, 8, 12, 17, 19], refused=[12, 17], locked_out=[(10, gone(18))]), Fate([11, 20])],
    ),
    "as many as there are": (KEY, [Loss(at(10), 2)], [Fate([8], locked_out=[(10, gone(18))])]),
    "one key lost, the backup used": (KEY, [Loss(at(10), 1)], [Fate([8, 12, 25])]),
    "and the next": (
        KEY,
        [Loss(at(10), 1), Loss(at(12), 1)],
        [Fate([8, 11, 13]), Fate([8, 13], refused=[13], locked_out=[(12, gone(18))])],
    ),
    "one key lost, the CA pinned too": (BOTH, [Loss(at(10))], [Fate([8, 12])]),
    "all lost and found after six hours": (
        KEY,
        [Loss(at(10), fixed_after=at(0.25))],
        [
            Fate([8, 10.1, 11], refused=[10.1], locked_out=[(10, 10.25)]),
            # A client that came first while the keys were lost knows only the other ones.
            Fate([10.1, 11, 21], refused=[11], locked_out=[(10.25, gone(20.1))]),
        ],
    ),
    "one lost and found, too late to matter": (KEY, [Loss(at(10), 1, fixed_after=at(3))], [Fate([8, 12, 14])]),
    "a stolen key": (
        KEY,
        [Compromise(at(10), noticed=at(5)), attack(10, 20, "stolen-key"), attack(17, 20, "stolen-key")],
        [
            Fate([8, 12, 16], fooled=[(12, 20)]),
            # On day 16 the header no longer has the stolen key; on day 14 it did.
            Fate([8, 16, 18], attacks=[1]),
            Fate([8, 14, 18], attacks=[1], fooled=[(18, 20)]),
            Fate([8, 18.5], attacks=[1], fooled=[(18.5, 20)]),
        ],
    ),
    "the backup stolen too": (
        KEY,
        [Compromise(at(10), keys=2, noticed=at(5))],
        [Fate([8, 12, 16], refused=[16], locked_out=[(15, gone(22))])],
    ),
    "another CA, which was pinned": (CA, [CAChange(at(10))], [Fate([8, 12, 25])]),
    "another CA, which was not": (
        CA,
        [CAChange(at(10), "new")],
        [Fate([8, 12, 19], refused=[12], locked_out=[(10, gone(18))])],
    ),
    "another CA, where the key is pinned": (KEY, [CAChange(at(10), "new")], [Fate([8, 12])]),
    "another CA and another key, with both pinned": (
        BOTH,
        [CAChange(at(10), "new"), rotation(10)],
        [Fate([8, 12], refused=[12], locked_out=[(10, gone(18))])],
    ),
    "an attack with another CA": (
        KEY,
        [attack(11, 20)],
        [
            Fate([5, 12, 16, 21], fooled=[(16, 20)]),
            Fate([5, 12, 16, 21], attacks=[]),
            Fate([5, 9, 12, 19], attacks=[0]),
            Fate([12], fooled=[(12, 20)]),
        ],
    ),
    "an attack through the pinned CA": (CA, [attack(11, 20, "pinned-ca")], [Fate([5, 12], fooled=[(12, 20)])]),
    "the same CA, where the key is pinned": (KEY, [attack(11, 20, "pinned-ca")], [Fate([5, 12])]),
    "two attacks, the first of which has the client": (
        KEY,
        [attack(11, 20), attack(15, 30)],
        [Fate([12, 25], attacks=[0, 1], fooled=[(12, 20), (25, 30)])],
    ),
    "one attack within another": (
        KEY,
        [attack(15, 18), attack(10, 20)],
        [Fate([12], attacks=[0, 1], fooled=[(12, 20)]), Fate([12, 16], attacks=[0, 1], fooled=[(12, 20)])],
    ),
    "hostile pins on the first visit": (
        KEY,
        [attack(11, 14, pins_for=30)],
        [
            Fate([12, 15, 43], refused=[15], locked_out=[(12, gone(42))], fooled=[(12, 14)]),
            Fate([5, 12, 16]),
        ],
    ),
    "hostile pins beyond the client's cap": (
        KEY,
        [attack(1, 2, pins_for=365)],
        [Fate([1, 61, 62], refused=[61], locked_out=[(1, gone(61))], fooled=[(1, 2)])],
    ),
    "a server broken into": (
        KEY,
        [attack(10, 12, "server", 20), Loss(at(12), 1)],
        [
            Fate([8, 11, 13, 32], refused=[13], locked_out=[(12, gone(31))], fooled=[(11, 12)]),
            Fate([8, 13]),
        ],
    ),
    "a wrong key for six hours": (
        KEY,
        [Mistake(at(10), "key", at(0.25))],
        [
            Fate([8, 10.1, 10.5], refused=[10.1], locked_out=[(10, 10.25)]),
            Fate([8, 11], locked_out=[(10, 10.25)]),
            Fate([10.1, 11, 21], refused=[11], locked_out=[(10.25, gone(20.1))]),
        ],
    ),
    "a rotation while the key is wrong": (
        KEY,
        [Mistake(at(10), "key", at(4)), rotation(12, to="backup")],
        [Fate([8, 15], locked_out=[(10, 14)]), Fate([8, 11, 15, 30], refused=[11], locked_out=[(10, 14)])],
    ),
    "a max-age in milliseconds": (
        KEY,
        [Mistake(at(10), "max-age", at(1)), Loss(at(20))],
        [
            Fate([10.5, 25, 71], refused=[25], locked_out=[(20, gone(70.5))]),
            # The next good header shortens it again.
            Fate([10.5, 11, 25], locked_out=[(20, gone(21))]),
        ],
    ),
    "no header for three days": (
        KEY,
        [Mistake(at(10), "no-header", at(3)), attack(18, 22)],
        [Fate([9, 12, 20], fooled=[(20, 22)]), Fate([9, 12, 13, 20])],
    ),
    "two mistakes, one fixed before the other": (
        KEY,
        [Mistake(at(10), "no-header", at(1)), Mistake(at(10.5), "key", at(2))],
        [Fate([12], locked_out=[(12.5, gone(22))]), Fate([10.75, 13])],
    ),
    "unpinned": (
        KEY,
        [Unpin(at(10)), Loss(at(12))],
        [Fate([8, 11, 13]), Fate([8, 13], refused=[13], locked_out=[(12, gone(18))])],
    ),
    "a ramp": (
        replace(KEY, ramp=((DAY, 5 * DAY),)),
        [Loss(at(4.5)), attack(8, 20)],
        [Fate([4, 4.75, 6, 15], refused=[4.75], locked_out=[(4.5, gone(5))]), Fate([6.5, 17], fooled=[(17, 20)])],
    ),
    "no backup": (replace(KEY, backups=0), [Loss(at(10)), attack(15, 20)], [Fate([8, 12, 16], fooled=[(16, 20)])]),
    "no pins": (replace(KEY, pinned="none"), [Loss(at(10)), attack(15, 20)], [Fate([8, 12, 16], fooled=[(16, 20)])]),
}


class Diary:
    """A ledger that keeps each client's stretches; adjacent ones are joined."""

    def __init__(self, visits: Visits) -> None:
        self.visits = visits
        self.stretches: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        self.turned_away: dict[int, list[int]] = defaultdict(list)

    def _note(self, what: str, clients: Integers, start: Integers, end: Integers) -> None:
        for client, first, last in zip(clients.tolist(), start.tolist(), end.tolist(), strict=True):
            found = self.stretches[what, client]
            if found and found[-1][1] == first:
                found[-1] = (found[-1][0], last)
            else:
                found.append((first, last))

    def locked_out(self, clients: Integers, start: Integers, end: Integers) -> None:
        self._note("locked out", clients, start, end)

    def fooled(self, clients: Integers, start: Integers, end: Integers) -> None:
        self._note("fooled", clients, start, end)

    def refused(self, clients: Integers, first: Integers, end: Integers, *, attacker: bool) -> None:
        for client, begin, stop in zip(clients.tolist(), first.tolist(), end.tolist(), strict=True):
            if not attacker:
                self.turned_away[client] += self.visits.keys[begin:stop].tolist()

    def waited(self, clients: Integers, start: Integers, end: Integers) -> None:
        pass

    def pinned(self, second: int, clients: int) -> None:
        pass


@pytest.mark.parametrize("case", CASES)
def test_an_event_has_the_result_that_was_computed_by_hand(case: str) -> None:
    policy, events, fates = CASES[case]
    world = build(policy, events, HORIZON, 60 * DAY)
    visits = Visits.of([[at(day) for day in fate.visits] for fate in fates], HORIZON)
    targets = np.array([[number in fate.attacks for fate in fates] for number in range(len(world.attacks))], np.bool_)
    diary = Diary(visits)
    play(world, visits, targets.reshape(len(world.attacks), len(fates)), diary)
    for client, fate in enumerate(fates):
        seconds = [key - client * visits.stride for key in diary.turned_away[client]]
        assert seconds == [at(day) for day in fate.refused], client
        for what, expected in (("locked out", fate.locked_out), ("fooled", fate.fooled)):
            assert sorted(diary.stretches[what, client]) == [(at(a), at(b)) for a, b in expected], (what, client)
