"""What people ask: filters, pages and charts are the same on every storage."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynpin.middleware.collector import Retention
from dynpin.middleware.collector.storage import (
    Filter,
    Term,
    Triaged,
)
from dynpin.middleware.collector.storage.sql import SQLStorage
from tests.middleware.collector.conftest import NOW

from ..conftest import arrival, ask, change
from .conftest import PIN, judge

HOSTS, VERDICTS, STATES = ("a.test", "b.test", "c.test"), ("undecided", "unknown-ca"), ("open", "muted", "resolved")
TERMS = [
    Term(field, value, negated=negated)
    for field, values in (
        ("host", HOSTS),
        ("verdict", VERDICTS),
        ("state", STATES),
        ("mode", ("enforce",)),
        ("token", ("t",)),
        ("issuer", ("CA",)),
        ("pin", ("d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=",)),
    )
    for value in values
    for negated in (False, True)
]
STEPS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(HOSTS), st.integers(0, 400)),
    st.tuples(st.just("verdict"), st.sampled_from(HOSTS), st.sampled_from(VERDICTS)),
    st.tuples(st.just("state"), st.sampled_from(HOSTS), st.sampled_from(STATES)),
    st.tuples(st.just("prune"), st.integers(1, 12), st.sampled_from([1, 2**30])),
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=12), st.lists(st.sampled_from(TERMS), max_size=3))
def test_a_chart_counts_what_the_groups_have(storage: SQLStorage, steps: list[Any], terms: list[Term]) -> None:
    """Whatever happened to the groups, and by whatever way the question is answered."""
    for table in ("groups", "totals"):
        change(storage, f"DELETE FROM {table}")
    for what, first, second in steps:
        if what == "add":
            storage.add([arrival(first, NOW - second * 3600)], {})
        elif what == "verdict":
            for group in storage.groups(Filter((Term("host", first),))).entries:
                storage.set_verdicts([(group, Triaged(second, "unclear", "CA", "{}"))])
        elif what == "state":
            storage.set_state(arrival(first).cause.key, second)
        else:
            storage.prune(Retention(days=first, bytes=second))
    wanted = Filter(tuple(terms))
    matching = [str(group.id) for group in storage.groups(wanted, limit=500).entries]
    assert storage.activity(wanted, 0, 10**9) == ask(
        storage,
        "SELECT hour, mode, sum(rates.reports) FROM rates JOIN groups ON groups.id = group_id "
        f"WHERE group_id IN ({','.join(matching) or 'NULL'}) GROUP BY hour, mode ORDER BY hour, mode",
    )


FILTERS = {
    "host=a.test": ["a.test"],
    "host!=a.test": ["b.a.test", "ba.test"],
    "host=*.a.test": ["b.a.test"],
    "host!=*.a.test": ["a.test", "ba.test"],
    "noted_host=BA.test": ["ba.test"],
    "host=a.test&host=ba.test": ["a.test", "ba.test"],
    "verdict=none": ["ba.test"],
    "verdict=undecided": ["a.test", "b.a.test"],
    "verdict!=undecided": ["ba.test"],
    "issuer=CA": ["a.test", "b.a.test"],
    "issuer!=CA": ["ba.test"],
    "state=muted": ["a.test"],
    f"pin={PIN}": ["a.test", "b.a.test", "ba.test"],
    f"pin!={PIN}": [],
    "since=1h": ["b.a.test", "ba.test"],
    "until=2027-01-15T07:30:00Z": ["a.test"],
    "mode=enforce&token=t&host!=ba.test&since=2d": ["a.test", "b.a.test"],
}


@pytest.fixture
def filled(storage: SQLStorage) -> SQLStorage:
    """Three groups: the oldest is muted, the newest has no verdict."""
    storage.add([arrival("a.test", NOW - 7200), arrival("b.a.test", NOW - 60)], {})
    judge(storage)
    storage.set_state(arrival("a.test").cause.key, "muted")
    storage.add([arrival("ba.test")], {})
    return storage


def test_every_filter_is_one_of_groups_reports_and_charts(filled: SQLStorage) -> None:
    for query, hosts in FILTERS.items():
        pairs = [tuple(pair.split("=", 1)) for pair in query.split("&")]
        wanted = Filter.parse(((name, value) for name, value in pairs), NOW)
        assert sorted(group.host for group in filled.groups(wanted).entries) == hosts, query
        assert sorted(name for name, _, _ in filled.tally(wanted, "host")) == hosts, query
        if not wanted.until:
            assert sorted(one.group.host for one in filled.reports(wanted).entries) == hosts, query
        if not (wanted.since or wanted.until):
            assert sum(number for _, _, number in filled.activity(wanted, 0, 10**9)) == len(hosts), query
    site = Filter((Term("site", "a.test"),))
    assert sorted(group.host for group in filled.groups(site).entries) == ["a.test", "b.a.test"]


def test_a_pattern_of_hosts_takes_the_signs_of_sql_as_they_are(storage: SQLStorage) -> None:
    storage.add([arrival(host) for host in ("x.a_b.test", "x.aab.test", "x.a%b.test", "x.a/b.test")], {})
    for host in ("a_b.test", "a%b.test", "a/b.test"):
        found = storage.groups(Filter((Term("host", f"*.{host}"),))).entries
        assert [group.host for group in found] == [f"x.{host}"]


def test_many_groups_that_match_are_read_by_time(storage: SQLStorage) -> None:
    storage.add([arrival(f"h{number}.test", NOW + number) for number in range(250)], {})
    wanted = Filter((Term("state", "open"),))
    page = storage.reports(wanted, limit=3)
    assert [one.group.host for one in page.entries] == ["h249.test", "h248.test", "h247.test"]
    next_page = storage.reports(wanted, cursor=page.cursor, limit=3)
    assert [one.group.host for one in next_page.entries] == ["h246.test", "h245.test", "h244.test"]


@pytest.mark.parametrize("what", ["groups", "reports"])
def test_pages_lead_through_all_without_a_gap_or_a_repetition(storage: SQLStorage, what: str) -> None:
    storage.add([arrival(f"h{number % 7}.test", NOW + number // 9 + 0.1) for number in range(40)], {})
    for terms in ((), (Term("mode", "enforce"),)):
        seen, cursor = list[int](), None
        while True:
            page = getattr(storage, what)(Filter(terms), cursor=cursor, limit=3)
            seen += [entry.id for entry in page.entries]
            cursor = page.cursor
            if cursor is None:
                break
        assert len(seen) == len(set(seen)) == (7 if what == "groups" else 40)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 9)), max_size=30), st.integers(1, 6))
def test_the_newest_reports_of_some_groups_are_merged(
    storage: SQLStorage, sent: list[tuple[str, int]], limit: int
) -> None:
    change(storage, "DELETE FROM groups")
    storage.add([arrival(f"{host}.test", NOW - ago) for host, ago in sent], {})
    wanted = Filter((Term("mode", "enforce"),))
    seen: list[tuple[float, int]] = []
    page = storage.reports(wanted, limit=limit)
    while True:
        seen += [(entry.received_at, entry.id) for entry in page.entries]
        if page.cursor is None:
            break
        page = storage.reports(wanted, cursor=page.cursor, limit=limit)
    assert seen == ask(storage, "SELECT received_at, id FROM reports ORDER BY received_at DESC, id DESC")
