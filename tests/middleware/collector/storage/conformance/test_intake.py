"""What the intake writes: counts, texts of strangers and samples of bodies are the same on every storage."""

from __future__ import annotations

import os

from dynpin.middleware.collector import Retention
from dynpin.middleware.collector.storage import (
    AuditEntry,
    Counted,
    Filter,
    Term,
    Triaged,
)
from dynpin.middleware.collector.storage.sql import SQLStorage, is_sampled
from tests.clock import Clock
from tests.middleware.collector.conftest import NOW

from ..conftest import arrival, ask
from .conftest import DAY, PIN, Make, judge, together


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

    together(work, 4)
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


def test_accepted_counts_one_hour_by_token(storage: SQLStorage) -> None:
    storage.add([], {Counted(5, "t", "accepted", ""): 2, Counted(5, "u", "accepted", ""): 1})
    storage.add([], {Counted(5, "t", "accepted", ""): 3, Counted(5, "t", "rejected", "x"): 9})
    storage.add([], {Counted(6, "t", "accepted", ""): 7})
    assert storage.accepted(5) == {"t": 5, "u": 1}
    assert storage.accepted(7) == {}


def test_batches_of_the_same_groups_in_any_order_wait_in_no_circle(make: Make) -> None:
    """Some are new and some are there, and the worker changes them meanwhile."""
    first = make()
    hosts = [f"h{number}.test" for number in range(12)]

    def write(_: int) -> None:
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
