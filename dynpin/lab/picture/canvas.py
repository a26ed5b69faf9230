"""A scene as PNG or PDF, drawn by matplotlib in its own DejaVu Sans."""

from __future__ import annotations

# pyright: reportUnknownMemberType=false
# The keyword arguments of matplotlib's methods have no types.
import io
from collections.abc import Mapping
from typing import Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Circle as Disc
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

from dynpin.lab.picture.scene import Circle, Line, Rect, Scene, Text

__all__ = ["paint"]

# A pixel of the scene is a point of the figure.
_PIXELS_PER_INCH = 72


def paint(scene: Scene, paper: Mapping[str, str], form: Literal["pdf", "png"], *, scale: float = 1.0) -> bytes:
    """A file in the colours of a paper. For a PNG, `scale` is the number of pixels for each of the scene."""
    # Type 42: the text of a PDF can be searched and copied.
    with mpl.rc_context({"font.family": "DejaVu Sans", "pdf.fonttype": 42}):
        size = (scene.width / _PIXELS_PER_INCH, scene.height / _PIXELS_PER_INCH)
        figure = Figure(figsize=size, dpi=_PIXELS_PER_INCH * scale, facecolor=paper["ground"])
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, scene.width)
        axes.set_ylim(scene.height, 0)
        align = {"start": "left", "middle": "center", "end": "right"}
        for number, mark in enumerate(scene.marks):
            if isinstance(mark, Text):
                axes.text(
                    mark.x,
                    mark.y,
                    mark.text,
                    fontsize=mark.size,
                    color=paper[mark.color],
                    fontweight="bold" if mark.bold else "normal",
                    ha=align[mark.anchor],
                    va="baseline",
                    zorder=number,
                    parse_math=False,
                )
            else:
                patch = _patch(mark)
                patch.set(
                    facecolor=paper[mark.fill] if mark.fill else "none",
                    edgecolor=paper[mark.stroke] if mark.stroke else "none",
                    linewidth=mark.width if mark.stroke else 0,
                    zorder=number,
                )
                if isinstance(mark, Line) and mark.dash:
                    patch.set_linestyle((0, tuple(length / mark.width for length in mark.dash)))
                    patch.set_capstyle("butt")
                axes.add_patch(patch)
        target = io.BytesIO()
        # Without the program's name and the date, the same scene gives the same file.
        nameless = {"Software": None} if form == "png" else {"Creator": None, "Producer": None, "CreationDate": None}
        figure.savefig(target, format=form, metadata=nameless)
        return target.getvalue()


def _patch(mark: Line | Rect | Circle) -> PathPatch | FancyBboxPatch | Disc:
    if isinstance(mark, Circle):
        return Disc((mark.x, mark.y), mark.radius)
    if isinstance(mark, Rect):
        box, corner = mark.box, mark.radius
        style = f"round,pad=0,rounding_size={corner}" if corner else "square,pad=0"
        return FancyBboxPatch((box.left, box.top), box.right - box.left, box.bottom - box.top, boxstyle=style)
    steps = [Path.MOVETO, *[Path.LINETO] * (len(mark.points) - 1)]
    points = list(mark.points)
    if mark.closed:
        steps.append(Path.CLOSEPOLY)
        points.append(points[0])
    return PathPatch(Path(points, steps), joinstyle="round")
