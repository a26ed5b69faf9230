"""The legend of a picture: the keys by their signs, and the forms of connections that occur."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from dynpin.lab.picture.cast import EDGE, UNKNOWN, Cast
from dynpin.lab.picture.glyphs import FORMS, badge, connection, eye
from dynpin.lab.picture.scene import Box, Line, Mark, Rect, Scene, Text, clipped, width
from dynpin.lab.timeline import Outcome

__all__ = ["add_legend"]

_LETTERS, _STEP = 12.0, 25.0
_SIGN, _BETWEEN = 17.0, 28.0

_Entry = tuple[Sequence[Mark], str]


def add_legend(scene: Scene, cast: Cast, top: float) -> float:
    """Draw the legend from `top` on, and give the height of the whole picture."""
    scene.add(Line(((EDGE, top), (scene.width - EDGE, top)), stroke="rule"))
    keys: list[_Entry] = [(list(badge(sign, 0, 0, 8)), name) for sign, name in cast.signs.values()]
    if any(pin not in cast.signs for event in cast.events for pin in (*event.pinned, *event.shown[:1])):
        keys.append((list(badge(UNKNOWN, 0, 0, 8)), "a key that nobody in the story holds"))
    happened = {event.outcome for event in cast.events}
    forms: list[_Entry] = [
        (list(_sample(outcome)), form.meaning) for outcome, form in FORMS.items() if outcome in happened
    ]
    if cast.holdings:
        stripes = [Rect(Box(-9, -7, 9, -0.5), fill="key-0"), Rect(Box(-9, 0.5, 9, 7), fill="key-1")]
        forms.append((stripes, "pins that a client holds"))
    y = top + 22
    for entries in (keys, forms):
        y = _flow(scene, entries, y)
    return y


def _flow(scene: Scene, entries: Sequence[_Entry], y: float) -> float:
    """The entries side by side, in as many lines as they take; gives where the next line is."""
    left, right = EDGE + 10, scene.width - EDGE
    x = left
    for marks, name in entries:
        told = clipped(name, _LETTERS, right - left - _SIGN)
        wide = _SIGN + width(told, _LETTERS)
        if x > left and x + wide > right:
            x, y = left, y + _STEP
        scene.add(*(_moved(mark, x, y) for mark in marks))
        scene.add(Text(x + _SIGN, y + 4.5, told, _LETTERS))
        x += wide + _BETWEEN
    return y + _STEP if entries else y


def _sample(outcome: Outcome) -> Iterator[Mark]:
    yield from connection(FORMS[outcome], 0, 9, -20, 9)
    if outcome == "fooled":
        yield from eye(0, 2)


def _moved(mark: Mark, x: float, y: float) -> Mark:
    match mark:
        case Line():
            return replace(mark, points=tuple((across + x, down + y) for across, down in mark.points))
        case Rect():
            box = mark.box
            return replace(mark, box=Box(box.left + x, box.top + y, box.right + x, box.bottom + y))
        case _:
            return replace(mark, x=mark.x + x, y=mark.y + y)
