"""Charts as plain SVG: from numbers to rectangles, which the template draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from dynpin.report import FIRST_SECOND, LAST_SECOND

from ..storage import HOUR, MODES, Step

__all__ = ["WIDTH", "Axis", "Bar", "Chart", "axis", "chart"]

WIDTH, HEIGHT = 1000.0, 200.0
_GAP = 0.18


@dataclass(frozen=True, slots=True)
class Axis:
    """The time of a chart: the hours (since the epoch) from `first` to `last`, without `last`, `hours` for each bar.

    `step` is 24 if the chart shows whole days (UTC), else 1.
    """

    first: int
    last: int
    hours: int
    step: Step = 1

    @property
    def bars(self) -> int:
        """How many bars there are."""
        return -(-(self.last - self.first) // self.hours)


@dataclass(frozen=True, slots=True)
class Bar:
    """One rectangle: the reports of one mode in one period."""

    mode: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Span:
    """One period, as a row of the table below the picture."""

    label: str
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A bar chart of reports over time, stacked by mode."""

    bars: tuple[Bar, ...]
    spans: tuple[Span, ...]
    ticks: tuple[str, ...]
    top: int
    total: int
    width: float = WIDTH
    height: float = HEIGHT
    modes: tuple[str, ...] = MODES


def axis(first: int, last: int, bars: int = 48) -> Axis:
    """The hours from `first` to `last`, without `last`, in at most so many bars of some hours or of whole days."""
    last = max(last, first + 1)
    for hours in (1, 2, 3, 4, 6):
        if (last - first) / hours <= bars:
            return Axis(first, last, hours)
    # The first and the last day are shown as a whole.
    midnight, end = first // 24, -(-last // 24)
    return Axis(midnight * 24, end * 24, 24 * -(-(end - midnight) // bars), 24)


def chart(activity: Iterable[tuple[int, str, int]], axis: Axis) -> Chart:
    """The chart of reports by hour or day, and by mode."""
    first, number = axis.first, axis.bars
    counts: Counter[tuple[int, str]] = Counter()
    for hour, mode, reports in activity:
        if first <= hour < axis.last:
            counts[((hour - first) // axis.hours, mode)] += reports
    sums = [sum(counts[(index, mode)] for mode in MODES) for index in range(number)]
    top = _round_up(max(sums, default=0))
    width = WIDTH / number
    bars: list[Bar] = []
    for index in range(number):
        floor = HEIGHT
        for mode in MODES:
            height = HEIGHT * counts[(index, mode)] / top
            if height:
                # Keep a single report visible beside thousands.
                height = max(height, 2.0)
                floor -= height
                bars.append(
                    Bar(mode, round((index + _GAP / 2) * width, 2), round(floor, 2), round(width * (1 - _GAP), 2),
                        round(height, 2))
                )  # fmt: skip
    form = "%Y-%m-%d" if axis.step == 24 else "%Y-%m-%d %H:%M"
    rows = tuple(
        Span(_label(first + index * axis.hours, form), tuple(counts[(index, mode)] for mode in MODES))
        for index in range(number)
    )
    hours = axis.last - first
    short = "%H:%M" if hours <= 24 else "%d %b %H:%M" if hours <= 24 * 8 else "%d %b"
    ticks = tuple(_label(first + hours * part // 4, short) for part in range(5))
    return Chart(tuple(bars), rows, ticks, top, sum(sums))


def _label(hour: int, form: str) -> str:
    return datetime.fromtimestamp(min(max(hour * HOUR, FIRST_SECOND), LAST_SECOND), UTC).strftime(form)


def _round_up(number: int) -> int:
    """The next round number, for the top of the axis."""
    if number <= 4:
        return 4
    unit = int("1" + "0" * (len(str(number)) - 1))
    return next(unit * part // 2 for part in range(2, 21) if unit * part // 2 >= number)
