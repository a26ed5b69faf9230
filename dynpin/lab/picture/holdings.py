"""What each client holds as pins between its visits, read from the events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dynpin.lab.timeline import Event, Key
from dynpin.pins import Pin

__all__ = ["Holding", "holdings", "with_expiries"]

_NOTED = ("noted", "updated")


@dataclass(slots=True)
class Holding:
    """The pins that one client holds for one host, from one event to another.

    Attributes:
        client: the name of the actor.
        host: the Known Pinned Host.
        pins: in the order of the header.
        first: the index of the event with which it begins.
        last: the index of the event with which it ends; None where it outlives the story.
        until: when it expires, in seconds since the story began; None where that is not known.
        has_lapsed: whether it ended by its expiry, before that event.
    """

    client: str
    host: str
    pins: tuple[Pin, ...]
    first: int
    last: int | None = None
    until: float | None = None
    has_lapsed: bool = False


def with_expiries(events: Sequence[Event], hostile: Sequence[Key] = ()) -> list[Event]:
    """The events, and between them one for each entry that expires before its client does something again.

    Args:
        events: of a story.
        hostile: the keys of attackers, whose pins are told as theirs.
    """
    told: list[Event] = []
    until: dict[tuple[str, str], float] = {}
    pinned: dict[tuple[str, str], tuple[Pin, ...]] = {}
    for index, event in enumerate(events):
        # An expired entry is no entry (RFC 7469 §2.3.3), whether or not its client looks.
        for (client, host), at in sorted(until.items(), key=lambda entry: (entry[1], entry[0])):
            if at < event.at:  # in the moment itself it is still held (§2.3.3: in the past)
                del until[client, host]
                if all(later.actor != client for later in events[index:]):
                    continue
                whose = next((key.owner for key in hostile if key.pin in pinned[client, host]), None)
                what = f"{whose}'s pins for {host}" if whose else f"the pins of {host}"
                text = f"holds {what} no longer: they have expired"
                told.append(Event(at, client, text, host=host, noting="removed", section="2.3.3"))
        told.append(event)
        if event.host is None:
            continue
        if event.noting == "removed":
            until.pop((event.actor, event.host), None)
        elif event.noting in _NOTED and event.pinned_until is not None:
            until[event.actor, event.host] = event.pinned_until
            pinned[event.actor, event.host] = event.pinned
    return told


def holdings(events: Sequence[Event]) -> list[Holding]:
    """Each stretch of time in which a client held the same pins for a host, in the order in which they began."""
    found: list[Holding] = []
    held: dict[tuple[str, str], Holding] = {}
    for index, event in enumerate(events):
        for place, lapsed in [*held.items()]:
            if lapsed.until is not None and lapsed.until < event.at:
                lapsed.last, lapsed.has_lapsed = index, True
                del held[place]
        if event.host is None:
            continue
        place = (event.actor, event.host)
        if event.noting == "removed" or (event.outcome is not None and not event.pinned):
            if (ended := held.pop(place, None)) is not None:
                ended.last = index
        elif event.pinned and not _is_held(event, held):
            if (replaced := held.get(place)) is not None:
                replaced.last = index
            held[place] = Holding(event.actor, event.host, event.pinned, index, until=event.pinned_until)
            found.append(held[place])
        elif event.noting in _NOTED and place in held:
            held[place].until = event.pinned_until
    return found


def _is_held(event: Event, held: Mapping[tuple[str, str], Holding]) -> bool:
    """Whether these pins are those of an entry that goes on: the host's own, or a superdomain's that covers it."""
    return any(
        client == event.actor
        and one.pins == event.pinned
        and (host == event.host or (event.noting not in _NOTED and f".{event.host}".endswith(f".{host}")))
        for (client, host), one in held.items()
    )
