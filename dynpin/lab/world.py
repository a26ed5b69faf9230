"""What all actors of a story share: the clock, the network, the authorities, and the record of events.

Sites and clients act in a world; the stage (:mod:`dynpin.lab.stage`) creates it. The three protocols below are what a
world needs to know about its actors.
"""

from __future__ import annotations

import contextlib
from collections import ChainMap
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol, TypeVar

from dynpin.lab.certificates import Authority, Certificate, KeyPair
from dynpin.lab.network import TLSServer
from dynpin.lab.signed_lists import SignedList
from dynpin.lab.timeline import Actor, Event, Held, Key, Role, Timeline
from dynpin.pins import Pin
from dynpin.recovery import Recovery

__all__ = ["BEGINNING", "Holder", "Listener", "Networked", "World"]

# Every story begins at this time, so that dates in its texts are always the same.
BEGINNING = 1_767_225_600.0  # 2026-01-01, UTC
_LANES: tuple[Role, ...] = ("authority", "site", "attacker", "client")

_Resource = TypeVar("_Resource", bound=contextlib.AbstractContextManager[object])


class Listener(Protocol):
    """An actor with a server."""

    @property
    def name(self) -> str:
        """Its name in the story."""
        ...

    @property
    def reader(self) -> str | None:
        """The attacker who reads its traffic; None if only its owner does."""
        ...

    @property
    def certificate(self) -> Certificate:
        """The certificate that it shows now."""
        ...

    @property
    def header_line(self) -> str:
        """The pinning header that it sends; empty if there is none."""
        ...

    @property
    def server(self) -> TLSServer:
        """The server; it counts what it reads."""
        ...


class Networked(Protocol):
    """An actor with a network of its own."""

    @property
    def name(self) -> str:
        """Its name in the story."""
        ...

    @property
    def network(self) -> ChainMap[str, int]:
        """The port that answers each name; the first map is the actor's own."""
        ...


class Holder(Protocol):
    """An actor that holds pins."""

    @property
    def name(self) -> str:
        """Its name in the story."""
        ...

    @property
    def ahead(self) -> timedelta:
        """How far its clock is ahead of the true one."""
        ...

    def holds(self) -> tuple[Held, ...]:
        """What it holds now, by host, from its agent's own store."""
        ...


class World:
    """The clock, the network and the record of one playing.

    Args:
        scenario: the scenario's name.
        agent: the name of the user agent under test.
        folder: for files; it is removed at the end.
        stack: is closed at the end.

    Attributes:
        timeline: the record.
        now: the time, in seconds since the epoch, UTC.
        network: the port of 127.0.0.1 that answers each name.
        roots: all root authorities; `public` are those that browsers ship.
        listeners: the actors with a server.
        holders: the actors that may hold pins.
        hosts: the hosts that the story visits; pins for other hosts are not recorded.
        owners_root: the root in every site's header, if the story is played with recovery.
        thiefs_root: the root in every attacker's header, likewise.
    """

    def __init__(self, scenario: str, agent: str, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.timeline = Timeline(scenario, agent)
        self.now = BEGINNING
        self.network: dict[str, int] = {}
        self.roots: list[Authority] = []
        self.public: set[Authority] = set()
        self.listeners: list[Listener] = []
        self.holders: list[Holder] = []
        self.hosts: set[str] = set()
        self.owners_root: Recovery | None = None
        self.thiefs_root: Recovery | None = None
        self._stack = stack
        # What each holder held after the last event, and how far its clock was ahead then, in seconds.
        self._held: dict[str, tuple[tuple[Held, ...], float]] = {}

    @property
    def at(self) -> float:
        """Seconds since the story began."""
        return self.now - BEGINNING

    def saw(self, event: Event) -> Event:
        """Record an event, with the changes in all stores."""
        changed: dict[str, tuple[Held, ...]] = {}
        lapsed: dict[str, tuple[str, ...]] = {}
        for holder in self.holders:
            held, ahead = holder.holds(), holder.ahead.total_seconds()
            before, was_ahead = self._held.get(holder.name, ((), 0.0))
            if held != before:
                changed[holder.name] = held
                kept = {each.host for each in held}
                # By its own clock, which somebody may have moved.
                over = [each for each in before if each.until is not None and each.until + was_ahead <= self.at + ahead]
                if hosts := tuple(each.host for each in over if each.host not in kept):
                    lapsed[holder.name] = hosts
            self._held[holder.name] = held, ahead
        event = replace(event, held=changed, lapsed=lapsed)
        self.timeline.events.append(event)
        return event

    def tells(
        self,
        actor: str,
        text: str,
        *,
        target: str | None = None,
        shown: tuple[Pin, ...] = (),
        pinned: tuple[Pin, ...] = (),
    ) -> Event:
        """Record an action; the arguments are those of :class:`~dynpin.lab.timeline.Event`."""
        return self.saw(Event(self.at, actor, text, target, shown=shown, pinned=pinned))

    def appears(self, name: str, role: Role, about: str) -> None:
        """Add an actor. An actor that is there already does not change."""
        actors = self.timeline.actors
        if all(actor.name != name for actor in actors):
            actors.append(Actor(name, role, about))
            actors.sort(key=lambda actor: _LANES.index(actor.role))

    def names(self, *keys: KeyPair) -> None:
        """Add keys."""
        known = {key.pin for key in self.timeline.keys}
        self.timeline.keys += [Key(key.name, key.pin, key.owner) for key in keys if key.pin not in known]

    def name_of(self, pin: Pin) -> str:
        """The name of a pin's key in the story; the pin itself if it has no name."""
        return next((key.name for key in self.timeline.keys if key.pin == pin), str(pin))

    def publishes(self, host: str, *, threshold: int = 1, of: int = 1) -> SignedList:
        """Publish a new signed list at a name; `threshold` of its `of` keys must sign."""
        made = self.enter(SignedList(self.folder / host, host, threshold=threshold, of=of))
        self.network[host] = made.port
        # Headers contain the digest, and it is different each time.
        self.timeline.keys.append(Key(f"the root of {host}", Pin(made.recovery.root), host))
        return made

    def enter(self, resource: _Resource) -> _Resource:
        """Open something that ends with the story."""
        self._stack.enter_context(resource)
        return resource

    def on_exit(self, end: Callable[[], None]) -> None:
        """Call a function at the end of the story."""
        self._stack.callback(end)
