"""One part of a picture: lanes side by side, time running downwards, and words beside each event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dynpin.durations import duration
from dynpin.lab.picture.cast import EDGE, SMALL, Cast
from dynpin.lab.picture.glyphs import (
    FORMS,
    actor,
    badge,
    connection,
    cross,
    deed,
    dotted,
    envelope,
    eye,
    fringe,
    hourglass,
    reach,
    tick,
)
from dynpin.lab.picture.holdings import Holding
from dynpin.lab.picture.scene import Box, Line, Mark, Rect, Scene, Text, clipped, width, wrapped
from dynpin.lab.picture.times import Moment
from dynpin.lab.timeline import Actor, Event, Held, day
from dynpin.pins import Pin

__all__ = ["Part"]

# Pixels: letters, the widest and narrowest lanes, bands, and the signs of keys.
_NAME, _SENTENCE, _LEADING = 12.5, 12.5, 16.0
_LANE, _LEAST_LANE, _BAND, _BADGE = 76.0, 25.0, 15.0, 17.0
_HEADING, _LEVEL = 26.0, 15.0


@dataclass(frozen=True, slots=True)
class _Row:
    """The place of an event: the top of its words, and the height of its connection."""

    moment: Moment
    top: float
    y: float
    lines: list[list[Mark]]


class Part:
    """A part that begins at `top`; :meth:`draw` returns where the next one may begin."""

    def __init__(self, cast: Cast, lanes: Sequence[Actor], moments: Sequence[Moment], top: float, page: float) -> None:
        self._cast = cast
        self._lanes = lanes
        self._top = top
        self._page = page
        self._x: dict[str, float] = {}
        self._bands: dict[tuple[str, str], float] = {}
        right = self._place_lanes()
        self._left = right + 12
        self._room = page - EDGE - self._left
        self._labels = self._placed_labels()
        self._icons = top + 8 + _LEVEL * (1 + max((level for *_, level in self._labels), default=0)) + 14
        self._first = moments[0].number - 1
        self._start = self._icons + 16
        # Bands that began in an earlier part show their signs before the first row.
        held = [
            len(one.held.pins)
            for one in cast.holdings
            if one.first < self._first and (one.last is None or one.last >= self._first)
        ]
        self._rows = self._placed_rows(moments, self._start + (8 + 15.0 * min(max(held), 3) if held else 4))
        last = self._rows[-1]
        self._bottom = max(last.top + _LEADING * len(last.lines), last.y + 22) + 8

    def draw(self, scene: Scene) -> float:
        """Add its marks to a scene."""
        for one in self._lanes:
            scene.add(*self._lane(one))
        scene.add(*self._gaps())
        for held in self._cast.holdings:
            scene.add(*self._band(held))
        for row in self._rows:
            event = row.moment.event
            scene.add(*(self._visit(row, event) if event.outcome else self._deed(row, event)))
            for line in row.lines:
                scene.add(*line)
        scene.add(*self._heads())
        return self._bottom + 10

    # -- positions -------------------------------------------------------------------------------------------------

    def _place_lanes(self) -> float:
        bands = {one.name: self._cast.bands(one.name) for one in self._lanes if one.role == "client"}
        beside = sum(map(len, bands.values())) * _BAND
        step = (self._page * 0.46 - 2 * EDGE - beside) / max(1, len(self._lanes))
        step = min(max(step, _LEAST_LANE), _LANE)
        x = EDGE + 11
        for one in self._lanes:
            self._x[one.name] = x
            for number, host in enumerate(bands.get(one.name, ())):
                self._bands[one.name, host] = x + 18 + number * _BAND
            x += step + _BAND * len(bands.get(one.name, ()))
        return x - step + 14

    def _placed_labels(self) -> list[tuple[float, str, str, int]]:
        """The names above lanes and bands: the start of each, bold, faint, and its level from below.

        They are placed from the right. A name that would overlap those to its right is put above them, so that no
        leader line crosses a name.
        """
        labels: list[tuple[float, str, str]] = [(self._x[one.name], one.name, one.about) for one in self._lanes]
        labels += [(x, "", f"pins for {host}") for (_, host), x in self._bands.items()]
        placed: list[tuple[float, str, str, int]] = []
        for x, bold, faint in sorted(labels, reverse=True):
            room = self._page - EDGE - x
            name = clipped(bold, _NAME, room, bold=True)
            wide = width(name, _NAME, bold=True)
            about = clipped(faint, SMALL, room - wide - 8) if faint and room - wide > 60 else ""
            end = x + wide + (width(about, SMALL) + 8 if about else 0)
            level = 1 + max((level for other, *_, level in placed if other < end + 8), default=-1)
            placed.append((x, name, about, level))
        return placed

    def _placed_rows(self, moments: Sequence[Moment], y: float) -> list[_Row]:
        rows: list[_Row] = []
        for moment in moments:
            if not rows or moment.gap:
                y += _HEADING
            lines = self._words(moment, y)
            rows.append(_Row(moment, y, y + 9, lines))
            y += max(_LEADING * len(lines), 26) + 9
        return rows

    def _words(self, moment: Moment, top: float) -> list[list[Mark]]:
        """The event in lines: the sentence, its outcome, and the keys that were pinned."""
        event = moment.event
        lines: list[list[Mark]] = []

        def y() -> float:
            return top + 13 + _LEADING * len(lines)

        for line in wrapped(f"{moment.number}. {moment.sentence}", _SENTENCE, self._room):
            lines.append([Text(self._left, y(), line, _SENTENCE)])
        if event.outcome:
            form = FORMS[event.outcome]
            lines.append(
                [Text(self._left, y(), clipped(form.word, SMALL, self._room, bold=True), SMALL, form.color, True)]
            )
            if form.passed and event.noting:
                word = "header ignored" if event.noting == "ignored" else f"pins {event.noting}"
                x, level = self._left + width(form.word, SMALL, bold=True) + 8, top - 3 + _LEADING * len(lines)
                if x + width(word, SMALL) <= self._left + self._room:
                    lines[-1].append(Text(x, level, word, SMALL))
        for tokens in self._told(event):
            lines += self._flowed(tokens, top + 13 + _LEADING * len(lines))
        return lines

    def _told(self, event: Event) -> Iterator[list[str | Pin]]:
        """What a header says from here on, and the pins that clients did not hold before."""
        if event.max_age is not None:
            verb = "header pins" if event.max_age else "header unpins"
            after = f"for {duration(event.max_age)}" if event.max_age else "with max-age=0"
            below = ["and its", "subdomains"] if event.include_subdomains else []
            yield [*verb.split(), *event.pinned, *after.split(), *below]
        for held in self._cast.holdings:
            if held.first == self._cast.events.index(event) and held.client in self._x:
                yield self._held(held.held)

    def _held(self, held: Held) -> list[str | Pin]:
        until = "" if held.until is None else f"until {day(held.until)}"
        below = "and its subdomains" if held.include_subdomains else ""
        static = "static pins" if held.static else "holds"
        return [*static.split(), *held.pins, "for", held.host, *below.split(), *until.split()]

    def _flowed(self, tokens: Sequence[str | Pin], y: float) -> list[list[Mark]]:
        """Words and signs of keys, in as many lines as needed."""
        lines: list[list[Mark]] = [[]]
        x = self._left
        for token in tokens:
            text = clipped(token, SMALL, self._room) if isinstance(token, str) else ""
            wide = width(text, SMALL) + 6 if text else _BADGE
            if x > self._left and x + wide > self._left + self._room:
                lines.append([])
                x, y = self._left, y + _LEADING
            if isinstance(token, str):
                lines[-1].append(Text(x, y, text, SMALL, "faint"))
            else:
                lines[-1] += badge(self._cast.sign(token), x + 7.5, y - 4, 6)
            x += wide
        return lines

    # -- parts without an event ------------------------------------------------------------------------------------

    def _heads(self) -> Iterator[Mark]:
        for x, name, about, level in self._labels:
            y = self._icons - 14 - _LEVEL * level
            yield Line(((x, y + 2), (x, self._icons - 10 if name else self._start)), stroke="rule")
            if name:
                yield Text(x, y, name, _NAME, bold=True)
            if about:
                yield Text(x + (width(name, _NAME, bold=True) + 8 if name else 0), y, about, SMALL, "faint")
        for one in self._lanes:
            yield Rect(
                Box(self._x[one.name] - 12, self._icons - 13, self._x[one.name] + 12, self._icons + 12), fill="ground"
            )
            yield from actor(one.role, self._x[one.name], self._icons)

    def _lane(self, one: Actor) -> Iterator[Mark]:
        x = self._x[one.name]
        yield Line(((x, self._start), (x, self._bottom)), stroke="rule", width=1.5)
        if one.role in ("site", "attacker"):
            yield from self._keys_in_use(one.name, x)

    def _keys_in_use(self, name: str, x: float) -> Iterator[Mark]:
        """The lane of a site or an attacker, in the colour of the key that it shows, as long as it answers."""
        shown: Pin | None = None
        since = self._start
        for index, event in enumerate(self._cast.events):
            by = event.target if event.outcome else event.actor
            if by != name or not (event.shown or event.leaves):
                continue
            yield from self._stretch(shown, x, since, self._y(index))
            shown, since = (None if event.leaves else event.shown[0]), max(since, self._y(index))
        yield from self._stretch(shown, x, since, self._bottom)

    def _stretch(self, shown: Pin | None, x: float, top: float, bottom: float) -> Iterator[Mark]:
        if shown is not None and bottom > top:
            self._cast.used.add("key")
            yield Line(((x, top), (x, bottom)), stroke=self._cast.sign(shown).color, width=4)

    def _gaps(self) -> Iterator[Mark]:
        """The time above the rows that share it. If time passes without an event, all lanes have a gap."""
        for row in self._rows:
            moment = row.moment
            if row is not self._rows[0] and not moment.gap:
                continue
            top = row.top - _HEADING + 2
            yield Rect(Box(self._left - 6, top, self._left + self._room, top + 20), fill="raised", radius=4)
            when = clipped(moment.when, SMALL, self._room, bold=True)
            yield Text(self._left, top + 14, when, SMALL, bold=True)
            later = f"{moment.gap} later" if moment.gap else ""
            x = self._left + width(when, SMALL, bold=True) + 8
            if later and x + width(later, SMALL) <= self._left + self._room:
                yield Text(x, top + 14, later, SMALL, "faint")
            if moment.gap:
                self._cast.used.add("gap")
                for x in self._x.values():
                    yield Line(((x, top + 2), (x, top + 18)), stroke="ground", width=6)
                    yield Line(((x, top + 3), (x, top + 18)), stroke="rule", width=2, dash=(2, 4))

    # -- events ----------------------------------------------------------------------------------------------------

    def _y(self, index: int) -> float:
        """The position of an event in this part: at the start if it is earlier, at the bottom if it is later."""
        if index < self._first:
            return self._start
        return next((row.y for row in self._rows if row.moment.number - 1 == index), self._bottom)

    def _band(self, held: Holding) -> Iterator[Mark]:
        """The pins that a client holds: one stripe for each, with their signs where the band begins in this part."""
        x = self._bands.get((held.client, held.held.host))
        top, bottom = self._y(held.first), self._bottom if held.last is None else self._y(held.last)
        if x is None or bottom <= top:
            return
        ends_here = held.last is not None and self._first <= held.last < self._first + len(self._rows)
        if held.end == "replaced" and ends_here:
            bottom -= 3
        self._cast.used.add("band")
        each = 12.0 / len(held.held.pins) if held.held.pins else 12.0
        for number, pin in enumerate(held.held.pins):
            left = x - 6 + number * each
            yield Rect(Box(left + 0.4, top, left + each - 0.4, bottom), fill=self._cast.sign(pin).color)
        if held.held.include_subdomains:
            self._cast.used.add("covers")
            yield from fringe(x + 8, top, bottom)
        if held.held.static:
            self._cast.used.add("static")
            yield from dotted(x - 8.5, top, bottom)
        if ends_here and held.end == "expired":
            self._cast.used.add("expired")
            yield from hourglass(x, bottom)
        elif ends_here and held.end == "gone":
            self._cast.used.add("gone")
            yield from tick(x, bottom)
        room = min([bottom, *(row.y for row in self._rows if row.y > top)]) - 16
        for number, pin in enumerate(held.held.pins):
            y = top + 15 + 15 * number
            if y <= room:
                yield from badge(self._cast.sign(pin), x, y, 6)

    def _visit(self, row: _Row, event: Event) -> Iterator[Mark]:
        form = FORMS[event.outcome or "failed"]
        start = self._x[event.actor]
        end = self._x.get(event.target or "")
        if end is None or end == start:
            # The connection reached nobody.
            yield from connection(form, row.y, start, start - 34 if start > 60 else start + 34)
            return
        yield from connection(form, row.y, start, end)
        if event.outcome == "fooled" and abs(end - start) > 52:
            yield from eye((start + end) / 2, row.y)
        yield from self._badges(event, end, row.y)

    def _deed(self, row: _Row, event: Event) -> Iterator[Mark]:
        x = self._x[event.actor]
        end = self._x.get(event.target or "", x)
        if end != x:
            yield from reach(row.y, x, end)
            self._cast.used.add("reach")
        if event.report is not None and event.actor in self._x:
            self._cast.used.add(event.report)
            middle = (x + end) / 2 if end != x else x - 20 if x > 40 else x + 20
            yield from envelope(middle, row.y, "good" if event.report == "taken" else "dull")
            if event.report == "failed":
                yield from cross(middle, row.y, "dull")
        if event.shown:
            yield from self._badges(event, x, row.y)
        else:
            self._cast.used.add("deed")
            yield from deed(x, row.y)

    def _badges(self, event: Event, x: float, y: float) -> Iterator[Mark]:
        for number, pin in enumerate(self._cast.shown(event)):
            if number == 0 or x + _BADGE * number + 8 < self._left - 8:
                yield from badge(self._cast.sign(pin), x + _BADGE * number, y, 7.5)
