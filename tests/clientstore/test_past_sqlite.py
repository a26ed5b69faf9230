"""The generation of a store: told without asking SQLite, and right whoever has written, in whatever way."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dynpin import KnownPinnedHost, Pin, StoreError
from dynpin.clientstore import PinStore, check, past_sqlite, schema
from dynpin.clientstore.store.table import put
from tests.environments import descriptors_of

PIN, OTHER = Pin(bytes(32)), Pin(bytes([1]) * 32)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has SQLite asked, and other locks")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pins"


@pytest.fixture
def store(file: Path) -> Iterator[PinStore]:
    with PinStore(file) as store:
        store.pin("first.test", [PIN])
        yield store


def statements(store: PinStore) -> list[str]:
    """What SQLite is asked from now on."""
    asked: list[str] = []
    with store.reading() as connection:
        connection.set_trace_callback(asked.append)
    return asked


OPENING = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n"


def by_another_process(file: Path, code: str) -> None:
    subprocess.run([sys.executable, "-c", OPENING + code, str(file)], check=True)


PUT = (
    "c.execute(\"INSERT INTO hosts (host, pins, include_subdomains, noted_at, source, domain) VALUES ('new.test',"
    " zeroblob(32), 0, 0, 'static', 'new.test')\")\n"
)
WRITES: dict[str, str] = {
    "a commit": PUT,
    "a commit and a checkpoint of all": PUT + "c.execute('PRAGMA wal_checkpoint(TRUNCATE)')",
    # The next writer begins the -wal anew: its head may be as long as before.
    "a checkpoint first": "c.execute('PRAGMA wal_checkpoint(RESTART)')\n" + PUT,
    "VACUUM": PUT + "c.execute('VACUUM')",
    "a commit of many pages": PUT
    + "c.execute('CREATE TABLE big (x)'); c.execute('INSERT INTO big SELECT zeroblob(5000000)')",
    "a crash behind the commit": PUT + "import os; os._exit(0)",
}


@pytest.mark.parametrize("code", WRITES.values(), ids=WRITES)
def test_what_another_process_wrote_is_seen(store: PinStore, file: Path, code: str) -> None:
    assert store.known_host("new.test") is None  # remembered from here on
    before = store.generation()
    by_another_process(file, code)
    assert store.generation() != before
    assert store.known_host("new.test") is not None


def test_nothing_is_asked_while_nobody_writes(store: PinStore, file: Path) -> None:
    store.known_host("first.test")
    generation = store.generation()
    asked = statements(store)
    for _ in range(3):
        assert store.generation() == generation
        assert store.known_host("first.test") is not None
        assert store.validate("first.test", [PIN]).ok
    assert asked == []
    by_another_process(file, PUT)
    assert store.generation() != generation
    assert asked == ["PRAGMA data_version"]


def test_what_another_process_wrote_right_behind_this_one_is_seen(store: PinStore, file: Path) -> None:
    store.known_host("new.test")
    with store.writing() as connection:
        put(connection, KnownPinnedHost("own.test", (PIN,), False, None, 0.0, None, "static"))
        # It waits for the lock, and commits before this one can look again.
        other = subprocess.Popen([sys.executable, "-c", OPENING + PUT, str(file)])
    assert other.wait() == 0
    assert store.known_host("own.test") is not None
    assert store.known_host("new.test") is not None


def test_ones_own_notings_ask_nothing_more(store: PinStore) -> None:
    header = f'pin-sha256="{PIN}"; pin-sha256="{OTHER}"; max-age=1000'
    store.note("a.test", header, [PIN])
    asked = statements(store)
    store.note("b.test", header, [PIN])
    assert store.known_host("b.test") is not None
    assert "PRAGMA data_version" not in asked


def test_a_checkpoint_changes_no_pin(store: PinStore, file: Path) -> None:
    generation = store.generation()
    by_another_process(file, "c.execute('PRAGMA wal_checkpoint(PASSIVE)')")
    assert store.generation() == generation


def test_a_write_that_is_not_committed_is_not_seen(store: PinStore, file: Path) -> None:
    generation = store.generation()
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM hosts")
        assert store.generation() == generation
        assert store.known_host("first.test") is not None
        other.execute("COMMIT")
    assert store.generation() != generation
    assert store.known_host("first.test") is None


def test_a_symbolic_link_leads_to_the_same_index(store: PinStore, file: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(file)
    with PinStore(link) as linked:
        linked.known_host("new.test")
        asked = statements(linked)
        linked.generation()
        assert asked == []
        by_another_process(file, PUT)
        assert linked.known_host("new.test") is not None


# -- another file in its place ----------------------------------------------------------------------------------------


def _repaired(file: Path) -> None:
    check.repair(file, 1e9)
    with PinStore(file) as other:
        other.pin("new.test", [PIN])


def _put_back(file: Path) -> None:
    copy = file.with_name("copy")
    with contextlib.closing(sqlite3.connect(file)) as live, contextlib.closing(sqlite3.connect(copy)) as backup:
        live.backup(backup)
    with PinStore(copy) as other:
        other.pin("new.test", [PIN])
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink()
    copy.replace(file)


@pytest.mark.parametrize("replace", [_repaired, _put_back])
def test_a_file_that_was_replaced_is_opened_anew(store: PinStore, file: Path, replace: Callable[[Path], None]) -> None:
    replace(file)
    # Not at each handshake, which would cost a system call, but whenever the file is read or written.
    assert store.known_host("new.test") is not None
    store.pin("late.test", [PIN])
    with PinStore(file) as other:
        assert {known.host for known in other.hosts()} == {"first.test", "new.test", "late.test"}


def _renamed_away(file: Path) -> None:
    copy = file.with_name("copy")
    shutil.copy(file, copy)
    file.rename(file.with_name("old"))
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    shutil.copy(copy, file)


@pytest.mark.parametrize("replace", [_repaired, _put_back, _renamed_away])
def test_another_file_in_its_place_is_noticed_within_a_second_by_what_asks_no_database(
    file: Path, replace: Callable[[Path], None]
) -> None:
    now = 1e9
    with PinStore(file, clock=lambda: now) as store:
        store.pin("first.test", [PIN])
        generation = store.generation()
        store.known_host("first.test")  # remembered from here on
        asked = statements(store)
        replace(file)
        assert store.now_unless_written(generation) == now
        assert asked == []
        with PinStore(file) as other:
            other.pin("first.test", [OTHER])
        now += 1
        assert store.now_unless_written(generation) is None
        known = store.known_host("first.test")
        assert known is not None
        assert known.pins == (OTHER,)


def test_the_look_at_the_file_waits_for_no_thread_that_holds_the_store(file: Path) -> None:
    now = 1e9
    held, looked = threading.Event(), threading.Event()
    in_time: list[bool] = []
    with PinStore(file, clock=lambda: now) as store:
        generation = store.generation()

        def hold() -> None:
            with store.reading():
                held.set()
                in_time.append(looked.wait(60))

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(60)
        now += 1
        assert store.now_unless_written(generation) == now
        looked.set()
        thread.join()
    assert in_time == [True]


@pytest.mark.parametrize("when", ["at first", "again"])
def test_a_file_that_is_replaced_while_it_is_opened_is_opened_again(
    file: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    # SQLite has the old one open by then, and every look at the path from now on finds the new one.
    now = 1e9
    for path, host in ((file, "old.test"), (file.with_name("next"), "new.test")):
        with PinStore(path) as made:
            made.pin(host, [PIN])

    def open_and_replace(path: Path) -> schema.OpenFile:
        opened = schema.open_database(path)
        with contextlib.suppress(FileNotFoundError):  # once
            file.with_name("next").replace(file)
        return opened

    with contextlib.ExitStack() as stack:
        if when == "again":
            store = stack.enter_context(PinStore(file, clock=lambda: now))
            shutil.copy(file, file.with_name("copy"))
            file.with_name("copy").replace(file)
        monkeypatch.setattr("dynpin.clientstore.store.database.open_database", open_and_replace)
        if when == "at first":
            store = stack.enter_context(PinStore(file, clock=lambda: now))
        assert store.known_host("new.test") is not None
        store.pin("late.test", [PIN])
        with PinStore(file) as other:
            assert {known.host for known in other.hosts()} == {"new.test", "late.test"}


@pytest.mark.parametrize("suffixes", [("",), ("", "-wal", "-shm")])
@pytest.mark.parametrize("act", [lambda store: store.pin("late.test", [PIN]), lambda store: store.known_host("a.test")])
def test_a_file_that_was_removed_is_missed_until_it_is_put_back(
    file: Path, suffixes: tuple[str, ...], act: Callable[[PinStore], object]
) -> None:
    # A new one in its place would have no pins, and the copy that somebody is about to put there would never be read.
    now = 1e9
    with PinStore(file, clock=lambda: now) as store:
        store.pin("first.test", [PIN])
        with PinStore(file.with_name("backup")) as backup:
            backup.pin("first.test", [OTHER])
        for suffix in suffixes:
            file.with_name(file.name + suffix).unlink()
        now += 1
        for _ in range(2):
            with pytest.raises(StoreError, match=r"was removed while it was in use\. To put it back, stop"):
                act(store)
        assert not file.exists()
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        shutil.copy(file.with_name("backup"), file)
        known = store.known_host("first.test")
        assert known is not None
        assert known.pins == (OTHER,)


def test_a_program_that_starts_after_the_file_was_removed_begins_with_no_pins(store: PinStore, file: Path) -> None:
    store.close()
    file.unlink()
    with PinStore(file) as other:
        assert other.hosts() == []


# -- where there is no such index, or another one ---------------------------------------------------------------------


def test_without_an_index_sqlite_is_asked(store: PinStore, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynpin.clientstore.store.database.wal_index", lambda _: None)
    with PinStore(file) as other:
        generation = other.generation()
        asked = statements(other)
        by_another_process(file, PUT)
        assert other.generation() != generation
        assert asked == ["PRAGMA data_version"]
        assert other.known_host("new.test") is not None


def test_an_index_that_does_not_move_with_a_write_is_trusted_no_more(
    store: PinStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = file.with_name("aside")
    with PinStore(aside) as another, monkeypatch.context() as patch:
        another.pin("a.test", [PIN])
        stranger = past_sqlite.wal_index(aside)
        patch.setattr("dynpin.clientstore.store.database.wal_index", lambda _: stranger)
        with PinStore(file) as misled:
            misled.pin("b.test", [PIN])
            assert misled.known_host("new.test") is None
            by_another_process(file, PUT)
            assert misled.known_host("new.test") is not None


def test_a_store_in_memory_asks_nobody() -> None:
    with PinStore.private() as store:
        generation = store.generation()
        asked = statements(store)
        assert store.generation() == generation
        assert asked == []
        store.pin("a.test", [PIN])
        assert store.generation() != generation


# -- what it must not do to SQLite's locks ----------------------------------------------------------------------------

LOCKED = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
c.execute("BEGIN IMMEDIATE")
"""


def test_a_second_store_on_the_file_leaves_the_first_its_locks(store: PinStore, file: Path) -> None:
    # POSIX drops every lock of a process on a file with any descriptor of it that is closed.
    # Another process that then takes itself for the last one removes the -wal, and what is written to it is lost.
    with store.writing() as connection:
        put(connection, KnownPinnedHost("kept.test", (PIN,), False, None, 0.0, None, "static"))
        for _ in range(3):
            child = subprocess.run(
                [sys.executable, "-c", LOCKED, str(file)], capture_output=True, text=True, check=False
            )
            assert "database is locked" in child.stderr
            PinStore(file).close()
    with PinStore(file) as other:
        assert other.known_host("kept.test") is not None


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_descriptors_do_not_pile_up(file: Path) -> None:
    for _ in range(50):
        with PinStore(file) as store:
            store.generation()
            assert descriptors_of(file) > 0
    assert descriptors_of(file) <= 4


def test_threads_whose_files_come_and_go_stand_in_nobodys_way(tmp_path: Path) -> None:
    """Each opening looks through what is held for files that are gone, and two threads may find the same one."""

    def come_and_go(name: int) -> None:
        for number in range(25):
            folder = tmp_path / f"{name}-{number}"
            folder.mkdir()
            with PinStore(folder / "pins") as store:
                store.pin("a.test", [PIN])
            shutil.rmtree(folder)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, range(8)))
