"""A timeline as a picture: SVG for pages, PDF for papers, PNG for everything else, in light and dark colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dynpin.lab.picture.layout import LEAST_WIDTH, WIDTH, lay_out
from dynpin.lab.picture.paper import DARK, LIGHT
from dynpin.lab.picture.svg import inline, write
from dynpin.lab.timeline import Timeline

__all__ = ["LEAST_WIDTH", "WIDTH", "Format", "draw", "draw_inline"]

Format = Literal["pdf", "png", "svg"]


def draw(timeline: Timeline, title: str, form: Format, *, dark: bool = False, page: int = WIDTH) -> bytes:
    """A picture file, `page` pixels wide. The same story gives the same bytes.

    Raises:
        ModuleNotFoundError: `form` is ``"png"`` or ``"pdf"``, and matplotlib is not installed.
    """
    scene, paper = lay_out(timeline, title, page=page), DARK if dark else LIGHT
    if form == "svg":
        return write(scene, paper)
    from dynpin.lab.picture.canvas import paint  # noqa: PLC0415 - matplotlib is an extra, and takes a while

    return paint(scene, paper, form)


def draw_inline(timeline: Timeline, title: str, agents: Sequence[str], *, page: int = WIDTH) -> tuple[list[str], str]:
    """A picture for a page whose style sheet defines the colours as ``--picture-…``, and its description in words.

    The picture is a list of `<svg>` elements, one below the other; a printed page may break between them. `agents` are
    those with this same course.
    """
    scene = lay_out(timeline, title, agents, page=page)
    return inline(scene), scene.description
