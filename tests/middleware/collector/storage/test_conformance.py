"""What every storage does: the same tests on each of them."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event

from dynpin.middleware.collector import Retention, Token, new_api_token
from dynpin.middleware.collector.storage import (
    AuditEntry,
    ChannelNote,
    Counted,
    Filter,
    SiteState,
    Term,
    Triaged,
    Untold,
)
from dynpin.middleware.collector.storage.sql import SQLStorage, is_sampled
from tests.middleware.collector.conftest import NOW, Clock

from .conftest import Make, arrival, ask, change

DAY = 86_400.0
PIN = "d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM="


def judge(storage: SQLStorage, verdict: str = "undecided") -> None:
    """Give a verdict to all that wait for one."""
    waiting = storage.untriaged(99, "x")
    pins = ((PIN, "known", "CA"),)
    storage.set_verdicts((group, Triaged(verdict, "unclear", "CA", "{}", pins, "x")) for group, _, _ in waiting)


# -- what the intake writes -------------------------------------------------------------------------------------------


def test_counts_and_rates_agree_with_the_rows(storage: SQLStorage) -> None:
    storage.add([arrival("a.test", NOW - 3600), arrival("a.test"), arrival("b.test")], {})
    storage.add([arrival("a.test")], {Counted(5, "t", "rejected", "x"): 2})
    storage.add([], {Counted(5, "t", "rejected", "x"): 3})
    assert ask(storage, "SELECT host, reports FROM groups ORDER BY host") == [("a.test", 3), ("b.test", 1)]
    assert ask(storage, "SELECT sum(reports) FROM rates") == [(4,)]
    assert ask(storage, "SELECT step, sum(reports) FROM totals GROUP BY step ORDER BY step") == [(1, 4), (24, 4)]
    assert ask(storage, "SELECT sum(reports) FROM agents") == [(4,)]
    assert storage.outcomes(0) == [("rejected", "x", 5)]
    hours = [(int(NOW // 3600) - 1, "enforce", 1), (int(NOW // 3600), "enforce", 3)]
    assert storage.activity(Filter(), 0, 10**9) == hours
    assert storage.activity(Filter((Term("state", "open"),)), 0, 10**9) == hours
    assert storage.activity(Filter((Term("mode", "enforce"),)), 0, 10**9) == hours
    assert storage.activity(Filter((Term("mode", "enforce", negated=True),)), 0, 10**9) == []


def test_a_sender_that_varies_its_user_agent_fills_no_table(storage: SQLStorage) -> None:
    for number in range(30):
        storage.add([arrival(user_agent=f"agent-{number}")], {})
    assert ask(storage, "SELECT count(*), sum(reports) FROM agents") == [(21, 30)]


def test_threads_write_and_read_together(storage: SQLStorage) -> None:
    def work(name: int) -> None:
        for number in range(20):
            storage.add([arrival(f"{name}.test", NOW + number)], {})
            assert (
                storage.reports(Filter((Term("host", f"{name}.test"),)), limit=1).entries[0].received_at == NOW + number
            )

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ask(storage, "SELECT count(*) FROM reports") == [(80,)]


def test_a_storage_survives_a_fork(storage: SQLStorage) -> None:
    storage.add([arrival("parent.test")], {})
    child = os.fork()
    if child == 0:
        storage.add([arrival("child.test")], {})
        os._exit(len(storage.groups(Filter()).entries))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 2
    storage.add([arrival("parent.test")], {})
    assert len(storage.groups(Filter()).entries) == 2


def test_tokens_and_facts_are_kept(storage: SQLStorage, clock: Clock) -> None:
    storage.add_token(Token("x", "Shop", ("a.test",), NOW))
    clock.forward(5)
    assert storage.revoke_token("x")
    assert storage.tokens() == [Token("x", "Shop", ("a.test",), NOW, NOW + 5)]
    assert storage.fact("none") is None
    storage.set_fact("some", 1.5)
    assert storage.fact("some") == 1.5
    assert len(storage.secret()) == 64
    assert storage.secret() == storage.secret()


def test_of_two_that_change_the_state_of_a_site_one_is_first(storage: SQLStorage, clock: Clock) -> None:
    assert storage.site_state("a.test") is None
    assert storage.set_site_state("a.test", "{}", expected=1, by="node") is None
    first = storage.set_site_state("a.test", '{"stage": 1}', expected=0, by="node-1")
    assert first == storage.site_state("a.test") == SiteState("a.test", 1, '{"stage": 1}', NOW, "node-1")
    assert storage.set_site_state("a.test", '{"stage": 7}', expected=0, by="node-2") is None
    clock.forward(5)
    second = storage.set_site_state("a.test", '{"stage": 2}', expected=1, by="node-2")
    assert second == storage.site_state("a.test") == SiteState("a.test", 2, '{"stage": 2}', NOW + 5, "node-2")


def test_many_that_count_in_the_state_of_a_site_lose_no_step(storage: SQLStorage) -> None:
    def count() -> None:
        for _ in range(10):
            while True:
                seen = storage.site_state("a.test")
                version, number = (0, 0) if seen is None else (seen.version, int(seen.state))
                if storage.set_site_state("a.test", str(number + 1), expected=version, by="") is not None:
                    break

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = storage.site_state("a.test")
    assert last is not None
    assert (last.state, last.version) == ("40", 40)


def test_accepted_counts_one_hour_by_token(storage: SQLStorage) -> None:
    storage.add([], {Counted(5, "t", "accepted", ""): 2, Counted(5, "u", "accepted", ""): 1})
    storage.add([], {Counted(5, "t", "accepted", ""): 3, Counted(5, "t", "rejected", "x"): 9})
    storage.add([], {Counted(6, "t", "accepted", ""): 7})
    assert storage.accepted(5) == {"t": 5, "u": 1}
    assert storage.accepted(7) == {}


def together(work: Callable[[], None], number: int) -> None:
    """Do it in so many threads; what one raises is raised."""
    raised: list[BaseException] = []

    def one() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised again
            raised.append(error)

    threads = [threading.Thread(target=one) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def test_batches_of_the_same_groups_in_any_order_wait_in_no_circle(make: Make) -> None:
    """Some are new and some are there, and the worker changes them meanwhile."""
    first = make()
    hosts = [f"h{number}.test" for number in range(12)]

    def write() -> None:
        own = make()
        for turn in range(6):
            order = hosts[turn:] + hosts[:turn]
            own.add([arrival(host, NOW + turn) for host in (order if turn % 2 else order[::-1])], {})
            judge(own, f"verdict-{turn}")

    together(write, 4)
    assert ask(first, "SELECT sum(reports) FROM groups") == [(4 * 6 * 12,)]
    steps = ask(first, "SELECT step, sum(reports) FROM totals GROUP BY step ORDER BY step")
    assert steps == [(1, 4 * 6 * 12), (24, 4 * 6 * 12)]
    assert first.activity(Filter((Term("verdict", "none", negated=True),)), 0, 10**9)[0][2] == sum(
        group.reports for group in first.groups(Filter()).entries if group.verdict
    )


def test_texts_of_strangers_are_kept_as_they_are(storage: SQLStorage) -> None:
    odd = "\t\\N \\. \r\n {\"ü\": '💥'} %s"
    storage.add([arrival(user_agent=odd, body=odd, source=odd)], {Counted(1, odd, "rejected", odd): 1})
    (stored,) = storage.reports(Filter()).entries
    assert (stored.user_agent, stored.body, stored.source) == (odd, odd, odd)
    assert storage.agents(stored.group) == [(odd, 1)]
    assert storage.outcomes(0) == [("rejected", odd, 1)]


def test_what_a_database_cannot_hold_spoils_nothing(storage: SQLStorage) -> None:
    bad = "a\x00b\ud800c"
    good = "a\ufffdb\ufffdc"
    odd = arrival(user_agent=bad, body=bad, source=bad)
    odd = odd._replace(cause=odd.cause._replace(noted_host=bad, known_pins=(bad,)), flags=(bad,))
    storage.add(
        [odd, arrival("honest.test")], {Counted(1, "t", "rejected", bad): 1, Counted(1, "t", "rejected", good): 1}
    )
    (stored,) = [one for one in storage.reports(Filter()).entries if one.group.host == "a.test"]
    assert (stored.user_agent, stored.body, stored.source, stored.flags) == (good, good, good, (good,))
    assert (stored.group.noted_host, stored.group.known_pins) == (good, (good,))
    assert storage.outcomes(0) == [("rejected", good, 2)]
    for group, _, _ in storage.untriaged(9, "x"):
        storage.set_verdicts([(group, Triaged("undecided", "unclear", bad, bad, ((PIN, "known", bad),), "x"))])
    assert storage.authorities([PIN, bad]) == {PIN: good}
    storage.record(AuditEntry(NOW, bad, bad, bad, bad))
    assert storage.audit(bad) == [AuditEntry(NOW, good, good, good, good)]
    for field in ("host", "noted_host", "issuer", "pin", "token", "group"):
        for value in (bad, f"*.{bad}"):
            storage.groups(Filter((Term(field, value),)))


def test_of_a_group_a_sample_of_bodies_is_kept_and_every_report_counted(storage: SQLStorage) -> None:
    bodies = [f"[{number}]" for number in range(1, 201)]
    for size, start in ((1, 0), (60, 1), (139, 61)):
        storage.add([arrival(at=NOW + at, body=bodies[at]) for at in range(start, start + size)], {})
    stored = storage.reports(Filter(), limit=500).entries[::-1]
    kept = [report.body for report in stored if report.body is not None]
    assert kept == [
        body for number, body in enumerate(bodies, 1) if number <= 20 or number in {26, 39, 58, 87, 130, 195}
    ]
    assert (len(stored), storage.groups(Filter()).entries[0].reports) == (200, 200)
    assert sum(map(is_sampled, range(1, 10**6))) == 47


def test_where_no_body_is_left_a_sample_is_taken_anew(storage: SQLStorage, clock: Clock) -> None:
    storage.add([arrival(at=NOW) for _ in range(30)], {})
    clock.forward(100 * DAY)
    storage.add([arrival(at=clock(), body="late")], {})
    assert storage.reports(Filter(), limit=1).entries[0].body is None
    storage.prune(Retention(days=90))
    storage.add([arrival(at=clock(), body="fresh")], {})
    assert storage.untriaged(1)[0][1] == "fresh"


# -- what people ask --------------------------------------------------------------------------------------------------


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


# -- what the worker asks ---------------------------------------------------------------------------------------------


def test_a_flood_of_one_source_makes_no_other_wait(storage: SQLStorage) -> None:
    storage.add([arrival(f"h{number}.test", source="10.0.0.0/24") for number in range(300)], {})
    storage.add([arrival("one.test", source="10.0.1.0/24"), arrival("two.test", source="10.0.2.0/24")], {})
    for _ in range(2):
        first, *others = [group.host for group, _, _ in storage.untriaged(4, "x")]
        assert [first[:1], *sorted(others[:2]), others[2][:1]] == ["h", "one.test", "two.test", "h"]
        if storage.groups(Filter((Term("verdict", "undecided"),))).entries:
            break
        everything = storage.untriaged(999, "x")
        storage.set_verdicts((group, Triaged("undecided", "unclear", "", "{}")) for group, _, _ in everything)


def test_a_verdict_moves_the_reports_and_names_the_authorities(storage: SQLStorage) -> None:
    storage.add([arrival("a.test"), arrival("a.test"), arrival("b.test")], {})
    judge(storage)
    assert storage.untriaged(9, "x") == []
    assert [group.host for group, _, _ in storage.untriaged(9, "y")] == ["a.test", "b.test"]
    assert storage.authorities([PIN, "other"]) == {PIN: "CA"}
    assert storage.activity(Filter((Term("verdict", "undecided"),)), 0, 10**9)[0][2] == 3
    assert [group.diagnosis for group in storage.unannounced(9)] == ["{}", "{}"]
    storage.announce([], [Untold(group) for group in storage.unannounced(9)], NOW)
    assert storage.unannounced(9) == []


def test_what_rises(storage: SQLStorage) -> None:
    hour = int(NOW // 3600)
    storage.add([arrival("calm.test", NOW - 3600 * n) for n in range(24)] + [arrival("calm.test")], {})
    storage.add([arrival("rising.test", NOW - 7200)] + [arrival("rising.test")] * 10, {})
    storage.add([arrival("back.test")], {})
    storage.set_state(arrival("back.test").cause.key, "resolved")
    found = {rise.group.host: (rise.reports, rise.before) for rise in storage.rising(hour, 5, 5)}
    assert found == {"rising.test": (10, 1 / 24), "back.test": (1, 0.0)}


def test_of_two_workers_one_has_the_lease(make: Make) -> None:
    one, other = make(), make()
    assert one.claim("verdicts", "one")
    assert not other.claim("verdicts", "other")
    assert one.claim("verdicts", "one"), "it prolongs its own"
    assert other.claim("alerts", "other")
    one.release("one")
    assert other.claim("verdicts", "other")
    change(one, "UPDATE leases SET expires_at = expires_at - 61")
    assert one.claim("verdicts", "one"), "it ran out"
    change(one, "UPDATE leases SET expires_at = expires_at + 3600")
    assert other.claim("verdicts", "other"), "a clock that stood ahead holds nobody up"


def test_of_many_that_claim_together_one_has_the_lease(storage: SQLStorage) -> None:
    won: list[str] = []

    def claim() -> None:
        name = threading.current_thread().name
        if storage.claim("verdicts", name):
            won.append(name)

    together(claim, 8)
    assert len(won) == 1


# -- retention --------------------------------------------------------------------------------------------------------


def test_prune_by_age(storage: SQLStorage) -> None:
    storage.add([arrival("old.test", NOW - 10 * DAY), arrival("new.test")], {Counted(1, "t", "accepted", ""): 1})
    storage.add([], {Counted(2, "t", "accepted", ""): 1, Counted(int(NOW // 3600), "t", "accepted", ""): 3})
    judge(storage)
    storage.record(AuditEntry(NOW - 9 * DAY, "", "", "muted"))
    pruned = storage.prune(Retention(days=5))
    assert (pruned.reports, pruned.groups) == (1, 1)
    assert [group.host for group in storage.groups(Filter()).entries] == ["new.test"]
    rows = {"samples": 1, "rates": 1, "totals": 2, "outcomes": 2, "agents": 1, "diagnoses": 1, "audit": 0}
    for table, number in rows.items():
        assert ask(storage, f"SELECT count(*) FROM {table}") == [(number,)], table
    storage.prune(Retention(days=5))
    assert storage.outcomes(0) == [("accepted", "", 5)], "a counter never goes down"
    assert storage.outcomes(1) == [("accepted", "", 3)]


def test_each_channel_is_told_of_each_group(storage: SQLStorage) -> None:
    storage.keep_channels(["chat", "mail"])
    storage.add([arrival(name) for name in ("a.test", "b.test", "c.test", "d.test")], {})
    judge(storage)
    a, b, c, d = groups = storage.unannounced(9)
    storage.announce(["chat", "mail"], [Untold(a), Untold(b), Untold(c), Untold(d, 20, 1.5)], NOW)
    assert storage.untold("mail", 9)[3] == Untold(d, 20, 1.5)
    assert [each.group for each in storage.untold("mail", 3)] == groups[:3]
    sent = ChannelNote("chat", NOW, "dynpin: 2 new groups", None, None)
    storage.note_channel(sent, [a, b])
    storage.set_state(c.key, "muted")
    storage.set_state(d.key, "resolved")
    assert [each.group.id for each in storage.untold("chat", 9)] == [d.id]
    assert [each.group.id for each in storage.untold("mail", 9)] == [a.id, b.id, d.id]
    assert storage.channels() == [replace(sent, waiting=1), ChannelNote("mail", waiting=3)]
    storage.keep_channels(["mail"])
    assert storage.untold("chat", 9) == []
    assert [note.name for note in storage.channels()] == ["mail"]
    storage.clock.forward(100 * DAY)  # type: ignore[attr-defined]
    storage.prune(Retention(days=90))
    assert storage.channels() == [ChannelNote("mail")]
    storage.announce(["mail"], [Untold(a)], NOW)
    assert storage.untold("mail", 9) == [], "it was pruned meanwhile"


def test_no_transaction_of_prune_is_without_bounds(storage: SQLStorage, clock: Clock) -> None:
    counts = {Counted(hour, f"t{token}", "accepted", ""): 2 for hour in range(100, 147) for token in range(100)}
    storage.add([], counts)
    change(
        storage,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4700) "
        "INSERT INTO audit (at, who, source, action, subject) SELECT i, 'a', '', 'sign-in-failed', '' FROM n",
    )
    deleted: dict[str, list[int]] = {"outcomes": [], "audit": []}

    def counted(connection: object, cursor: Any, statement: str, *_: object) -> None:
        for table, rows in deleted.items():
            if statement.startswith(f"DELETE FROM {table} "):
                rows.append(cursor.rowcount)

    event.listen(Engine, "after_cursor_execute", counted)
    try:
        storage.prune(Retention(days=90))
    finally:
        event.remove(Engine, "after_cursor_execute", counted)
    assert deleted["audit"] == [2000, 2000, 700]
    assert len(deleted["outcomes"]) == 3
    assert storage.outcomes(0) == [("accepted", "", 9400)]
    assert ask(storage, "SELECT count(*) FROM outcomes WHERE hour > 0") == [(0,)]
    assert ask(storage, "SELECT count(*) FROM audit") == [(0,)]
    storage.prune(Retention(days=90))
    assert storage.outcomes(0) == [("accepted", "", 9400)]


def test_prune_by_size_deletes_the_oldest(storage: SQLStorage) -> None:
    chance = random.Random(7)
    for start in range(0, 5_000, 500):
        batch = [
            arrival(f"h{n % 500}.test", NOW + n, body=chance.randbytes(500).hex()) for n in range(start, start + 500)
        ]
        storage.add(batch, {})
    storage.prune(Retention(bytes=4_000_000))
    (left, oldest) = ask(storage, "SELECT count(*), min(received_at) FROM reports")[0]
    assert 500 <= left <= 4_000
    assert oldest == NOW + 5_000 - left
    assert storage.engine.bytes_used() <= 4_000_000
    storage.prune(Retention(bytes=1))
    assert storage.groups(Filter()).entries == []
    assert ask(storage, "SELECT count(*) FROM totals") == [(0,)]


# -- administration ---------------------------------------------------------------------------------------------------


def test_sessions_and_tokens_of_the_api(storage: SQLStorage, clock: Clock) -> None:
    storage.add_session("s", "Ann", NOW + 10)
    assert storage.session("s") == "Ann"
    clock.forward(11)
    assert storage.session("s") is None
    storage.add_session("t", "Bob", NOW + 99)
    storage.end_session("t")
    assert storage.session("t") is None
    _, token = new_api_token("ramp", ["read", "site:a.test"], NOW, 1)
    assert storage.add_api_token(token)
    assert not storage.add_api_token(new_api_token("ramp", ["read"], NOW, 1)[1])
    storage.use_api_token(token.digest, NOW + 5)
    used = storage.api_token(token.digest)
    assert used is not None
    assert (used.scopes, used.used_at) == (("read", "site:a.test"), NOW + 5)
    assert storage.revoke_api_token("ramp")
    assert not storage.revoke_api_token("ramp")
    again = new_api_token("ramp", ["triage"], NOW, 1)[1]
    assert storage.add_api_token(again)
    assert storage.api_tokens() == [again]


def test_who_did_what_is_kept_and_failures_push_nothing_out(storage: SQLStorage) -> None:
    storage.add([arrival()], {})
    key = arrival().cause.key
    assert storage.set_state(key, "muted", AuditEntry(NOW, "Ann", "192.0.2.1", "muted", key))
    assert not storage.set_state("no-such", "muted", AuditEntry(NOW, "Ann", "", "muted", "no-such"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynpin.middleware.collector.storage.sql.decisions._MAX_FAILURES", 5)
        for number in range(9):
            storage.record(AuditEntry(NOW + number, "", "192.0.2.9", "sign-in-failed"))
    found = storage.audit()
    assert [entry.action for entry in found] == ["sign-in-failed"] * 5 + ["muted"]
    assert storage.audit(key) == [AuditEntry(NOW, "Ann", "192.0.2.1", "muted", key)]
    assert storage.groups(Filter()).entries[0].state == "muted"


def test_tokens_of_settings_are_remembered(storage: SQLStorage) -> None:
    storage.name_tokens(["a", "b", "a"], NOW)
    storage.name_tokens(["b"], NOW + 1)
    storage.name_tokens([], NOW + 2)
    assert storage.named_tokens() == {"a": NOW, "b": NOW + 1}


def test_a_probe_writes(storage: SQLStorage, clock: Clock) -> None:
    clock.forward(3)
    storage.probe(2)
    assert storage.fact("written_at") == NOW + 3


def test_a_storage_that_was_closed_may_be_used_again(storage: SQLStorage) -> None:
    secret = storage.secret()
    storage.close()
    assert storage.secret() == secret
