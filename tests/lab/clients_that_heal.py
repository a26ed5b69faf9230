"""Clients that look at signed lists, second by second, with dynpin's own store and its schedule."""

from __future__ import annotations

from dataclasses import replace

from dynpin.clientstore import PinStore
from dynpin.clientstore.recovery import Verified
from dynpin.clientstore.store.lists import Look, ask, claim, record, register
from dynpin.header import PublicKeyPins
from dynpin.lab.simulation.study_table import DAY
from dynpin.lab.simulation.world import World
from dynpin.pin_list import ListedHost, PinList
from dynpin.pins import Pin
from dynpin.recovery import FIRST_ROOT, Recovery
from tests.lab.clients_in_turn import BEGINNING, met

OWNER = Recovery(b"o" * 32, "https://owner.test")
THIEF = Recovery(b"t" * 32, "https://thief.test")
HOST = "site.test"


class HealingClient:
    """One client with dynpin's store. A look takes a second: it begins after the visits, and counts in the next second.

    Args:
        world: the world whose list it reads.
        max_max_age: the client's cap.
        phase: the second of its first daily look, if it follows the list.

    Attributes:
        edges: for each list that changed its pins, the last second before and the first after it, and whether the
            client refused the site in them.
    """

    def __init__(self, world: World, max_max_age: int, phase: int | None = None) -> None:
        self._world, self.now = world, 0
        self.store = PinStore.private(clock=lambda: BEGINNING + self.now, max_max_age=max_max_age)
        self.edges: list[tuple[int, bool]] = []
        if phase is not None:
            self.now = phase - DAY - 1
            self.store.database.write(lambda c: register(c, OWNER, FIRST_ROOT, b"{}", self.store.clock()))
            self._look()

    def _until(self, second: int) -> None:
        """Make all looks whose results are known at this second."""
        while True:
            due = [each.next_look_at for each in self.store.looks() if each.next_look_at is not None]
            first = round(min(due, default=1e18) - BEGINNING)
            if first + 1 > second:
                break
            self.now = first
            self._look()
        self.now = second

    def _look(self) -> None:
        looks: list[Look] = []
        while (look := self.store.database.write(lambda c: claim(c, self.store.clock()))) is not None:
            looks.append(look)
        assert looks
        version, pins = self._list()
        pins_before, edge = self._pins(), (self.now, self._refuses_site())
        self.now += 1
        for look in looks:
            before: dict[str, bytes] = {} if not look.is_followed else {FIRST_ROOT: b"{}"}
            seen = Verified(before, version, pins) if look.recovery == OWNER else None
            self.store.database.write(
                lambda c, look=look, seen=seen, before=before: record(  # type: ignore[misc]
                    c, look, seen, None if seen else "nothing is there", before=before, now=self.store.clock()
                )
            )
        if self._pins() != pins_before and self.now > 0:
            self.edges += [edge, (self.now, self._refuses_site())]

    def _list(self) -> tuple[int, PinList]:
        epoch = next((each for each in self._world.epochs if each.start <= self.now < each.end), self._world.epochs[0])
        pins = self._world.entries[self._world.lists[epoch.version - 1]]
        return epoch.version, PinList({HOST: ListedHost(pins)})

    def _pins(self) -> tuple[Pin, ...]:
        known = self.store.known_host(HOST)
        return () if known is None else known.pins

    def _refuses_site(self) -> bool:
        return self._refuses(met(self._world, [False] * len(self._world.attacks), self.now)[0].chain)

    def _refuses(self, chain: tuple[Pin, ...]) -> bool:
        return not self.store.validate(HOST, chain).ok

    def accepts(self, chain: tuple[Pin, ...], now: int) -> bool:
        self._until(now)
        return not self._refuses(chain)

    def notes(self, header: PublicKeyPins, chain: tuple[Pin, ...], now: int, *, attacker: bool) -> None:
        self._until(now)
        self.store.note(HOST, str(replace(header, recovery=THIEF if attacker else OWNER)), chain)

    def entry(self, now: int) -> tuple[tuple[Pin, ...], float] | None:
        self._until(now)
        known = self.store.known_host(HOST)
        return None if known is None or known.expires_at is None else (known.pins, known.expires_at - BEGINNING)

    def refused(self) -> None:
        """Ask for the list, as the enforcement does after a refusal."""
        known = self.store.known_host(HOST)
        assert known is not None
        noted, ends_at = known.recovery, known.root_ends_at
        if noted is None or noted.standing is None or (ends_at is not None and ends_at < self.store.clock()):
            return
        self.store.database.write(lambda c: ask(c, [known], self.store.clock()))
