"""The reference for the simulator: clients that make every visit in turn, with the real protocol or the real store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dynpin.clientstore import PinStore
from dynpin.header import PublicKeyPins
from dynpin.hosts import KnownPinnedHost
from dynpin.lab.simulation.visits import Integers
from dynpin.lab.simulation.world import Face, World
from dynpin.noting import note
from dynpin.pins import Pin
from dynpin.validation import validate

# The epoch of the clock: no second of a study is 0 for the store.
BEGINNING = 1_700_000_000.0


@dataclass
class Told:
    """All records of a ledger, client by client; adjacent stretches in which a client is fooled are joined."""

    locked: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    fooled: dict[int, list[tuple[int, int]]] = field(default_factory=dict[int, list[tuple[int, int]]])
    refusals: set[tuple[int, int, bool]] = field(default_factory=set[tuple[int, int, bool]])
    stores: dict[int, tuple[tuple[Pin, ...], float]] = field(default_factory=dict[int, tuple[tuple[Pin, ...], float]])

    def fooled_stretch(self, client: int, start: int, end: int) -> None:
        """Add a stretch that begins no earlier than the client's others."""
        stretches = self.fooled.setdefault(client, [])
        if stretches and start <= stretches[-1][1]:
            stretches[-1] = (stretches[-1][0], max(end, stretches[-1][1]))
        else:
            stretches.append((start, end))


class Recorder(Told):
    """A ledger that keeps all its records; lock-outs as samples."""

    def __init__(self, samples: Sequence[int]) -> None:
        super().__init__()
        self.samples = samples

    def locked_out(self, clients: Integers, start: Integers, end: Integers) -> None:
        for client, first, last in zip(clients.tolist(), start.tolist(), end.tolist(), strict=True):
            assert first <= last
            within = {(client, sample) for sample in self.samples if first <= sample < last}
            assert not within & self.locked, "no second is counted twice"
            self.locked |= within

    def fooled_stretches(self, clients: Integers, start: Integers, end: Integers) -> None:
        for client, first, last in zip(clients.tolist(), start.tolist(), end.tolist(), strict=True):
            told = self.fooled.get(client, [])
            assert not told or told[-1][1] <= first, "no second is counted twice"
            self.fooled_stretch(client, first, last)

    def refused(self, clients: Integers, first: Integers, end: Integers, *, attacker: bool) -> None:
        for client, begin, stop in zip(clients.tolist(), first.tolist(), end.tolist(), strict=True):
            self.refusals |= {(client, index, attacker) for index in range(begin, stop)}

    def waited(self, clients: Integers, start: Integers, end: Integers) -> None:
        pass

    def pinned(self, second: int, clients: int) -> None:
        pass


class RecorderLedger:
    """The recorder with the engine's interface; the record's own ``fooled`` is a table."""

    def __init__(self, samples: Sequence[int]) -> None:
        self.told = Recorder(samples)
        self.locked_out = self.told.locked_out
        self.fooled = self.told.fooled_stretches
        self.refused = self.told.refused
        self.pinned = self.told.pinned
        self.waited = self.told.waited


class Client(Protocol):
    """One client with its memory."""

    def accepts(self, chain: tuple[Pin, ...], now: int) -> bool: ...

    def refused(self) -> None:
        """The visit at this time was refused."""
        ...

    def notes(self, header: PublicKeyPins, chain: tuple[Pin, ...], now: int, *, attacker: bool) -> None: ...

    def entry(self, now: int) -> tuple[tuple[Pin, ...], float] | None: ...


class ByTheLetter:
    """A client that keeps exactly what the protocol's own `note` returns."""

    def __init__(self, host: str, max_max_age: int) -> None:
        self.host, self.max_max_age = host, max_max_age
        self.kept: KnownPinnedHost | None = None

    def _known(self, now: int) -> KnownPinnedHost | None:
        alive = self.kept is not None and not self.kept.is_expired(BEGINNING + now)
        return self.kept if alive else None

    def accepts(self, chain: tuple[Pin, ...], now: int) -> bool:
        return validate(self.host, self._known(now), chain, now=BEGINNING + now).ok

    def refused(self) -> None:
        pass

    def notes(self, header: PublicKeyPins, chain: tuple[Pin, ...], now: int, *, attacker: bool) -> None:
        at, known = BEGINNING + now, self._known(now)
        noting = note(self.host, known, header, chain, at, max_max_age=self.max_max_age)
        if noting.outcome != "ignored":
            self.kept = noting.known_host

    def entry(self, now: int) -> tuple[tuple[Pin, ...], float] | None:
        known = self._known(now)
        return None if known is None or known.expires_at is None else (known.pins, known.expires_at - BEGINNING)


class WithStore:
    """A client with dynpin's store, whose clock is set."""

    def __init__(self, host: str, max_max_age: int) -> None:
        self.host, self.now = host, 0
        self.store = PinStore.private(clock=lambda: BEGINNING + self.now, max_max_age=max_max_age)

    def accepts(self, chain: tuple[Pin, ...], now: int) -> bool:
        self.now = now
        return self.store.validate(self.host, chain).ok

    def refused(self) -> None:
        pass

    def notes(self, header: PublicKeyPins, chain: tuple[Pin, ...], now: int, *, attacker: bool) -> None:
        self.now = now
        self.store.note(self.host, str(header), chain)

    def entry(self, now: int) -> tuple[tuple[Pin, ...], float] | None:
        self.now = now
        known = self.store.known_host(self.host)
        return None if known is None or known.expires_at is None else (known.pins, known.expires_at - BEGINNING)


def in_turn(
    world: World,
    clients: Sequence[Client],
    visits: Sequence[Sequence[int]],
    targets: NDArray[np.bool_],
    samples: Sequence[int],
) -> Told:
    """Let each client make all its visits, and ask its store at each sample whether it refuses the site."""
    told, index = Told(), 0
    for number, (client, seconds) in enumerate(zip(clients, visits, strict=True)):
        had: dict[int, int] = {}
        # Within the same second the visits come first.
        for second, sampled in sorted([(each, False) for each in seconds] + [(each, True) for each in samples]):
            site, face, attack = met(world, targets[:, number].tolist(), second)
            if sampled:
                if not client.accepts(site.chain, second):
                    told.locked.add((number, second))
                continue
            if not client.accepts(face.chain, second):
                told.refusals.add((number, index, attack is not None))
                client.refused()
            else:
                if attack is not None:
                    had.setdefault(attack, second)
                if face.header is not None:
                    client.notes(face.header, face.chain, second, attacker=attack is not None)
            index += 1
        for since, until in sorted(
            (since, min(world.attacks[each].until, horizon(world))) for each, since in had.items()
        ):
            told.fooled_stretch(number, since, until)
        held = client.entry(horizon(world))
        if held is not None:
            told.stores[number] = held
    return told


def horizon(world: World) -> int:
    return world.epochs[-1].end


def met(world: World, targeted: list[bool], second: int) -> tuple[Face, Face, int | None]:
    epoch = next((each for each in world.epochs if each.start <= second < each.end), world.epochs[-1])
    site = world.faces[epoch.site]
    for attack, face in epoch.attacks:
        if targeted[attack]:
            return site, world.faces[face], attack
    return site, site, None
