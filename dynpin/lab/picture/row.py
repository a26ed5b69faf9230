"""One row of a picture: columns of moments over all lanes, like a system of a score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dynpin.lab.picture.cast import BAND, BAND_STEP, EDGE, NAME, SMALL, Cast, Lane
from dynpin.lab.picture.glyphs import FORMS, actor, badge, connection, deed, eye
from dynpin.lab.picture.holdings import Holding
from dynpin.lab.picture.scene import Box, Line, Mark, Rect, Scene, Text, clipped, width, wrapped
from dynpin.lab.picture.times import Moment
from dynpin.lab.timeline import Event
from dynpin.pins import Pin

__all__ = ["Column", "Row"]

# Pixels: the sentence over a column, and the line of a connection from the column's left.
_SENTENCE, _LEADING, _INSET = 12.0, 15.5, 20.0
_WORD = 12.0
_BADGE = 21.0
_MOST_LANES = 6


@dataclass(frozen=True, slots=True)
class Column:
    """A moment at its place.

    Attributes:
        moment: what it is for.
        left: where it begins.
        right: where it ends.
    """

    moment: Moment
    left: float
    right: float

    @property
    def index(self) -> int:
        """The place of its event in the timeline."""
        return self.moment.number - 1

    @property
    def x(self) -> float:
        """Where its connection stands."""
        return self.left + _INSET


class Row:
    """A row whose head is at `top`; :meth:`draw` gives where the next may begin."""

    def __init__(self, cast: Cast, columns: Sequence[Column], top: float) -> None:
        self._cast = cast
        self._columns = columns
        self._top = top
        self._start = cast.margin - 6
        self._right = columns[-1].right
        self._lanes = _shown(cast, columns)
        self._sentences = [self._sentence(column) for column in columns]
        y = top + 36 + _LEADING * max(map(len, self._sentences))
        self._y: dict[str, float] = {}
        for name, lane in self._lanes.items():
            self._y[name] = y + lane.above
            y += lane.above + lane.below
        self._bottom = y

    def draw(self, scene: Scene) -> float:
        """Add its marks to a scene."""
        scene.add(*self._heads())
        for lane in self._lanes.values():
            scene.add(*self._lane(lane))
        scene.add(*self._gaps())
        for held in self._cast.holdings:
            scene.add(*self._band(held))
        for column in self._columns:
            event = column.moment.event
            scene.add(*(self._visit(column, event) if event.outcome else self._deed(column, event)))
        return self._bottom + 16

    # -- what stands still -----------------------------------------------------------------------------------------

    def _sentence(self, column: Column) -> list[str]:
        text = f"{column.moment.number}. {column.moment.sentence}"
        return wrapped(text, _SENTENCE, column.right - column.left - 14)

    def _heads(self) -> Iterator[Mark]:
        """The time over the columns that share it, and each column's sentence."""
        first = self._columns[0]
        for column, following in zip(self._columns, [*self._columns[1:], None], strict=True):
            if following is not None and following.moment.when == column.moment.when:
                continue
            yield Rect(Box(first.left, self._top, column.right - 4, self._top + 22), fill="raised", radius=5)
            yield Text(first.left + 8, self._top + 15.5, first.moment.when, 12.5, bold=True)
            first = following or first
        for column, lines in zip(self._columns, self._sentences, strict=True):
            for number, line in enumerate(lines):
                yield Text(column.left + 8, self._top + 40 + number * _LEADING, line, _SENTENCE)

    def _lane(self, lane: Lane) -> Iterator[Mark]:
        y = self._y[lane.actor.name]
        yield Line(((self._start, y), (self._right, y)), stroke="rule", width=1.5)
        yield from actor(lane.actor.role, EDGE + 10, y - 2)
        # The name and the lines under it stand around the lane.
        name_y = y + 4 - 6.75 * len(lane.about) - (4 if lane.hosts and len(lane.about) > 1 else 0)
        x, room = self._cast.names_at, self._cast.names_room
        yield Text(x, name_y, clipped(lane.actor.name, NAME, room, bold=True), NAME, bold=True)
        for number, line in enumerate(lane.about, start=1):
            yield Text(x, name_y + 1 + 12.5 * number, line, SMALL, "faint")
        # Names hang into the room of the bands, where the actor has both.
        for number, host in enumerate(lane.hosts):
            told = clipped(f"pins for {host}", SMALL, self._start - 6 - EDGE)
            yield Text(self._start - 6, y + lane.band(number) + 4, told, SMALL, "faint", anchor="end")
        yield from self._keys_in_use(lane, y)

    def _keys_in_use(self, lane: Lane, y: float) -> Iterator[Mark]:
        """The lane of a site or an attacker in the colour of the key that it last showed."""
        shown: Pin | None = None
        start = self._start
        for index, event in enumerate(self._cast.events):
            by = event.target if event.outcome else event.actor
            if by != lane.actor.name or not event.shown:
                continue
            place = self._place(index)
            if shown is not None and place > start:
                yield Line(((start, y), (place, y)), stroke=self._cast.sign(shown).color, width=4)
            shown, start = event.shown[0], max(start, place)
        if shown is not None and self._right > start:
            yield Line(((start, y), (self._right, y)), stroke=self._cast.sign(shown).color, width=4)

    def _gaps(self) -> Iterator[Mark]:
        """Time in which nothing is told: a break through all lanes, with its length."""
        for before, column in zip(self._columns, self._columns[1:], strict=False):
            if not column.moment.gap:
                continue
            for y in self._y.values():
                yield Line(((before.right, y), (column.left, y)), stroke="ground", width=6)
                yield Line(((before.right + 4, y), (column.left - 4, y)), stroke="rule", width=2, dash=(2, 4))
            middle = (before.right + column.left) / 2 - 2
            yield Text(middle, self._top + 15.5, column.moment.gap, SMALL, "faint", anchor="middle")

    # -- what happens ----------------------------------------------------------------------------------------------

    def _place(self, index: int) -> float:
        """Where an event stands in this row: on its left edge if before, on its right edge if after."""
        if index < self._columns[0].index:
            return self._start
        return next((column.x for column in self._columns if column.index == index), self._right)

    def _band(self, held: Holding) -> Iterator[Mark]:
        """What a client holds as pins: a stripe for each, with their signs where the band begins in this row."""
        lane = self._lanes.get(held.client)
        start = self._place(held.first)
        end = self._right if held.last is None else self._place(held.last)
        if held.has_lapsed and self._start < end < self._right:
            # Before what happens there: in the gap, or at the column's edge.
            end -= _INSET + 6
        if lane is None or held.host not in lane.hosts or end <= start:
            return
        y = self._y[held.client] + lane.band(lane.hosts.index(held.host))
        each = BAND / len(held.pins)
        for number, pin in enumerate(held.pins):
            top = y - BAND / 2 + number * each
            yield Rect(Box(start, top + 0.5, end, top + each - 0.5), fill=self._cast.sign(pin).color)
        if held.last is not None and held.last <= self._columns[-1].index:
            yield Line(((end, y - BAND / 2 - 2), (end, y + BAND / 2 + 2)), stroke="ink", width=2.5)
        # The words of the next column begin there.
        room = min([end, *(column.x + 14 for column in self._columns if column.x > start)])
        for number, pin in enumerate(held.pins):
            if start + _BADGE * (number + 1) < room:
                yield from badge(self._cast.sign(pin), start + 14 + number * _BADGE, y, 8)

    def _visit(self, column: Column, event: Event) -> Iterator[Mark]:
        form = FORMS[event.outcome or "failed"]
        start, lane = self._y[event.actor], self._lanes[event.actor]
        end = self._y.get(event.target or "")
        if end is None:
            # It came to nobody.
            yield from connection(form, column.x, start, start - 40, 17)
            yield Text(column.x + 16, start - 13, form.word, _WORD, form.color, bold=True)
            return
        up = end < start
        # Words of a connection that goes down stand under the bands.
        bands = 0 if up else len(lane.hosts) * BAND_STEP
        yield from connection(form, column.x, start, end, 20 + bands)
        at_client = start - 16 if up else start + 24 + bands
        room = column.right - column.x - 16
        if form.passed:
            yield Text(column.x + 14, end + 26 if up else end - 19, _passed(event, room), _WORD, form.color, bold=True)
            if event.noting:
                word = "header ignored" if event.noting == "ignored" else f"pins {event.noting}"
                yield Text(column.x + 14, at_client, clipped(word, SMALL, room), SMALL)
            if event.outcome == "fooled":
                yield from eye(column.x, (start + end) / 2)
        else:
            yield Text(column.x + 16, at_client, form.word, _WORD, form.color, bold=True)
        yield from self._badges(event, column.x, end)

    def _deed(self, column: Column, event: Event) -> Iterator[Mark]:
        y, x = self._y[event.actor], column.x
        end = self._y.get(event.target or "", y)
        if end != y:
            down = 1 if end > y else -1
            yield Line(((x, y), (x, end)), stroke="ground", width=6)
            yield Line(((x, y), (x, end - down * 8)), stroke="ink", width=1.4, dash=(1.5, 3))
            tip, wings = end - down * 6, end - down * 12
            yield Line(((x - 5, wings), (x, tip), (x + 5, wings)), stroke="ink", width=1.6)
        if event.shown:
            yield from self._badges(event, x, y)
        else:
            yield from deed(x, y)
        lane = self._lanes[event.actor]
        if event.pinned and lane.actor.role != "client" and x + 50 + _BADGE * len(event.pinned) < column.right:
            # What the header names from here on.
            yield Text(x + 14, y + 26, "pins", SMALL)
            for number, pin in enumerate(event.pinned):
                yield from badge(self._cast.sign(pin), x + 52 + _BADGE * number, y + 22, 7)

    def _badges(self, event: Event, x: float, y: float) -> Iterator[Mark]:
        for number, pin in enumerate(self._cast.shown(event)):
            yield from badge(self._cast.sign(pin), x + _BADGE * number, y)


def _shown(cast: Cast, columns: Sequence[Column]) -> dict[str, Lane]:
    """All lanes; where these are too many to look over, those of who has a part in this row."""
    if len(cast.lanes) <= _MOST_LANES:
        return cast.lanes
    acting = {name for column in columns for name in (column.moment.event.actor, column.moment.event.target)}
    return {name: lane for name, lane in cast.lanes.items() if name in acting}


def _passed(event: Event, room: float) -> str:
    """What became of a request that went out: who fooled the client read this much of it."""
    if event.outcome != "fooled" or not event.bytes_read:
        return FORMS[event.outcome or "served"].word
    told = f"read {event.bytes_read:,} bytes"
    return told if width(told, _WORD, bold=True) <= room else f"read {event.bytes_read:,} B"
