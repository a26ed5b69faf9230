"""The common style of the pictures of studies and advice: colours, dashes, letters, and the file format."""

from __future__ import annotations

# pyright: reportUnknownMemberType=false
# The keyword arguments of matplotlib's methods have no types.
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

__all__ = ["DASHES", "PAPERS", "STYLE", "Format", "Paper", "bare", "heading", "saved"]

Format = Literal["png", "svg"]


@dataclass(frozen=True)
class Paper:
    """The colours of a page.

    Attributes:
        ground: the background.
        ink: text.
        faint: axes, grid and remarks.
        lines: a colour for each policy: those of Okabe and Ito, which colour-blind people can tell apart, a little
            darker on white and lighter on black. Dashes and the labels at the lines work without colour.
        alarm: the colour of attacks.
    """

    ground: str
    ink: str
    faint: str
    grid: str
    lines: tuple[str, ...]
    alarm: str


PAPERS: Mapping[bool, Paper] = {
    False: Paper(
        "#fdfefd",
        "#0f2f2c",
        "#5b7672",
        "#dfeae6",
        ("#0072b2", "#c25100", "#00815f", "#a8447c", "#8a6d00", "#3d8fb8", "#3b3b3b", "#6a3fc4"),
        "#c25100",
    ),
    True: Paper(
        "#0e1716",
        "#e6f2ef",
        "#92aca6",
        "#223531",
        ("#56b4e9", "#f0a030", "#2fc79a", "#e291bd", "#f0e442", "#9fd4f2", "#d9d9d9", "#b39cff"),
        "#f0a030",
    ),
}
DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "solid",
    (0, (6, 2)),
    (0, (1.2, 1.4)),
    (0, (7, 2, 1.4, 2)),
    (0, (3, 1.4)),
    (0, (7, 2, 1.4, 2, 1.4, 2)),
    (0, (10, 3)),
    (0, (2.4, 3)),
)
STYLE: dict[RcKeyType, Any] = {  # matplotlib's own name for the type of its settings
    # DejaVu Sans comes with matplotlib, so the picture is the same everywhere. The text of an SVG is drawn as outlines.
    "font.family": "DejaVu Sans",
    "svg.fonttype": "path",
    "svg.hashsalt": "dynpin",
    # A policy's name is plain text, even with dollar signs.
    "text.parse_math": False,
    "path.simplify_threshold": 0.1,
}


def heading(axes: Axes, paper: Paper, title: str, what: str, above: float) -> None:
    """Write the title of a panel and its description above it, so many points above its upper edge."""
    heading = axes.annotate(
        title,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, above),
        textcoords="offset points",
        color=paper.ink,
        fontsize=11.5,
        fontweight="bold",
        va="bottom",
    )
    axes.annotate(
        what,
        (1, 0),
        xycoords=heading,
        xytext=(8, 0),
        textcoords="offset points",
        color=paper.faint,
        fontsize=9,
        va="bottom",
    )


def bare(axes: Axes, paper: Paper) -> None:
    """Remove the frame of a panel except the line at the bottom, and show its grid."""
    axes.set_facecolor(paper.ground)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(paper.faint)
    axes.tick_params(colors=paper.faint, labelcolor=paper.faint, labelsize=9, length=0)
    axes.tick_params(axis="x", labelbottom=True)
    axes.grid(axis="y", color=paper.grid, linewidth=1)
    axes.set_axisbelow(True)


def saved(figure: Figure, form: Format) -> bytes:
    """A figure as the bytes of a file."""
    target = io.BytesIO()
    with warnings.catch_warnings():
        # A policy's name may have characters that the font lacks: the picture shows boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        if form == "svg":
            # Without the date, the same study gives the same file.
            figure.savefig(target, format="svg", metadata={"Date": None})
        else:
            figure.savefig(target, format="png", dpi=150)
    return target.getvalue()
