"""The elements of a picture: lines, boxes, circles and texts at their places, with colours named by their meaning.

A scene knows no file format: `svg.py` and `canvas.py` write it. It measures its own texts, so that a layout can keep
them apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dynpin.lab.picture.letters import BOLD, OTHER, REGULAR

__all__ = ["Box", "Circle", "Line", "Mark", "Rect", "Scene", "Text", "clipped", "width", "wrapped"]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the page, in pixels from the top left."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points; with `closed` and `fill`, an area.

    Here and below, `fill` and `stroke` are names of colours (`paper.py`), or None. `dash` has the lengths on, off, on …
    in pixels.
    """

    points: tuple[tuple[float, float], ...]
    stroke: str | None = None
    width: float = 1.0
    dash: tuple[float, ...] = ()
    fill: str | None = None
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Rect:
    """A box with round corners."""

    box: Box
    fill: str | None = None
    stroke: str | None = None
    width: float = 1.0
    radius: float = 0.0


@dataclass(frozen=True, slots=True)
class Circle:
    """A circle."""

    x: float
    y: float
    radius: float
    fill: str | None = None
    stroke: str | None = None
    width: float = 1.0


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text; `y` is its baseline, `x` its beginning, middle or end by `anchor`."""

    x: float
    y: float
    text: str
    size: float
    color: str = "ink"
    bold: bool = False
    anchor: Literal["start", "middle", "end"] = "start"

    @property
    def box(self) -> Box:
        """The area of its letters: from the top of an l to the bottom of a g."""
        wide = width(self.text, self.size, bold=self.bold)
        left = self.x - {"start": 0.0, "middle": wide / 2, "end": wide}[self.anchor]
        return Box(left, self.y - 0.76 * self.size, left + wide, self.y + 0.24 * self.size)


Mark = Line | Rect | Circle | Text


@dataclass(slots=True)
class Scene:
    """A picture: its size in pixels, its description in words, and its marks, later ones above earlier ones.

    Attributes:
        width: pixels.
        height: pixels.
        title: the title of the picture.
        description: the picture in words, for readers who cannot see it.
        marks: the elements to draw.
        cuts: where a page may break it: pixels from the top, and how many marks are above.
    """

    width: float
    height: float
    title: str
    description: str
    marks: list[Mark] = field(default_factory=list[Mark])
    cuts: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])

    def add(self, *marks: Mark) -> None:
        """Draw on top of the existing marks."""
        self.marks.extend(marks)

    def may_break(self, y: float) -> None:
        """Let a page break here: all marks so far are above, all later ones below."""
        self.cuts.append((y, len(self.marks)))

    @property
    def texts(self) -> list[Text]:
        """The texts in it."""
        return [mark for mark in self.marks if isinstance(mark, Text)]


def width(text: str, size: float, *, bold: bool = False) -> float:
    """The width of a text in pixels, at a letter size in pixels."""
    letters = BOLD if bold else REGULAR
    return size / 1000 * sum(letters.get(letter, OTHER) for letter in text)


def wrapped(text: str, size: float, room: float, *, bold: bool = False) -> list[str]:
    """The text in lines that fit into `room` pixels. A word that is wider is cut."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if width(longer, size, bold=bold) <= room:
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        while width(line, size, bold=bold) > room and len(line) > 1:
            fits = max(1, sum(width(line[:end], size, bold=bold) <= room for end in range(1, len(line))))
            lines.append(line[:fits])
            line = line[fits:]
    return [*lines, line] if line else lines


def clipped(text: str, size: float, room: float, *, bold: bool = False) -> str:
    """The text, cut with an ellipsis if it is wider than `room` pixels."""
    if width(text, size, bold=bold) <= room:
        return text
    return next(
        (
            f"{text[:end].rstrip()}…"
            for end in range(len(text), 0, -1)
            if width(f"{text[:end]}…", size, bold=bold) <= room
        ),
        "…",
    )
