"""The curves of a study, and of an advice, as pictures: PNG or SVG, for light and dark pages."""

from __future__ import annotations

# pyright: reportUnknownMemberType=false
# matplotlib leaves the keyword arguments of its methods untyped.
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from dynpin.durations import duration
from dynpin.lab.simulation.advice import Advice, Choice
from dynpin.lab.simulation.calendar import Attack, Compromise, Loss, Mistake
from dynpin.lab.simulation.reading import DAY
from dynpin.lab.simulation.run import Outcome
from dynpin.lab.simulation.study import Study

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

__all__ = ["Format", "draw", "draw_advice", "figure"]

Format = Literal["png", "svg"]


@dataclass(frozen=True)
class Caption:
    """The name of an event over its day, in one of the rows over the panel."""

    day: float
    text: str
    is_bad: bool
    row: int
    align: Literal["left", "right"]


@dataclass(frozen=True)
class Paper:
    """The colours of a page.

    Attributes:
        ground: the background.
        ink: text.
        faint: axes, grid and remarks.
        lines: a colour for each policy: those of Okabe and Ito, which colour-blind people tell apart, a shade darker on
            white and lighter on black. Dashes and the labels at the lines tell them apart without any colour.
        alarm: what marks attacks.
    """

    ground: str
    ink: str
    faint: str
    grid: str
    lines: tuple[str, ...]
    alarm: str


_PAPERS: Mapping[bool, Paper] = {
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
_COLUMNS = 3
# Captions: how many rows, the points from one to the next, and a letter's share of the panel's width.
_ROWS, _ROW, _LETTER = 2, 13, 0.0096
_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "solid",
    (0, (6, 2)),
    (0, (1.2, 1.4)),
    (0, (7, 2, 1.4, 2)),
    (0, (3, 1.4)),
    (0, (7, 2, 1.4, 2, 1.4, 2)),
    (0, (10, 3)),
    (0, (2.4, 3)),
)
# Curves that fall together are told apart by their marks, which stand beside each other.
_MARKS = "osD^vPX*"
_STYLE: dict[RcKeyType, Any] = {  # matplotlib's own name for the type of its settings
    # DejaVu Sans comes with matplotlib: the same picture everywhere. The text of an SVG is drawn as outlines.
    "font.family": "DejaVu Sans",
    "svg.fonttype": "path",
    "svg.hashsalt": "dynpin",
    # A policy's name is text, dollars too.
    "text.parse_math": False,
    "path.simplify_threshold": 0.1,
}


def draw(study: Study, outcomes: Sequence[Outcome], form: Format, *, dark: bool = False) -> bytes:
    """The share of clients locked out above, and fooled below, over the days of a study."""
    with mpl.rc_context(_STYLE):
        return _saved(figure(study, outcomes, dark=dark), form)


def figure(study: Study, outcomes: Sequence[Outcome], *, dark: bool = False) -> Figure:
    """The same as a figure of matplotlib."""
    paper = _PAPERS[dark]
    with mpl.rc_context(_STYLE):
        drawn = Figure(figsize=(9.6, 6.3), facecolor=paper.ground)
        upper, lower = drawn.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (1, 1), "hspace": 0.36})
        captions = _captions(study)
        rows = max((caption.row for caption in captions), default=0)
        above = 24 + _ROW * rows
        # Each further row of captions, and of the legend, pushes the panels down.
        top = 0.79 - 0.03 * rows - 0.038 * ((len(outcomes) - 1) // _COLUMNS)
        drawn.subplots_adjust(left=0.075, right=0.97, top=top, bottom=0.085)
        _heading(upper, paper, "Locked out", "clients whose store refuses the site", above)
        _panel(upper, paper, outcomes, "locked_out")
        _heading(lower, paper, "Fooled", "clients that an attacker has", 12)
        _panel(lower, paper, outcomes, "fooled")
        _mark_events(upper, lower, study, paper, captions)
        lower.set_xlabel("day", color=paper.faint, fontsize=9)
        upper.set_xlim(0, study.days)
        handles = upper.get_lines()[: len(outcomes)]
        drawn.text(0.02, 0.955, _title(study), color=paper.ink, fontsize=12.5, fontweight="bold", va="center")
        legend = drawn.legend(
            handles,
            [_name(study, outcome) for outcome in outcomes],
            loc="upper left",
            bbox_to_anchor=(0.012, 0.945),
            ncols=min(_COLUMNS, len(outcomes)),
            frameon=False,
            fontsize=9.5,
            handlelength=2.6,
            columnspacing=2.2,
        )
        for text in legend.get_texts():
            text.set_color(paper.ink)
        return drawn


def _name(study: Study, outcome: Outcome) -> str:
    """A policy's name, with the cap where it acts."""
    held = study.held(outcome.policy)
    capped = held < outcome.policy.max_age and outcome.policy.pinned != "none"
    return f"{outcome.policy.name} (held to {duration(held)})" if capped else outcome.policy.name


def _title(study: Study) -> str:
    clients = f"{study.clients:,} clients".replace(",", "\N{THIN SPACE}")
    return f"{clients}, {study.population.name} population, {study.days:g} days"


def _panel(axes: Axes, paper: Paper, outcomes: Sequence[Outcome], series: str) -> None:
    _bare(axes, paper)
    top = 0.0
    for number, outcome in enumerate(outcomes):
        share = outcome.locked_out if series == "locked_out" else outcome.fooled
        top = max(top, float(share.max()))
        days, kept = _thinned(outcome.days, share)
        axes.plot(
            days,
            kept,
            color=paper.lines[number % len(paper.lines)],
            # The ninth has the colour of the first, and another line.
            linestyle=_DASHES[(number + number // len(paper.lines)) % len(_DASHES)],
            linewidth=2.1,
            marker=_MARKS[number % len(_MARKS)],
            markersize=5,
            markevery=(0.01 + 0.14 * number / len(outcomes), 0.14),
            solid_joinstyle="round",
            clip_on=False,
            # Dashes over what is solid: curves that fall together are all seen.
            zorder=3 + number,
        )
    axes.set_ylim(0, top * 1.06 if top else 1)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    if not top:
        axes.set_yticks([0])
        axes.text(
            0.5, 0.5, "nobody, at any time", transform=axes.transAxes, color=paper.faint, fontsize=10, ha="center"
        )


def _heading(axes: Axes, paper: Paper, title: str, what: str, above: float) -> None:
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


def _bare(axes: Axes, paper: Paper) -> None:
    axes.set_facecolor(paper.ground)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(paper.faint)
    axes.tick_params(colors=paper.faint, labelcolor=paper.faint, labelsize=9, length=0)
    axes.tick_params(axis="x", labelbottom=True)
    axes.grid(axis="y", color=paper.grid, linewidth=1)
    axes.set_axisbelow(True)


def _thinned(days: NDArray[np.float64], share: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The points at which a curve bends, and few between: an SVG need not hold every hour of two years."""
    bends = np.flatnonzero(np.abs(np.diff(share, 2)) > 0.002) + 1
    regular = np.linspace(0, share.size - 1, min(share.size, 600)).astype(np.int64)
    kept = np.unique(
        np.concatenate((regular, bends, np.clip(bends + 1, 0, share.size - 1), np.clip(bends - 1, 0, None)))
    )
    return days[kept], share[kept]


def _mark_events(upper: Axes, lower: Axes, study: Study, paper: Paper, captions: Sequence[Caption]) -> None:
    """Attacks as bands, all else as lines, with their captions over the upper panel."""
    for event in study.events:
        day = event.second / DAY
        for axes in (upper, lower):
            if isinstance(event, Attack):
                until = min(event.until / DAY, study.days)
                axes.axvspan(day, until, color=paper.alarm, alpha=0.13, linewidth=0, zorder=0)
            else:
                axes.axvline(day, color=paper.faint, linewidth=1, linestyle=(0, (1, 2.5)), zorder=1)
    for caption in captions:
        upper.annotate(
            caption.text,
            (caption.day, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 5 + _ROW * caption.row),
            textcoords="offset points",
            color=paper.ink if caption.is_bad else paper.faint,
            fontsize=9,
            va="baseline",
            ha=caption.align,
        )


def _captions(study: Study) -> list[Caption]:
    """A caption for each event, in the first row where there is room; where there is none it goes without."""
    captions: list[Caption] = []
    taken = [-math.inf] * _ROWS
    for event in sorted(study.events, key=lambda event: event.second):
        day, wide = event.second / DAY, len(event.label) * _LETTER * study.days
        align: Literal["left", "right"] = "left" if day + wide <= 1.03 * study.days else "right"
        first, last = (day, day + wide) if align == "left" else (day - wide, day)
        row = next((row for row in range(_ROWS) if taken[row] < first), None)
        if row is not None:
            taken[row] = last
            bad = isinstance(event, Attack | Loss | Compromise | Mistake)
            captions.append(Caption(day, event.label, bad, row, align))
    return captions


def _percent(share: float, _: int) -> str:
    return f"{100 * share:.3g} %"


def _saved(figure: Figure, form: Format) -> bytes:
    target = io.BytesIO()
    if form == "svg":
        # Without the date, the same study gives the same file.
        figure.savefig(target, format="svg", metadata={"Date": None})
    else:
        figure.savefig(target, format="png", dpi=150)
    return target.getvalue()


def draw_advice(study: Study, advice: Advice, form: Format, *, dark: bool = False) -> bytes:
    """What each max-age costs, and how the one cost is traded for the other."""
    paper = _PAPERS[dark]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.6, 5.0), facecolor=paper.ground)
        left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.26})
        figure.subplots_adjust(left=0.075, right=0.97, top=0.78, bottom=0.125)
        best = advice.best
        said = f"max-age {duration(best.max_age)}, {_backups(best.backups)}" if advice.pays else "no pins"
        figure.text(0.02, 0.945, f"Advice: {said}", color=paper.ink, fontsize=12.5, fontweight="bold", va="center")
        figure.text(
            0.02,
            0.895,
            f"{study.population.name} population; client-days a year for each 1,000 clients",
            color=paper.faint,
            fontsize=9.5,
            va="center",
        )
        _cost(left, paper, advice)
        _trade_off(right, paper, advice)
        return _saved(figure, form)


def _cost(axes: Axes, paper: Paper, advice: Advice) -> None:
    _bare(axes, paper)
    _heading(axes, paper, "Cost", f"with {_backups(advice.best.backups)}, over max-age", 12)
    chosen = [choice for choice in advice.choices if choice.backups == advice.best.backups]
    days = [choice.max_age / DAY for choice in chosen]
    weight = advice.risks.fooled_weight
    curves = (
        ("both", [choice.cost for choice in chosen], paper.ink),
        ("locked out", [choice.locked_out for choice in chosen], paper.lines[0]),
        (f"fooled, times {weight:g}", [weight * choice.fooled for choice in chosen], paper.lines[1]),
    )
    for number, (name, values, color) in enumerate(curves):
        axes.plot(days, values, color=color, linestyle=_DASHES[number], linewidth=2.1, label=name, zorder=4)
    axes.axhline(advice.unpinned.cost, color=paper.faint, linewidth=1.2, linestyle=(0, (1, 2.5)), label="no pins")
    axes.plot([advice.best.max_age / DAY], [advice.best.cost], "o", color=paper.ink, markersize=7, zorder=6)
    axes.set_xscale("log")
    ticks = [day for day in (1 / 24, 0.25, 1, 3, 7, 14, 30, 60, 120, 365) if days[0] <= day <= days[-1]]
    axes.set_xticks(ticks, [_short(day) for day in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 1.08 * max(*(choice.cost for choice in chosen), advice.unpinned.cost))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    _legend(axes, paper, "best")


def _trade_off(axes: Axes, paper: Paper, advice: Advice) -> None:
    _bare(axes, paper)
    _heading(axes, paper, "Trade-off", "a point for each max-age", 12)
    axes.grid(axis="x", color=paper.grid, linewidth=1)
    for number, backups in enumerate(sorted({choice.backups for choice in advice.choices})):
        chosen = [choice for choice in advice.choices if choice.backups == backups]
        axes.plot(
            [choice.locked_out for choice in chosen],
            [choice.fooled for choice in chosen],
            color=paper.lines[number],
            linestyle=_DASHES[number],
            linewidth=1.6,
            marker="o",
            markersize=3.5,
            label=_backups(backups),
            zorder=4,
        )
        if backups == advice.best.backups:
            _label_points(axes, paper, chosen)
    axes.plot([advice.best.locked_out], [advice.best.fooled], "o", color=paper.ink, markersize=8, zorder=6)
    widest = max(choice.locked_out for choice in advice.choices)
    for name, choice in advice.yours.items():
        axes.plot([choice.locked_out], [choice.fooled], "o", color=paper.ink, markerfacecolor="none", markersize=10)
        axes.annotate(
            f"yours: {name}",
            (choice.locked_out, choice.fooled),
            xytext=(12, 14) if choice.locked_out < 0.6 * widest else (0, 10),
            textcoords="offset points",
            color=paper.ink,
            fontsize=8.5,
            ha="left" if choice.locked_out < 0.6 * widest else "right",
        )
    axes.set_xlabel("client-days locked out", color=paper.faint, fontsize=9)
    axes.set_ylabel("client-days fooled", color=paper.faint, fontsize=9)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    _legend(axes, paper, "upper right")


def _label_points(axes: Axes, paper: Paper, chosen: Sequence[Choice]) -> None:
    """The max-age beside its point: below the curve, but where the axis stands there."""
    widest = max(choice.locked_out for choice in chosen)
    for choice in chosen:
        if choice.max_age / DAY not in (3, 7, 14, 21, 30, 45, 60, 120, 365):
            continue
        below = choice.locked_out > 0.1 * widest
        axes.annotate(
            _short(choice.max_age / DAY),
            (choice.locked_out, choice.fooled),
            xytext=(-4, -5) if below else (7, 1),
            textcoords="offset points",
            color=paper.faint,
            fontsize=8.5,
            ha="right" if below else "left",
            va="top" if below else "bottom",
        )


def _legend(axes: Axes, paper: Paper, where: Literal["best", "upper right"]) -> None:
    legend = axes.legend(loc=where, frameon=False, fontsize=9, handlelength=2.8)
    for text in legend.get_texts():
        text.set_color(paper.ink)


def _short(days: float) -> str:
    return f"{days:g} d" if days >= 1 else f"{24 * days:g} h"


def _backups(count: int) -> str:
    return f"{count} backup{'' if count == 1 else 's'}"
