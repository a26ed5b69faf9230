"""The pins that each client holds between two events, from the client's own store after each event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dynpin.lab.timeline import Event, Held, Key

__all__ = ["Holding", "holdings", "with_expiries"]


@dataclass(slots=True)
class Holding:
    """The same pins, held by one client for one host, from one event to another.

    Attributes:
        client: the name of the actor.
        held: the store's entry at the beginning.
        until: when it expires, from the store's last answer, in seconds since the story began; None for never.
        first: the index of the event after which it was there.
        last: the index of the event after which it was gone; None if it stays until the end of the story.
        end: how it ended.
    """

    client: str
    held: Held
    until: float | None
    first: int
    last: int | None = None
    end: Literal["expired", "gone", "replaced"] | None = None


def with_expiries(events: Sequence[Event], hostile: Sequence[Key] = ()) -> list[Event]:
    """The events, with an extra event for each entry that expires before its client does something again.

    Args:
        events: the events of a story.
        hostile: the keys of attackers, whose pins are described as theirs.
    """
    told: list[Event] = []
    now: dict[str, tuple[Held, ...]] = {}
    for index, event in enumerate(events):
        lapsed = [
            (before, client)
            for client, after in event.held.items()
            for before in now.get(client, ())
            if _expired(before, event) and all(each.host != before.host for each in after)
        ]
        for gone, client in sorted(lapsed, key=lambda each: (each[0].until or 0.0, each[1], each[0].host)):
            if any(later.actor == client for later in events[index:]):
                now[client] = tuple(each for each in now[client] if each.host != gone.host)
                whose = next((key.owner for key in hostile if key.pin in gone.pins), None)
                what = f"{whose}'s pins for {gone.host}" if whose else f"the pins of {gone.host}"
                text = f"holds {what} no longer: they have expired"
                at = gone.until or event.at
                told.append(
                    Event(
                        at, client, text, host=gone.host, noting="removed", section="2.3.3", held={client: now[client]}
                    )
                )
        told.append(event)
        now.update(event.held)
    return told


def _expired(held: Held, event: Event) -> bool:
    # If a client's clock is pushed forward, entries expire at the story's own time: that event already says so.
    return held.until is not None and held.until < event.at


def holdings(events: Sequence[Event]) -> list[Holding]:
    """Each period in which a client held the same pins for a host, in the order in which they began."""
    found: list[Holding] = []
    open_: dict[tuple[str, str], Holding] = {}
    for index, event in enumerate(events):
        for client, entries in event.held.items():
            after = {each.host: each for each in entries}
            for (holder, host), holding in list(open_.items()):
                if holder != client:
                    continue
                entry = after.get(host)
                if entry is not None and _same(entry, holding.held):
                    holding.until = entry.until
                    del after[host]
                    continue
                # By the story's clock, or by the client's own, which somebody has moved.
                lapsed = holding.until is not None and holding.until <= event.at
                lapsed = lapsed or host in event.lapsed.get(client, ())
                holding.last = index
                holding.end = "replaced" if entry else "expired" if lapsed else "gone"
                del open_[holder, host]
            for host, entry in after.items():
                open_[client, host] = Holding(client, entry, entry.until, index)
                found.append(open_[client, host])
    return found


def _same(one: Held, other: Held) -> bool:
    return replace(one, until=None) == replace(other, until=None)
