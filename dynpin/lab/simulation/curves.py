"""The curves of a study as a picture: PNG or SVG, for light and dark pages."""

from __future__ import annotations

# pyright: reportUnknownMemberType=false
# The keyword arguments of matplotlib's methods have no types.
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from dynpin.counts import counted
from dynpin.lab.simulation.calendar import Attack, Compromise, Loss, Mistake
from dynpin.lab.simulation.paper import DASHES, PAPERS, STYLE, Format, Paper, bare, heading, saved
from dynpin.lab.simulation.run import Outcome
from dynpin.lab.simulation.study import Study
from dynpin.lab.simulation.study_table import DAY

__all__ = ["draw", "figure"]


@dataclass(frozen=True)
class Caption:
    """The name of an event above its day, in one of the rows above the panel."""

    day: float
    text: str
    is_bad: bool
    row: int
    align: Literal["left", "right"]


_COLUMNS = 3
_THIN = "with signed lists"
# Captions: the number of rows, the points between them, and a letter's share of the panel's width.
_ROWS, _ROW, _LETTER = 2, 13, 0.0096
# If curves coincide, their marks tell them apart, since these are side by side.
_MARKS = "osD^vPX*"


def draw(study: Study, outcomes: Sequence[Outcome], form: Format, *, dark: bool = False) -> bytes:
    """The share of clients that are locked out (above) and fooled (below), over the days of a study."""
    with mpl.rc_context(STYLE):
        return saved(figure(study, outcomes, dark=dark), form)


def figure(study: Study, outcomes: Sequence[Outcome], *, dark: bool = False) -> Figure:
    """The same as a matplotlib figure."""
    paper = PAPERS[dark]
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(9.6, 6.3), facecolor=paper.ground)
        upper, lower = drawn.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (1, 1), "hspace": 0.36})
        captions = _captions(study)
        rows = max((caption.row for caption in captions), default=0)
        above = 24 + _ROW * rows
        # Each further row of captions, and of the legend, moves the panels down.
        top = 0.79 - 0.03 * rows - 0.038 * ((len(outcomes) - 1) // _COLUMNS)
        drawn.subplots_adjust(left=0.075, right=0.97, top=top, bottom=0.085)
        heading(upper, paper, "Locked out", "clients whose store refuses the site", above)
        _panel(upper, paper, outcomes, "locked_out")
        heading(lower, paper, "Fooled", "clients that an attacker has", 12)
        _panel(lower, paper, outcomes, "fooled")
        _mark_events(upper, lower, study, paper, captions)
        lower.set_xlabel("day", color=paper.faint, fontsize=9)
        upper.set_xlim(0, study.days)
        handles = [line for line in upper.get_lines() if line.get_label() != _THIN][: len(outcomes)]
        drawn.text(0.02, 0.955, _title(study), color=paper.ink, fontsize=12.5, fontweight="bold", va="center")
        legend = drawn.legend(
            handles,
            [study.label(outcome.policy) for outcome in outcomes],
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
        if study.recovery is not None:
            drawn.text(0.97, 0.955, f"thin: {_THIN}", color=paper.faint, fontsize=9.5, va="center", ha="right")
        return drawn


def _title(study: Study) -> str:
    clients = counted(study.clients, "client").replace(",", "\N{THIN SPACE}")
    return f"{clients}, {study.population.name} population, {study.days:g} days"


def _panel(axes: Axes, paper: Paper, outcomes: Sequence[Outcome], series: str) -> None:
    bare(axes, paper)
    top = 0.0
    for number, outcome in enumerate(outcomes):
        share = _share(outcome, series)
        top = max(top, float(share.max()))
        days, kept = _thinned(outcome.days, share)
        color = paper.lines[number % len(paper.lines)]
        # The ninth line has the colour of the first, and another dash.
        dashes = DASHES[(number + number // len(paper.lines)) % len(DASHES)]
        if outcome.with_recovery is not None:
            healed = _thinned(outcome.days, _share(outcome.with_recovery, series))
            axes.plot(*healed, color=color, linestyle=dashes, linewidth=0.9, label=_THIN, clip_on=False, zorder=3)
            top = max(top, float(healed[1].max()))
        axes.plot(
            days,
            kept,
            color=color,
            linestyle=dashes,
            linewidth=2.1,
            marker=_MARKS[number % len(_MARKS)],
            markersize=5,
            markevery=(0.01 + 0.14 * number / len(outcomes), 0.14),
            solid_joinstyle="round",
            clip_on=False,
            # Dashed lines above solid ones: all curves are visible even if they coincide.
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


def _share(outcome: Outcome, series: str) -> NDArray[np.float64]:
    return outcome.locked_out if series == "locked_out" else outcome.fooled


def _thinned(days: NDArray[np.float64], share: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The points at which a curve bends, and few between them: an SVG does not need every hour of two years."""
    bends = np.flatnonzero(np.abs(np.diff(share, 2)) > 0.002) + 1
    regular = np.linspace(0, share.size - 1, min(share.size, 600)).astype(np.int64)
    kept = np.unique(
        np.concatenate((regular, bends, np.clip(bends + 1, 0, share.size - 1), np.clip(bends - 1, 0, None)))
    )
    return days[kept], share[kept]


def _mark_events(upper: Axes, lower: Axes, study: Study, paper: Paper, captions: Sequence[Caption]) -> None:
    """Attacks as bands, all other events as lines, with their captions above the upper panel."""
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
    """A caption for each event, in the first row with enough room; without room there is no caption."""
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
