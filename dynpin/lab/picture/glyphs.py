"""The signs in a picture: the actors, the keys, and the outcomes of connections."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from dynpin.lab.picture.scene import Box, Circle, Line, Mark, Rect, Text
from dynpin.lab.timeline import Outcome, Role

__all__ = [
    "FORMS",
    "Badge",
    "Form",
    "actor",
    "badge",
    "connection",
    "cross",
    "deed",
    "dotted",
    "envelope",
    "eye",
    "fringe",
    "hourglass",
    "reach",
    "tick",
]


@dataclass(frozen=True, slots=True)
class Form:
    """How an outcome is drawn. The colour says whether it is good, the form whether the request was sent.

    Attributes:
        word: the text beside the connection.
        meaning: the text in the legend.
        color: the colour of the connection.
        passed: whether the request was sent.
        sign: the form as a character, for texts.
    """

    word: str
    meaning: str
    color: str
    passed: bool
    sign: str


FORMS: dict[Outcome, Form] = {
    "served": Form("served", "the request reached the true site", "good", True, "→"),
    "protected": Form("protected", "an impostor was refused before the request", "good", False, "⊣"),
    "fooled": Form("fooled", "somebody else read the request", "bad", True, "→"),
    "locked-out": Form("locked out", "the true site was refused", "bad", False, "⊣"),
    "failed": Form("failed", "it failed for a reason other than pins", "dull", False, "✗"),
}


@dataclass(frozen=True, slots=True)
class Badge:
    """The sign of a key: a letter and a colour for the key, and a shape for the kind of its owner."""

    letter: str
    color: str
    shape: Role | None


def badge(sign: Badge, x: float, y: float, radius: float = 9.0) -> Iterator[Mark]:
    """A key: a circle for a site's, a square for an authority's, a diamond for an attacker's."""
    yield Circle(x, y, radius + 2.5, fill="ground")
    match sign.shape:
        case "authority":
            half = radius * 0.9
            yield Rect(Box(x - half, y - half, x + half, y + half), fill=sign.color, radius=2)
        case "attacker":
            reach = radius * 1.28
            yield Line(_around(x, y, reach, 4), fill=sign.color, closed=True)
        case None:
            yield Circle(x, y, radius - 1, fill="ground", stroke=sign.color, width=1.5)
        case _:
            yield Circle(x, y, radius, fill=sign.color)
    ink = sign.color if sign.shape is None else "on-key"
    size = radius * 1.25
    yield Text(x, y + size * 0.365, sign.letter, size, ink, bold=True, anchor="middle")


def _around(x: float, y: float, radius: float, corners: int) -> tuple[tuple[float, float], ...]:
    """The corners of a regular polygon, with one corner at the top."""
    turns = [math.tau * corner / corners for corner in range(corners)]
    return tuple((x + radius * math.sin(turn), y - radius * math.cos(turn)) for turn in turns)


def actor(role: Role, x: float, y: float) -> Iterator[Mark]:
    """The actor of a lane, 22 pixels wide."""
    ink = "bad" if role == "attacker" else "ink"
    match role:
        case "client":
            yield Circle(x, y - 5, 4.5, fill=ink)
            curve = [(x + 9 * math.cos(turn), y + 10 - 8 * math.sin(turn)) for turn in _half_turn()]
            yield Line(tuple(curve), fill=ink, closed=True)
        case "site":
            for top in (y - 10, y + 1):
                yield Rect(Box(x - 10, top, x + 10, top + 9), fill=ink, radius=2)
                yield Circle(x + 5.5, top + 4.5, 1.6, fill="ground")
                yield Line(((x - 6.5, top + 4.5), (x + 0.5, top + 4.5)), stroke="ground", width=1.5)
        case "attacker":
            # A hat, and a mask with two eyes.
            yield Line(((x - 11, y - 3), (x + 11, y - 3)), stroke=ink, width=2.5)
            yield Line(
                ((x - 6.5, y - 3), (x - 4.5, y - 11), (x + 4.5, y - 11), (x + 6.5, y - 3)), fill=ink, closed=True
            )
            yield Line(
                tuple((x + 8 * math.cos(t), y + 1 + 8 * math.sin(t)) for t in _half_turn()), fill=ink, closed=True
            )
            for eye in (x - 3.2, x + 3.2):
                yield Circle(eye, y + 3.4, 1.7, fill="ground")
        case "authority":
            # A seal with its two ribbons.
            for side in (-1, 1):
                points = (
                    (x + side, y),
                    (x + side * 7.5, y),
                    (x + side * 7.5, y + 11),
                    (x + side * 4, y + 8),
                    (x + side, y + 11),
                )
                yield Line(points, fill=ink, closed=True)
            yield Circle(x, y - 2.5, 8.5, fill=ink)
            yield Line(((x - 3.6, y - 2.5), (x - 1, y + 0.4), (x + 3.8, y - 5.4)), stroke="ground", width=2)


def _half_turn() -> list[float]:
    return [math.pi * step / 12 for step in range(13)]


def connection(form: Form, y: float, start: float, end: float) -> Iterator[Mark]:
    """A connection from the client's lane at `start` to the lane at `end`, both in pixels from the left.

    A refused connection is dashed, since only the handshake took place, with a bar near the client.
    """
    right = 1 if end > start else -1
    yield Line(((start, y), (end, y)), stroke="ground", width=7)
    if form.passed:
        tip = end - right * 11
        yield Line(((start, y), (tip - right * 5, y)), stroke=form.color, width=3)
        yield Line(((tip - right * 9, y - 6), (tip - right * 9, y + 6), (tip, y)), fill=form.color, closed=True)
    else:
        yield Line(((start, y), (end - right * 10, y)), stroke=form.color, width=2, dash=(4, 3.5))
        # If the lanes are close together: in the middle between the client and the sign of the key.
        x = start + right * min(15, (abs(end - start) - 4) / 2)
        yield Rect(Box(x - 6, y - 11, x + 6, y + 11), fill="ground")
        if form.color == "dull":
            yield from cross(x, y, form.color)
        else:
            yield Rect(Box(x - 2.5, y - 9, x + 2.5, y + 9), fill=form.color, radius=1)
    yield Circle(start, y, 5, fill=form.color, stroke="ground", width=1.5)


def cross(x: float, y: float, color: str) -> Iterator[Mark]:
    """The connection failed."""
    yield Line(((x - 5, y - 5), (x + 5, y + 5)), stroke=color, width=3)
    yield Line(((x - 5, y + 5), (x + 5, y - 5)), stroke=color, width=3)


def reach(y: float, start: float, end: float) -> Iterator[Mark]:
    """One actor does something to another: from lane to lane."""
    right = 1 if end > start else -1
    yield Line(((start, y), (end, y)), stroke="ground", width=6)
    yield Line(((start, y), (end - right * 10, y)), stroke="ink", width=1.4, dash=(1.5, 3))
    tip, wings = end - right * 8, end - right * 14
    yield Line(((wings, y - 5), (tip, y), (wings, y + 5)), stroke="ink", width=1.6)


def envelope(x: float, y: float, color: str) -> Iterator[Mark]:
    """A violation report, 18 pixels wide."""
    yield Rect(Box(x - 11, y - 8, x + 11, y + 8), fill="ground")
    yield Rect(Box(x - 8.5, y - 5.5, x + 8.5, y + 5.5), stroke=color, width=1.6, fill="ground")
    yield Line(((x - 8.5, y - 5.5), (x, y + 1.5), (x + 8.5, y - 5.5)), stroke=color, width=1.6)


def fringe(x: float, top: float, bottom: float) -> Iterator[Mark]:
    """A comb beside a band that covers subdomains."""
    yield Line(((x, top), (x, bottom)), stroke="ink", width=1)
    for step in range(int((bottom - top) // 7) + 1):
        yield Line(((x, top + 7 * step), (x + 3, top + 7 * step)), stroke="ink", width=1)


def dotted(x: float, top: float, bottom: float) -> Iterator[Mark]:
    """Dots beside a band of static pins."""
    yield Line(((x, top), (x, bottom)), stroke="ink", width=1.6, dash=(1.6, 2.4))


def hourglass(x: float, y: float) -> Iterator[Mark]:
    """Pins have expired."""
    yield Rect(Box(x - 7, y - 7, x + 7, y + 7), fill="ground")
    yield Line(((x - 5, y - 6), (x + 5, y - 6), (x - 5, y + 6), (x + 5, y + 6)), stroke="ink", width=1.5, closed=True)


def tick(x: float, y: float) -> Iterator[Mark]:
    """Pins were removed."""
    yield Line(((x - 8, y), (x + 8, y)), stroke="ink", width=2.5)


def eye(x: float, y: float) -> Iterator[Mark]:
    """Somebody reads; 16 pixels wide."""
    lid = [(8 * step / 8, 4.6 * math.cos(math.pi * step / 16)) for step in range(-8, 9)]
    outline = [(x + across, y - up) for across, up in lid] + [(x + across, y + up) for across, up in reversed(lid)]
    yield Line(tuple(outline), stroke="bad", width=1.5, fill="ground", closed=True)
    yield Circle(x, y, 2.6, fill="bad")


def deed(x: float, y: float) -> Iterator[Mark]:
    """Something is done here."""
    yield Circle(x, y, 8, fill="ground")
    yield Line(_around(x, y, 6.5, 4), stroke="ink", width=1.8, fill="raised", closed=True)
