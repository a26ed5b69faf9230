"""The storage: what is in the file, what keeps it small, and that every question has an index."""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynpin.errors import StoreError
from dynpin.middleware.collector import Retention, Token, open_storage
from dynpin.middleware.collector.intake import understood
from dynpin.middleware.collector.storage import (
    MAX_SITE_STATE,
    Arrival,
    Column,
    Counted,
    Filter,
    SiteState,
    Term,
    Triaged,
)
from tests.environments import descriptors_of
from tests.middleware.collector.conftest import NOW, Clock, report

DAY = 86_400.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage(tmp_path: Path, clock: Clock) -> Iterator[SQLiteStorage]:
    storage = open_storage(tmp_path / "reports.sqlite", clock=clock)
    yield storage
    storage.close()


def arrival(host: str = "a.test", at: float = NOW, **options: Any) -> Arrival:
    body = report(hostname=host, noted_hostname=host)
    read = understood(body, "enforce")
    given = {"token": "t", "source": "192.0.2.0/24", "user_agent": "ua", "received_at": at, "body": "{}", **options}
    return Arrival(read.cause, read.flags, read.observed_at, read.expires_at, **given)


def ask(storage: SQLiteStorage, sql: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(storage.path) as db:
        rows = db.execute(sql).fetchall()
    db.close()
    return rows


def test_the_file_is_private_and_its_schema_has_a_version(storage: SQLiteStorage) -> None:
    assert storage.path.stat().st_mode & 0o777 == 0o600
    assert ask(storage, "PRAGMA user_version") == [(1,)]
    assert ask(storage, "PRAGMA journal_mode") == [("wal",)]


def test_a_newer_file_is_refused(storage: SQLiteStorage) -> None:
    ask(storage, "PRAGMA user_version=99")
    with pytest.raises(StoreError, match="written by a newer dynpin"):
        open_storage(storage.path)


def test_the_file_of_another_program_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE mine (x)")
    db.close()
    with pytest.raises(StoreError, match="another program"):
        open_storage(other)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("hello, this is no database at all" * 40)
    with pytest.raises(StoreError, match="not a database"):
        open_storage(text)


def test_a_folder_that_is_not_there_is_named_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=re.escape(f"no folder {tmp_path / 'slip'} to keep")):
        open_storage(tmp_path / "slip" / "r.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_counts_and_rates_agree_with_the_rows(storage: SQLiteStorage) -> None:
    storage.add([arrival("a.test", NOW - 3600), arrival("a.test"), arrival("b.test")], {})
    storage.add([arrival("a.test")], {Counted(5, "t", "rejected", "x"): 2})
    storage.add([], {Counted(5, "t", "rejected", "x"): 3})
    assert ask(storage, "SELECT host, reports FROM groups ORDER BY host") == [("a.test", 3), ("b.test", 1)]
    assert ask(storage, "SELECT sum(reports) FROM rates") == [(4,)]
    assert ask(storage, "SELECT sum(reports) FROM totals") == [(4,)]
    assert ask(storage, "SELECT sum(reports) FROM agents") == [(4,)]
    assert storage.outcomes(0) == [("rejected", "x", 5)]
    hours = [(int(NOW // 3600) - 1, "enforce", 1), (int(NOW // 3600), "enforce", 3)]
    assert storage.activity(Filter(), 0, 10**9) == hours
    assert storage.activity(Filter((Term("state", "open"),)), 0, 10**9) == hours
    assert storage.activity(Filter((Term("mode", "enforce"),)), 0, 10**9) == hours
    assert storage.activity(Filter((Term("mode", "enforce", negated=True),)), 0, 10**9) == []


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


@settings(deadline=None, max_examples=30)
@given(st.lists(STEPS, max_size=12), st.lists(st.sampled_from(TERMS), max_size=3))
def test_a_chart_counts_what_the_groups_have(steps: list[tuple[Any, ...]], terms: list[Term]) -> None:
    """Whatever happened to the groups, and by whatever way the question is answered."""
    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(Path(folder) / "r.sqlite", clock=Clock())
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
            f"WHERE group_id IN ({','.join(matching)}) GROUP BY hour, mode ORDER BY hour, mode",
        )
        storage.close()


CHARTS = {
    "totals": (
        Filter((Term("verdict", "undecided", negated=True), Term("state", "open"))),
        "SEARCH groups USING PRIMARY KEY",
    ),
    "one host": (Filter((Term("host", "a.test"),)), "SEARCH groups USING INDEX groups_by_host"),
    "all but a host": (
        Filter((Term("host", "a.test", negated=True),)),
        "SEARCH groups USING COVERING INDEX groups_by_host",
    ),
    "all but a pin": (Filter((Term("pin", "x", negated=True),)), "SEARCH groups USING INTEGER PRIMARY KEY"),
}


def plans(storage: SQLiteStorage, ask_it: Callable[[], object]) -> list[str]:
    """How SQLite goes about what is asked of the storage, step by step."""
    asked: list[str] = []
    with storage.reading() as db:
        db.set_trace_callback(asked.append)
    ask_it()  # by the connection that was given back last
    with storage.reading() as same:
        assert same is db
        db.set_trace_callback(None)
        return [str(row["detail"]) for sql in asked for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]


@pytest.mark.parametrize("name", CHARTS)
def test_no_chart_reads_every_rate(storage: SQLiteStorage, name: str) -> None:
    wanted, first = CHARTS[name]
    plan = plans(storage, lambda: storage.activity(wanted, 0, 10**6))
    assert not [step for step in plan if step.startswith("SCAN")], plan
    assert any(step.startswith(first) for step in plan), plan


def test_a_sender_that_varies_its_user_agent_fills_no_table(storage: SQLiteStorage) -> None:
    for number in range(30):
        storage.add([arrival(user_agent=f"agent-{number}")], {})
    assert ask(storage, "SELECT count(*), sum(reports) FROM agents") == [(21, 30)]


def test_datasette_can_read_it(storage: SQLiteStorage) -> None:
    storage.add([arrival()], {})
    (row,) = ask(storage, "SELECT received, host, mode, source FROM readable_reports")
    assert row == ("2027-01-15 08:00:00", "a.test", "enforce", "192.0.2.0/24")


# -- retention --------------------------------------------------------------------------------------------------------


def test_prune_by_age(storage: SQLiteStorage) -> None:
    storage.add([arrival("old.test", NOW - 10 * DAY), arrival("new.test")], {Counted(1, "t", "accepted", ""): 1})
    for group, _, _ in storage.untriaged(9, "x"):
        storage.set_verdicts([(group, Triaged("undecided", "unclear", "CA", "{}"))])
    pruned = storage.prune(Retention(days=5))
    assert (pruned.reports, pruned.groups, pruned.samples) == (1, 1, 0)
    assert [group.host for group in storage.groups(Filter()).entries] == ["new.test"]
    for table, rows in (
        ("samples", 1),
        ("rates", 1),
        ("totals", 1),
        ("outcomes", 0),
        ("pins", 1),
        ("agents", 1),
        ("diagnoses", 1),
    ):
        assert ask(storage, f"SELECT count(*) FROM {table}") == [(rows,)], table


def test_prune_keeps_the_newest_bodies(storage: SQLiteStorage) -> None:
    storage.add([arrival(at=NOW + number, body=f"[{number}]") for number in range(10)], {})
    assert storage.prune(Retention(samples=3)).samples == 7
    assert [stored.body for stored in storage.reports(Filter()).entries] == ["[9]", "[8]", "[7]", *[None] * 7]


def test_prune_by_size(storage: SQLiteStorage) -> None:
    storage.add([arrival(at=NOW + number, body="x" * 1000) for number in range(5_000)], {})
    assert storage.prune(Retention(bytes=3_000_000, samples=10**6)).reports == 4_000
    assert ask(storage, "SELECT min(received_at) FROM reports") == [(NOW + 4_000,)]
    assert storage.prune(Retention(bytes=1, samples=10**6)).reports == 1_000
    assert storage.groups(Filter()).entries == []


# -- together ---------------------------------------------------------------------------------------------------------


def test_threads_write_and_read_together(storage: SQLiteStorage) -> None:
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


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_threads_that_come_and_go_leave_no_connection_behind(storage: SQLiteStorage) -> None:
    def read() -> None:
        storage.reports(Filter())

    counts = []
    for _ in range(40):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        counts.append(descriptors_of(storage.path))
    assert counts[-1] == counts[0] > 0


def test_readers_beside_each_other_have_connections_of_their_own(storage: SQLiteStorage) -> None:
    with storage.reading() as one, storage.reading() as other:
        assert one is not other
    with storage.reading() as one:
        storage.close()
        assert one.execute("SELECT count(*) FROM reports").fetchone()[0] == 0, "it is closed by whoever reads from it"
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        one.execute("SELECT 1")


def test_a_storage_survives_a_fork(storage: SQLiteStorage) -> None:
    storage.add([arrival("parent.test")], {})
    child = os.fork()
    if child == 0:
        storage.add([arrival("child.test")], {})
        os._exit(len(storage.groups(Filter()).entries))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 2
    storage.add([arrival("parent.test")], {})
    assert len(storage.groups(Filter()).entries) == 2


def test_tokens_and_facts_are_kept(storage: SQLiteStorage, clock: Clock) -> None:
    storage.add_token(Token("x", "Shop", ("a.test",), NOW))
    clock.forward(5)
    assert storage.revoke_token("x")
    assert storage.tokens() == [Token("x", "Shop", ("a.test",), NOW, NOW + 5)]
    assert storage.fact("none") is None
    storage.set_fact("some", 1.5)
    assert storage.fact("some") == 1.5
    assert len(storage.secret()) == 64
    assert storage.secret() == storage.secret()


def test_of_two_that_change_the_state_of_a_site_one_is_first(storage: SQLiteStorage, clock: Clock) -> None:
    assert storage.site_state("a.test") is None
    assert storage.set_site_state("a.test", "{}", expected=1, by="node") is None
    first = storage.set_site_state("a.test", '{"stage": 1}', expected=0, by="node-1")
    assert first == storage.site_state("a.test") == SiteState("a.test", 1, '{"stage": 1}', NOW, "node-1")
    assert storage.set_site_state("a.test", '{"stage": 7}', expected=0, by="node-2") is None
    clock.forward(5)
    second = storage.set_site_state("a.test", '{"stage": 2}', expected=1, by="node-2")
    assert second == storage.site_state("a.test") == SiteState("a.test", 2, '{"stage": 2}', NOW + 5, "node-2")
    with pytest.raises(ValueError, match="at most 262144 bytes"):
        storage.set_site_state("a.test", "ä" * (MAX_SITE_STATE // 2 + 1), expected=2, by="node-1")
    assert storage.site_state("a.test") == second


def test_many_that_count_in_the_state_of_a_site_lose_no_step(storage: SQLiteStorage) -> None:
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


def test_accepted_counts_one_hour_by_token(storage: SQLiteStorage) -> None:
    storage.add([], {Counted(5, "t", "accepted", ""): 2, Counted(5, "u", "accepted", ""): 1})
    storage.add([], {Counted(5, "t", "accepted", ""): 3, Counted(5, "t", "rejected", "x"): 9})
    storage.add([], {Counted(6, "t", "accepted", ""): 7})
    assert storage.accepted(5) == {"t": 5, "u": 1}
    assert storage.accepted(7) == {}


# -- the plans of the questions ---------------------------------------------------------------------------------------

PIN = "d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM="
QUESTIONS: dict[str, Filter] = {
    "nothing": Filter(),
    "host": Filter((Term("host", "a.test"),)),
    "noted host": Filter((Term("noted_host", "a.test"),)),
    "pin": Filter((Term("pin", PIN),)),
    "verdict": Filter((Term("verdict", "undecided"),)),
    "issuer": Filter((Term("issuer", "CA"),)),
    "group": Filter((Term("group", arrival("a.test").cause.key),)),
    "time": Filter(since="7d"),
    "host and time": Filter((Term("host", "a.test"),), since="7d"),
}
# Read in the order of the answer, and left when the page is full.
IN_ORDER = ("SCAN reports USING INDEX reports_by_time", "SCAN groups USING INDEX groups_by_last_seen")


SEARCHES = ("SEARCH", "LIST SUBQUERY", "CORRELATED SCALAR SUBQUERY")
TALLIES = [
    Filter(),
    Filter(since="7d"),
    Filter((Term("host", "a.test", negated=True),)),
    Filter((Term("host", "*.a.test"),), since="7d"),
]


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("method", ["reports", "groups"])
def test_no_question_reads_a_whole_table_or_sorts_it(storage: SQLiteStorage, name: str, method: str) -> None:
    storage.add([arrival("a.test"), arrival("b.test")], {})
    for group, _, _ in storage.untriaged(9, "x"):
        storage.set_verdicts([(group, Triaged("undecided", "unclear", "CA", "{}"))])
    answered: list[object] = []
    plan = plans(storage, lambda: answered.extend(getattr(storage, method)(QUESTIONS[name], limit=10).entries))
    assert answered
    for step in plan:
        assert step.startswith(SEARCHES) or step in IN_ORDER or _sorts_few(step, name), plan


def _sorts_few(step: str, name: str) -> bool:
    # The groups of one pin come by the pin, and are put in order afterwards.
    return step == "USE TEMP B-TREE FOR ORDER BY" and name == "pin"


@pytest.mark.parametrize("column", ["host", "verdict", "issuer", "state"])
@pytest.mark.parametrize("wanted", TALLIES, ids=lambda wanted: wanted.query() or "nothing")
def test_a_tally_of_all_groups_reads_an_index_alone(storage: SQLiteStorage, wanted: Filter, column: Column) -> None:
    plan = plans(storage, lambda: storage.tally(wanted, column))
    assert "groups USING COVERING INDEX groups_in_short" in plan[0], plan
