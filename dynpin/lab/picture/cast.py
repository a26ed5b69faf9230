"""What stays the same in a whole picture: the actors, the signs of the keys, and the clients' pins."""

from __future__ import annotations

from collections.abc import Sequence

from dynpin.lab.picture.glyphs import Badge
from dynpin.lab.picture.holdings import holdings
from dynpin.lab.picture.paper import key_color
from dynpin.lab.picture.times import Moment, moments
from dynpin.lab.timeline import Actor, Event, Role, Timeline
from dynpin.pins import Pin

__all__ = ["EDGE", "SMALL", "UNKNOWN", "Cast"]

# The sign of a key without a name in the story, such as one that was copied from an example.
UNKNOWN = Badge("?", "dull", None)

# Pixels: the edge of the page, and small letters.
EDGE, SMALL = 12.0, 11.5
# The most events and lanes in one part, and the most bands for each lane.
_MOST_EVENTS, _MOST_LANES, _MOST_BANDS = 9, 6, 4


class Cast:
    """The actors who do something, and the keys that are shown or pinned, with their signs.

    Attributes:
        moments: the events, in words.
        holdings: the pins that the clients hold.
        signs: for each key, its sign and its name.
        used: the names of the signs that were drawn; the legend explains these.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.moments = moments(timeline)
        self.events = timeline.events
        clients = {one.name for one in timeline.actors if one.role == "client"}
        self.holdings = [held for held in holdings(timeline.events) if held.client in clients]
        self._pinned = {pin for event in self.events for pin in event.pinned}
        self._pinned |= {pin for held in self.holdings for pin in held.held.pins}
        self.signs = self._signs(timeline)
        acting = {name for event in self.events for name in (event.actor, event.target)}
        self.actors = [one for one in timeline.actors if one.name in acting]
        self.used: set[str] = set()

    def sign(self, pin: Pin) -> Badge:
        """The sign of a key; a question mark for a key without a name in the story."""
        return self.signs[pin][0] if pin in self.signs else UNKNOWN

    def shown(self, event: Event) -> tuple[Pin, ...]:
        """The keys of the shown chain that count: the leaf, and other keys that somebody pins."""
        return event.shown[:1] + tuple(pin for pin in event.shown[1:] if pin in self._pinned)

    def bands(self, client: str) -> list[str]:
        """The hosts that have bands at a client's lane."""
        return list(dict.fromkeys(one.held.host for one in self.holdings if one.client == client))[:_MOST_BANDS]

    def parts(self) -> list[tuple[list[Actor], list[Moment]]]:
        """The events, divided into parts of a page, each with the lanes that it shows.

        A part shows all lanes, or if these are too many, the lanes of those who act in it.
        """
        everybody = len(self.actors) <= _MOST_LANES
        count = -(-len(self.moments) // _MOST_EVENTS)
        most = -(-len(self.moments) // max(1, count))  # so that all parts are about equally long
        found: list[list[Moment]] = []
        acting: set[str] = set()
        for moment in self.moments:
            these = {moment.event.actor, moment.event.target or moment.event.actor}
            more = len(acting | these) > _MOST_LANES and not everybody
            if not found or len(found[-1]) == most or more:
                found.append([])
                acting = set()
            found[-1].append(moment)
            acting |= these
        return [(self._lanes(part, everybody=everybody), part) for part in found]

    def _lanes(self, part: Sequence[Moment], *, everybody: bool) -> list[Actor]:
        acting = {name for moment in part for name in (moment.event.actor, moment.event.target)}
        return [one for one in self.actors if everybody or one.name in acting]

    def _signs(self, timeline: Timeline) -> dict[Pin, tuple[Badge, str]]:
        """A sign and a name for each key in the picture; letters are given in the order in which keys were made."""
        seen = self._pinned | {pin for event in self.events for pin in event.shown[:1]}
        # An intermediate, an authority that signs for another, is not an actor.
        roles: dict[str, Role] = {one.name: one.role for one in timeline.actors}
        drawn = [key for key in timeline.keys if key.pin in seen]
        return {
            key.pin: (Badge(_letter(number), key_color(number), roles.get(key.owner, "authority")), key.name)
            for number, key in enumerate(drawn)
        }


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"{number + 1}"
