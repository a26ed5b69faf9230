"""Charts: their bars have all the time that is wanted, and as much of it each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dynpin.middleware.collector.web.charts import Axis, axis, chart

HOUR_0 = 500_000  # 2027-01-15, 08:00 UTC


@given(st.integers(0, 600_000), st.integers(-5, 10_000), st.sampled_from([48, 60]))
def test_an_axis_has_the_wanted_hours(first: int, hours: int, bars: int) -> None:
    time = axis(first, first + hours, bars)
    assert time.first <= first
    assert time.last >= first + max(hours, 1)
    assert 1 <= time.bars <= bars
    assert time.last - time.first < max(hours, 1) + 2 * time.step
    assert (time.first % time.step, time.last % time.step, time.hours % time.step) == (0, 0, 0)


def test_up_to_twelve_days_are_shown_by_hours_and_then_by_whole_days() -> None:
    assert axis(HOUR_0 - 7 * 24, HOUR_0 + 1) == Axis(HOUR_0 - 7 * 24, HOUR_0 + 1, 4)
    assert axis(HOUR_0 - 12 * 24, HOUR_0) == Axis(HOUR_0 - 12 * 24, HOUR_0, 6)
    month, quarter = axis(HOUR_0 - 30 * 24, HOUR_0 + 1), axis(HOUR_0 - 90 * 24, HOUR_0 + 1)
    assert (month, month.bars) == (Axis(HOUR_0 - 8 - 30 * 24, HOUR_0 + 16, 24, 24), 31)
    assert (quarter, quarter.bars) == (Axis(HOUR_0 - 8 - 90 * 24, HOUR_0 + 16, 48, 24), 46)


def test_a_chart_of_days_counts_each_and_names_it() -> None:
    time = axis(HOUR_0 - 30 * 24, HOUR_0 + 1)
    days = [(time.first, "enforce", 3), (time.first, "report-only", 1), (time.last - 24, "enforce", 2)]
    drawn = chart([*days, (time.last, "enforce", 99)], time)
    assert drawn.total == 6
    assert [(span.label, span.counts) for span in drawn.spans if any(span.counts)] == [
        ("2026-12-16", (3, 1)),
        ("2027-01-15", (2, 0)),
    ]
    assert drawn.ticks[0] == "16 Dec"
