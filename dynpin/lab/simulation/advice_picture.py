"""An advice as a picture: the cost of each max-age, and the trade-off between the two kinds of cost."""

from __future__ import annotations

# pyright: reportUnknownMemberType=false
# The keyword arguments of matplotlib's methods have no types.
from collections.abc import Sequence
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dynpin.counts import counted
from dynpin.durations import duration

from .advice import Advice, Choice
from .paper import DASHES, PAPERS, STYLE, Format, Paper, bare, heading, saved
from .study import Study
from .study_table import DAY

__all__ = ["draw_advice"]


def draw_advice(study: Study, advice: Advice, form: Format, *, dark: bool = False) -> bytes:
    """The cost of each max-age, and the trade-off between the two kinds of cost."""
    paper = PAPERS[dark]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 5.0), facecolor=paper.ground)
        left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.26})
        figure.subplots_adjust(left=0.075, right=0.97, top=0.78, bottom=0.125)
        best = advice.best
        said = f"max-age {duration(best.max_age)}, {counted(best.backups, 'backup')}" if advice.pays else "no pins"
        figure.text(0.02, 0.945, f"Advice: {said}", color=paper.ink, fontsize=12.5, fontweight="bold", va="center")
        figure.text(
            0.02,
            0.895,
            f"{study.population.name} population; client-days a year for each 1,000 clients",
            color=paper.faint,
            fontsize=9.5,
            va="center",
        )
        _cost(left, paper, advice, duration(study.client_cap))
        _trade_off(right, paper, advice)
        return saved(figure, form)


def _cost(axes: Axes, paper: Paper, advice: Advice, cap: str) -> None:
    bare(axes, paper)
    heading(axes, paper, "Cost", f"with {counted(advice.best.backups, 'backup')}, over max-age, capped at {cap}", 12)
    chosen = [choice for choice in advice.choices if choice.backups == advice.best.backups]
    days = [choice.max_age / DAY for choice in chosen]
    weight = advice.risks.fooled_weight
    curves = (
        ("both", [choice.cost for choice in chosen], paper.ink),
        ("both, with recovery", [choice.healed_cost for choice in chosen], paper.lines[2]),
        ("locked out", [choice.locked_out for choice in chosen], paper.lines[0]),
        (f"fooled, times {weight:g}", [weight * choice.fooled for choice in chosen], paper.lines[1]),
    )
    low, high = ([choice.cost + side * choice.chance["cost"] for choice in chosen] for side in (-1, 1))
    axes.fill_between(days, low, high, color=paper.ink, alpha=0.12, linewidth=0, label="95 % interval")
    for number, (name, values, color) in enumerate(curves):
        axes.plot(days, values, color=color, linestyle=DASHES[number], linewidth=2.1, label=name, zorder=4)
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
    bare(axes, paper)
    heading(axes, paper, "Trade-off", "a point for each max-age", 12)
    axes.grid(axis="x", color=paper.grid, linewidth=1)
    for number, backups in enumerate(sorted({choice.backups for choice in advice.choices})):
        chosen = [choice for choice in advice.choices if choice.backups == backups]
        axes.plot(
            [choice.locked_out for choice in chosen],
            [choice.fooled for choice in chosen],
            color=paper.lines[number],
            linestyle=DASHES[number],
            linewidth=1.6,
            marker="o",
            markersize=3.5,
            label=counted(backups, "backup"),
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
    """Write the max-age beside its point: below the curve, unless the axis is there."""
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
