"""The storage on SQLite: its file, its connections, and that every question has an index."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy.exc import InvalidRequestError

from dynpin.errors import StoreError
from dynpin.middleware.collector import open_storage
from dynpin.middleware.collector.reserve import keep_reserve
from dynpin.middleware.collector.storage import Column, Filter, Term, Triaged, migrate_storage
from dynpin.middleware.collector.storage.sql import SQLStorage
from dynpin.middleware.collector.storage.sqlite import raw
from tests.clock import Clock
from tests.environments import descriptors_of

from .conftest import arrival, ask


@pytest.fixture
def storage(tmp_path: Path, clock: Clock) -> SQLStorage:
    return open_storage(tmp_path / "reports.sqlite", clock=clock)


def test_the_file_is_private_and_its_log_is_written_ahead(storage: SQLStorage) -> None:
    assert Path(storage.name).stat().st_mode & 0o777 == 0o600
    assert ask(storage, "PRAGMA journal_mode") == [("wal",)]


def plans(storage: SQLStorage, ask_it: Callable[[], object]) -> list[str]:
    """How SQLite goes about what is asked of the storage, step by step."""
    asked: list[str] = []
    with storage.reading() as unit:
        own = raw(unit.db)
        own.set_trace_callback(asked.append)
    ask_it()  # by the connection that was given back last
    with storage.reading() as unit:
        assert raw(unit.db) is own
        own.set_trace_callback(None)
        questions = [sql for sql in asked if "SELECT" in sql and "alembic_version" not in sql]
        return [str(row[3]) for sql in questions for row in own.execute(f"EXPLAIN QUERY PLAN {sql}")]


def test_readers_beside_each_other_have_connections_of_their_own(storage: SQLStorage) -> None:
    with storage.reading() as one, storage.reading() as other:
        assert one.db is not other.db
    with storage.reading() as one:
        storage.close()
        assert one.db.exec_driver_sql("SELECT count(*) FROM reports").scalar() == 0, "its reader closes it"
    with pytest.raises(InvalidRequestError, match="closed"):
        one.db.exec_driver_sql("SELECT 1")


def test_the_file_of_another_program_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE mine (x)")
    db.close()
    before = other.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        open_storage(other)
    assert other.read_bytes() == before


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("hello, this is no database at all" * 40)
    with pytest.raises(StoreError, match="not a database"):
        open_storage(text)


def test_a_folder_that_is_not_there_is_named_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=re.escape(f"no folder {tmp_path / 'slip'} for")):
        open_storage(tmp_path / "slip" / "r.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_reached_is_told(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    storage = open_storage(folder / "r.sqlite", clock=clock)
    storage.probe(1)
    is_root = os.geteuid() == 0  # whom no mode of a folder stops
    tmp_path.chmod(0)
    try:
        if is_root:
            os.seteuid(65534)
        uses = (lambda: storage.probe(1), storage.tokens, lambda: open_storage(folder / "r.sqlite"))
        for use in uses:
            with pytest.raises(StoreError, match=r"r\.sqlite cannot be used: .* let the user of the collector enter"):
                use()
    finally:
        if is_root:
            os.seteuid(0)
        tmp_path.chmod(0o700)
    storage.probe(1)
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    there = sorted(folder.iterdir())
    for name, told in (
        ("r" * 300, "File name too long"),
        ("loop", "Too many levels"),
        ("", "it is a folder; name a file"),
        ("pipe", "it is a device, a pipe or a socket; name a file"),
        ("/dev/null", "it is a device, a pipe or a socket; name a file"),
        ("/dev/full", "it is a device, a pipe or a socket; name a file"),
    ):
        with pytest.raises(StoreError, match=f"cannot be used: .*{told}"):
            open_storage(folder / name)
    with pytest.raises(StoreError, match="it is a device"):
        migrate_storage("/dev/full")
    assert sorted(folder.iterdir()) == there
    assert list(Path("/dev").glob("*-journal")) == []


CHARTS = {
    "totals": (
        Filter((Term("verdict", "undecided", negated=True), Term("state", "open"))),
        "SEARCH totals USING PRIMARY KEY",
    ),
    "one host": (Filter((Term("host", "a.test"),)), "SEARCH groups USING INDEX groups_by_host"),
    "all but a host": (Filter((Term("host", "a.test", negated=True),)), "SEARCH groups USING INDEX groups_by_host"),
    "all but a pin": (Filter((Term("pin", "x", negated=True),)), "SEARCH groups USING INTEGER PRIMARY KEY"),
}


@pytest.mark.parametrize("name", CHARTS)
def test_no_chart_reads_every_rate(storage: SQLStorage, name: str) -> None:
    wanted, first = CHARTS[name]
    plan = plans(storage, lambda: storage.activity(wanted, 0, 10**6))
    assert not [step for step in plan if step.startswith("SCAN")], plan
    assert any(step.startswith(first) for step in plan), plan


def test_datasette_can_read_it(storage: SQLStorage) -> None:
    storage.add([arrival()], {})
    (row,) = ask(storage, "SELECT received, host, mode, source FROM readable_reports")
    assert row == ("2027-01-15 08:00:00", "a.test", "enforce", "192.0.2.0/24")


# -- the file in use --------------------------------------------------------------------------------------------------

IN_PLACE: dict[str, tuple[str, str]] = {
    "of another program": ("CREATE TABLE mine (x)", "of another program"),
    "empty": ("", "by an empty file while it was in use.* put the file back"),
    "of a newer dynpin": ("UPDATE alembic_version SET version_num = '9999'", "by a newer dynpin"),
    "of an older dynpin": ("UPDATE alembic_version SET version_num = '0000'", "dynpin collect migrate"),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_another_file_in_its_place_is_checked_as_at_the_start(storage: SQLStorage, tmp_path: Path, name: str) -> None:
    change, told = IN_PLACE[name]
    storage.add([arrival()], {})
    file, other, aside = Path(storage.name), tmp_path / "other.sqlite", tmp_path / "aside"
    if "dynpin" in name:
        _copy(file, other)
    with closing(sqlite3.connect(other)) as db, db:
        db.execute(change)
    _move(file, aside)
    other.touch()
    other.rename(file)
    for use in (lambda: storage.add([arrival()], {}), lambda: storage.probe(1), lambda: storage.reports(Filter())):
        with pytest.raises(StoreError, match=told):
            use()
    file.unlink()
    _move(aside / file.name, tmp_path)
    storage.add([arrival()], {})
    assert len(storage.reports(Filter()).entries) == 2


def test_a_compact_copy_in_its_place_is_used_with_a_log_too(storage: SQLStorage, tmp_path: Path) -> None:
    file = Path(storage.name)
    for number in range(2):
        storage.add([arrival()], {})
        _copy(file, tmp_path / "copy")
        _move(file, tmp_path / f"aside-{number}")
        (tmp_path / "copy").rename(file)
        storage.add([arrival()], {})
        assert ask(storage, "PRAGMA journal_mode") == [("wal",)]


def test_a_link_is_the_file_that_it_leads_to(tmp_path: Path) -> None:
    file, link = tmp_path / "elsewhere" / "r.sqlite", tmp_path / "link"
    file.parent.mkdir()
    link.symlink_to(file)
    storage = open_storage(link)
    storage.add([arrival()], {})
    keep_reserve(link)
    assert {one.name for one in file.parent.iterdir()} >= {"r.sqlite", "r.sqlite-wal", "r.sqlite-reserve"}
    file.with_name("r.sqlite-wal").unlink()
    stored = 0  # since then
    for _ in range(4):
        with suppress(StoreError):
            storage.add([arrival()], {})
            stored += 1
    with closing(sqlite3.connect(file)) as reader:
        (found,) = reader.execute("SELECT count(*) FROM reports").fetchone()
    assert found >= stored > 1


def _copy(file: Path, copy: Path) -> None:
    with closing(sqlite3.connect(file)) as db:
        db.execute("VACUUM INTO ?", (str(copy),))


def _move(file: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for one in list(file.parent.glob(f"{file.name}*")):
        one.rename(folder / one.name)


# -- together ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_threads_that_come_and_go_leave_no_connection_behind(storage: SQLStorage) -> None:
    def read() -> None:
        storage.reports(Filter())

    counts: list[int] = []
    for _ in range(40):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        counts.append(descriptors_of(Path(storage.name)))
    assert counts[-1] == counts[0] > 0


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
def test_no_question_reads_a_whole_table_or_sorts_it(storage: SQLStorage, name: str, method: str) -> None:
    storage.add([arrival("a.test"), arrival("b.test")], {})
    for group, _, _ in storage.untriaged(9, "x"):
        storage.set_verdicts([(group, Triaged("undecided", "unclear", "CA", "{}"))])
    answered: list[object] = []
    plan = plans(storage, lambda: answered.extend(getattr(storage, method)(QUESTIONS[name], limit=10).entries))
    assert answered
    for step in plan:
        assert step.startswith(SEARCHES) or step in IN_ORDER or _sorts_few(step, name), plan


def _sorts_few(step: str, name: str) -> bool:
    # The groups of one pin come by the pin, and the one group by its key, and are put in order afterwards.
    return step == "USE TEMP B-TREE FOR ORDER BY" and name in ("pin", "group")


@pytest.mark.parametrize("column", ["host", "verdict", "issuer", "state"])
@pytest.mark.parametrize("wanted", TALLIES, ids=lambda wanted: wanted.query() or "nothing")
def test_a_tally_of_all_groups_reads_an_index_alone(storage: SQLStorage, wanted: Filter, column: Column) -> None:
    plan = plans(storage, lambda: storage.tally(wanted, column))
    assert "groups USING COVERING INDEX groups_in_short" in plan[0], plan
