"""What is the same in every row of a picture: the lanes, the signs of the keys, and what the clients hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dynpin.lab.picture.glyphs import Badge
from dynpin.lab.picture.holdings import holdings
from dynpin.lab.picture.paper import key_color
from dynpin.lab.picture.scene import width, wrapped
from dynpin.lab.timeline import Actor, Event, Role, Timeline
from dynpin.pins import Pin

__all__ = ["BAND", "BAND_STEP", "EDGE", "NAME", "SMALL", "UNKNOWN", "Cast", "Lane"]

# The sign of a key that the story has no name for, such as one that was copied from an example.
UNKNOWN = Badge("?", "dull", None)

# Pixels: the edge of the page, letters, and the bands of pins.
EDGE = 24.0
NAME, SMALL = 13.0, 11.0
BAND, BAND_STEP = 15.0, 19.0
_MARGINS = (168.0, 232.0)
# Above and below a lane: room for a line of words beside a connection, or for none.
_WORDS, _BARE = 40.0, 20.0
_MOST_BANDS = 4
# From the edge to the names, which stand behind the sign of their role, and from a name to its lane.
_SIGN, _CLEAR = 30.0, 16.0


@dataclass(frozen=True, slots=True)
class Lane:
    """An actor's lane: how far it reaches above and below its line.

    Attributes:
        actor: whose it is.
        about: what is to be known of the actor, in lines.
        above: pixels above the line.
        below: pixels below it, the bands included.
        hosts: those that its bands are for, from the top.
    """

    actor: Actor
    about: tuple[str, ...]
    above: float
    below: float
    hosts: tuple[str, ...]

    def band(self, number: int) -> float:
        """How far under the line the middle of a band is."""
        return 26 + number * BAND_STEP


class Cast:
    """The actors who do something, with their lanes, and the keys that are shown or pinned, with their signs."""

    def __init__(self, timeline: Timeline) -> None:
        self.events = timeline.events
        clients = {one.name for one in timeline.actors if one.role == "client"}
        self.holdings = [held for held in holdings(timeline.events) if held.client in clients]
        self._pinned = {pin for event in timeline.events for pin in event.pinned}
        self.signs = self._signs(timeline)
        acting = {name for event in self.events for name in (event.actor, event.target)}
        actors = [one for one in timeline.actors if one.name in acting]
        wide = max((width(one.name, NAME, bold=True) for one in actors), default=0)
        self.margin = min(max(_MARGINS[0], EDGE + _SIGN + wide + _CLEAR), _MARGINS[1])
        self.lanes = self._lanes(actors)

    @property
    def names_at(self) -> float:
        """Where the names begin."""
        return EDGE + _SIGN

    @property
    def names_room(self) -> float:
        """How wide a name may be."""
        return self.margin - self.names_at - _CLEAR + 0.1

    def sign(self, pin: Pin) -> Badge:
        """The sign of a key; a question mark for one that the story has no name for."""
        return self.signs[pin][0] if pin in self.signs else UNKNOWN

    def shown(self, event: Event) -> tuple[Pin, ...]:
        """Of the chain shown: the leaf, and what of the rest somebody pins."""
        return event.shown[:1] + tuple(pin for pin in event.shown[1:] if pin in self._pinned)

    def _signs(self, timeline: Timeline) -> dict[Pin, tuple[Badge, str]]:
        """A sign for each key that the picture shows, with the key's name; letters in the order of the making."""
        seen = self._pinned | {pin for event in self.events for pin in event.shown[:1]}
        # An authority that signs for another, an intermediate, is no actor of its own.
        roles: dict[str, Role] = {one.name: one.role for one in timeline.actors}
        drawn = [key for key in timeline.keys if key.pin in seen]
        return {
            key.pin: (Badge(_letter(number), key_color(number), roles.get(key.owner, "authority")), key.name)
            for number, key in enumerate(drawn)
        }

    def _lanes(self, actors: Sequence[Actor]) -> dict[str, Lane]:
        order = [one.name for one in actors]
        above, below = set[str](), set[str]()
        for event in self.events:
            if event.target in order and event.actor in order and event.target != event.actor:
                up = order.index(event.target) < order.index(event.actor)
                above.add(event.actor if up else event.target)
                below.add(event.target if up else event.actor)
        lanes: dict[str, Lane] = {}
        for one in actors:
            hosts = tuple(dict.fromkeys(held.host for held in self.holdings if held.client == one.name))[:_MOST_BANDS]
            about = tuple(wrapped(one.about, SMALL, self.names_room)[:3])
            bands = len(hosts) * BAND_STEP + 6 if hosts else 0
            lanes[one.name] = Lane(
                one,
                about,
                max(_WORDS if one.name in above else _BARE, 12.5 * len(about) / 2 + 18),
                max(_WORDS if one.name in below else _BARE, 0 if hosts else 12.5 * len(about) / 2 + 12) + bands,
                hosts,
            )
        return lanes


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"{number + 1}"
