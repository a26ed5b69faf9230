"""The totals of each hour and day are what a count of the rows says, whatever happens to the groups."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynpin.middleware.collector import Retention
from dynpin.middleware.collector.storage import Filter, Term, Triaged, open_storage
from dynpin.middleware.collector.storage.sql import SQLStorage, move
from tests.middleware.collector.conftest import NOW

from ..conftest import arrival, ask, change
from .conftest import DAY

HOSTS, STATES = ("a.test", "b.test", "c.a.test"), ("open", "muted", "resolved")
FILTERS = [
    Filter(),
    *(
        Filter((Term(field, value, negated=negated),))
        for field, value in (("state", "muted"), ("verdict", "renewal"), ("host", "*.a.test"), ("issuer", "CA"))
        for negated in (False, True)
    ),
]
STEPS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(HOSTS), st.lists(st.integers(0, 99), min_size=1, max_size=20)),
    st.tuples(st.just("verdict"), st.sampled_from(HOSTS), st.sampled_from(["renewal", "unknown-ca"])),
    st.tuples(st.just("state"), st.sampled_from(HOSTS), st.sampled_from(STATES)),
    st.tuples(st.just("prune"), st.sampled_from([0.5, 1, 1.7, 3.2]), st.sampled_from([1, 2**30, 2**30])),
)


def check(storage: SQLStorage, kept_since: float = 0.0) -> None:
    """Hold the totals against the rates of each group, and these against the reports themselves."""
    common = "mode, coalesce(verdict, ''), state, groups.token"
    for step in (1, 24):
        found = ask(storage, f"SELECT hour, mode, verdict, state, token, reports FROM totals WHERE step = {step}")
        assert sorted(found) == sorted(
            ask(
                storage,
                f"SELECT hour - hour % {step}, {common}, sum(rates.reports) "
                f"FROM rates JOIN groups ON groups.id = group_id GROUP BY hour - hour % {step}, {common}",
            )
        )
    rows = ask(storage, f"SELECT group_id, received_at FROM reports WHERE received_at >= {kept_since}")
    counted = Counter((group, int(at // 3600)) for group, at in rows)
    first = int(kept_since // 3600) + 1
    rates = ask(storage, f"SELECT group_id, hour, reports FROM rates WHERE hour >= {first}")
    assert {(group, hour): number for group, hour, number in rates} == {
        (group, hour): number for (group, hour), number in counted.items() if hour >= first
    }
    for wanted in FILTERS:
        days: Counter[tuple[int, str]] = Counter()
        for hour, mode, number in storage.activity(wanted, 0, 24 * 10**6):
            days[hour - hour % 24, mode] += number
        assert {(hour, mode): n for hour, mode, n in storage.activity(wanted, 0, 24 * 10**6, 24)} == days


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=1, max_size=12))
def test_totals_are_what_a_count_says(storage: SQLStorage, steps: list[Any]) -> None:
    for table in ("groups", "totals"):
        change(storage, f"DELETE FROM {table}")
    kept_since = 0.0
    for what, first, second in steps:
        if what == "add":
            storage.add([arrival(first, NOW - hours * 3600) for hours in second], {})
        elif what == "verdict":
            groups = storage.groups(Filter((Term("host", first),))).entries
            storage.set_verdicts((group, Triaged(second, "unclear", "CA", "{}")) for group in groups)
        elif what == "state":
            storage.set_state(arrival(first).cause.key, second)
        else:
            storage.prune(Retention(days=first, bytes=second))
            kept_since = max(kept_since, NOW - first * DAY)
    check(storage, kept_since)


def test_a_day_is_kept_until_all_of_it_is_too_old(storage: SQLStorage) -> None:
    """So that the sum of a day is that of its hours."""
    midnight = NOW // DAY * DAY
    storage.add([arrival(at=midnight - hours * 3600) for hours in (-1, 1, 2, 23, 25)], {})
    storage.prune(Retention(days=(NOW - midnight) / DAY + 0.5))
    today, before = int(midnight // 3600), int(midnight // 3600) - 24
    assert storage.activity(Filter(), 0, 10**9) == [
        (hour, "enforce", 1) for hour in (before + 1, before + 22, before + 23, today + 1)
    ]
    assert storage.activity(Filter(), 0, 10**9, 24) == [(before, "enforce", 3), (today, "enforce", 1)]
    check(storage, NOW - (NOW - midnight) - DAY / 2)


@pytest.mark.parametrize("days", [1.0, 90.0])
def test_a_copy_goes_on_with_its_totals(storage: SQLStorage, tmp_path: Path, days: float) -> None:
    storage.add([arrival(host, NOW - hours * 3600) for host in HOSTS for hours in range(0, 100, 7)], {})
    storage.set_state(arrival("a.test").cause.key, "muted")
    copy = open_storage(tmp_path / "copy.sqlite", clock=lambda: NOW)
    move(storage, copy)
    check(copy)
    assert ask(copy, "SELECT * FROM totals ORDER BY 1, 2, 3, 4, 5, 6") == ask(
        storage, "SELECT * FROM totals ORDER BY 1, 2, 3, 4, 5, 6"
    )
    copy.add([arrival("b.test")], {})
    copy.set_state(arrival("b.test").cause.key, "resolved")
    copy.prune(Retention(days=days))
    check(copy, NOW - days * DAY)
    copy.close()
