"""The legend of a picture: the keys with their signs, and every other sign that was drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from dynpin.lab.picture.cast import EDGE, UNKNOWN, Cast
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
from dynpin.lab.picture.scene import Box, Line, Mark, Rect, Scene, Text, width, wrapped
from dynpin.lab.timeline import Outcome, Role

__all__ = ["SIGNS", "add_legend"]

_LETTERS, _STEP = 11.5, 23.0
_SIGN, _BETWEEN = 19.0, 22.0

_Entry = tuple[Sequence[Mark], str]
_ROLES: dict[Role, str] = {
    "authority": "a certificate authority",
    "site": "a site",
    "attacker": "an attacker",
    "client": "a client",
}
_STRIPES = (Rect(Box(-6, -8, -0.4, 8), fill="key-0"), Rect(Box(0.4, -8, 6, 8), fill="key-1"))

# The other signs that a part may draw, with their meanings.
SIGNS: dict[str, tuple[Iterable[Mark], str]] = {
    "deed": (tuple(deed(0, 0)), "something is done"),
    "reach": (tuple(reach(0, -12, 20)), "to somebody"),
    "taken": (tuple(envelope(0, 0, "good")), "a violation report is taken"),
    "failed": ((*envelope(0, 0, "dull"), *cross(0, 0, "dull")), "a violation report fails"),
    "key": ((Line(((0, -8), (0, 8)), stroke="key-0", width=4),), "the key that is shown"),
    "band": (_STRIPES, "pins that a client holds"),
    "covers": ((*_STRIPES, *fringe(8, -8, 8)), "and for all subdomains"),
    "static": ((*_STRIPES, *dotted(-9, -8, 8)), "static pins"),
    "expired": (tuple(hourglass(0, 0)), "pins expire"),
    "gone": (tuple(tick(0, 0)), "pins are unpinned, forgotten or driven out"),
    "gap": ((Line(((0, -8), (0, 8)), stroke="rule", width=2, dash=(2, 4)),), "time passes"),
}


def add_legend(scene: Scene, cast: Cast, top: float) -> float:
    """Draw the legend from `top` on, and return the height of the whole picture."""
    scene.add(Line(((EDGE, top), (scene.width - EDGE, top)), stroke="rule"))
    keys: list[_Entry] = [(list(badge(sign, 0, 0, 7)), name) for sign, name in cast.signs.values()]
    pins = {pin for event in cast.events for pin in (*event.pinned, *event.shown[:1])}
    if any(pin not in cast.signs for pin in pins | {pin for one in cast.holdings for pin in one.held.pins}):
        keys.append((list(badge(UNKNOWN, 0, 0, 7)), "a key that nobody in the story has"))
    happened = {event.outcome for event in cast.events}
    forms: list[_Entry] = [
        (list(_sample(outcome)), f"{form.word}: {form.meaning}")
        for outcome, form in FORMS.items()
        if outcome in happened
    ]
    signs: list[_Entry] = [(list(marks), told) for name, (marks, told) in SIGNS.items() if name in cast.used]
    roles = {one.role for one in cast.actors}
    people: list[_Entry] = [(list(actor(role, 0, 0)), told) for role, told in _ROLES.items() if role in roles]
    y = top + 20
    for entries, before in ((keys, 0), (forms, 14), (signs, 4), (people, 0)):
        y = _flow(scene, entries, y, before)
    return y


def _flow(scene: Scene, entries: Sequence[_Entry], y: float, before: float) -> float:
    """Draw the entries side by side, in as many lines as needed. Returns the position of the next line.

    Args:
        scene: the scene to draw into.
        entries: signs and their meanings.
        y: the middle of the first line.
        before: how much further to the left these signs reach than others.
    """
    left, right = EDGE + 10 + before, scene.width - EDGE
    x = left
    for marks, name in entries:
        told = wrapped(name, _LETTERS, right - left - _SIGN) or [""]
        wide = _SIGN + max(width(line, _LETTERS) for line in told)
        if x > left and x + wide > right:
            x, y = left, y + _STEP
        scene.add(*(_moved(mark, x, y) for mark in marks))
        for number, line in enumerate(told):
            scene.add(Text(x + _SIGN, y + 4 + 15 * number, line, _LETTERS))
        if len(told) > 1:  # it has its lines for itself
            x, y = left, y + _STEP + 15 * (len(told) - 1)
        else:
            x += wide + _BETWEEN + before
    return y + _STEP if x > left else y


def _sample(outcome: Outcome) -> Iterator[Mark]:
    yield from connection(FORMS[outcome], 0, 10, -22)
    if outcome == "fooled":
        yield from eye(-2, 0)


def _moved(mark: Mark, x: float, y: float) -> Mark:
    match mark:
        case Line():
            return replace(mark, points=tuple((across + x, down + y) for across, down in mark.points))
        case Rect():
            box = mark.box
            return replace(mark, box=Box(box.left + x, box.top + y, box.right + x, box.bottom + y))
        case _:
            return replace(mark, x=mark.x + x, y=mark.y + y)
