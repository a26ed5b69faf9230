"""What everybody in a story shares: the clock, the network, the authorities, and the record of what happened.

Sites and clients act in a world; the stage (:mod:`dynpin.lab.stage`) sets it up. What a world must know of those who
act in it are the three protocols below.
"""

from __future__ import annotations

import contextlib
from collections import ChainMap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from dynpin.lab.certificates import Authority, Certificate, KeyPair
from dynpin.lab.network import TLSServer
from dynpin.lab.signed_lists import SignedList
from dynpin.lab.timeline import Actor, Event, Held, Key, Role, Timeline
from dynpin.pins import Pin
from dynpin.recovery import Recovery

__all__ = ["BEGINNING", "Holder", "Listener", "Networked", "World"]

# Every story begins here: so that what it says of dates is the same at each playing.
BEGINNING = 1_767_225_600.0  # 2026-01-01, UTC
_LANES: tuple[Role, ...] = ("authority", "site", "attacker", "client")

_Resource = TypeVar("_Resource", bound=contextlib.AbstractContextManager[object])


class Listener(Protocol):
    """Somebody who runs a server."""

    @property
    def name(self) -> str:
        """What the story calls it."""
        ...

    @property
    def reader(self) -> str | None:
        """The attacker who reads what it is sent; None where that is its owner alone."""
        ...

    @property
    def certificate(self) -> Certificate:
        """What it shows now."""
        ...

    @property
    def header_line(self) -> str:
        """The pinning header that it sends; empty for none."""
        ...

    @property
    def server(self) -> TLSServer:
        """The server; it counts what it reads."""
        ...


class Networked(Protocol):
    """Somebody with a network of his own."""

    @property
    def name(self) -> str:
        """What the story calls him."""
        ...

    @property
    def network(self) -> ChainMap[str, int]:
        """The port at which a name is answered; the first map is his own."""
        ...


class Holder(Protocol):
    """Somebody who holds pins."""

    @property
    def name(self) -> str:
        """What the story calls him."""
        ...

    def holds(self) -> tuple[Held, ...]:
        """What he holds now, by host, as his agent's own store tells."""
        ...


class World:
    """The clock, the network and the record of one playing.

    Args:
        scenario: the scenario's name.
        agent: the name of the user agent under test.
        folder: where files may be kept; it is gone at the end.
        stack: what is closed at the end.

    Attributes:
        timeline: the record.
        now: the time, in seconds since the epoch.
        network: the port of 127.0.0.1 at which a name is answered.
        roots: every root authority; `public` are those that browsers ship.
        listeners: whoever runs a server.
        holders: whoever may hold pins.
        hosts: the hosts that the story visits; what is held for others is not recorded.
        owners_root: what every header of a site names for recovery, in a playing with recovery.
        thiefs_root: what every header of an attacker names for it, there.
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
        self._held: dict[str, tuple[Held, ...]] = {}

    @property
    def at(self) -> float:
        """Seconds since the story began."""
        return self.now - BEGINNING

    def saw(self, event: Event) -> Event:
        """Record an event, with what it has changed in anybody's store."""
        changed: dict[str, tuple[Held, ...]] = {}
        for holder in self.holders:
            held = holder.holds()
            if held != self._held.get(holder.name, ()):
                changed[holder.name] = self._held[holder.name] = held
        event = replace(event, held=changed)
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
        """Record a deed; the words are those of :class:`~dynpin.lab.timeline.Event`."""
        return self.saw(Event(self.at, actor, text, target, shown=shown, pinned=pinned))

    def appears(self, name: str, role: Role, about: str) -> None:
        """Enter an actor; one who is there already stays as he is."""
        actors = self.timeline.actors
        if all(actor.name != name for actor in actors):
            actors.append(Actor(name, role, about))
            actors.sort(key=lambda actor: _LANES.index(actor.role))

    def names(self, *keys: KeyPair) -> None:
        """Enter keys."""
        known = {key.pin for key in self.timeline.keys}
        self.timeline.keys += [Key(key.name, key.pin, key.owner) for key in keys if key.pin not in known]

    def name_of(self, pin: Pin) -> str:
        """What the story calls the key of a pin; the pin where it has no name."""
        return next((key.name for key in self.timeline.keys if key.pin == pin), str(pin))

    def publishes(self, host: str, *, threshold: int = 1, of: int = 1) -> SignedList:
        """Publish a new signed list under a name; `threshold` of its `of` keys must sign."""
        made = self.enter(SignedList(self.folder / host, host, threshold=threshold, of=of))
        self.network[host] = made.port
        # The digest stands in headers, and is another one at each playing.
        self.timeline.keys.append(Key(f"the root of {host}", Pin(made.recovery.root), host))
        return made

    def enter(self, resource: _Resource) -> _Resource:
        """Open something that ends with the story."""
        self._stack.enter_context(resource)
        return resource

    def on_exit(self, end: Callable[[], None]) -> None:
        """Have something done at the end."""
        self._stack.callback(end)
