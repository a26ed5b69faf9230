"""PinStore (RFC 7469 §2.3.3): one file, shared by threads and processes, durable before a noting returns."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dynpin import InvalidHost, Pin, StoreError
from dynpin.clientstore import PinStore

from ..clock import Clock
from ..scenarios import Scenario, each_scenario, run

LEAF, BACKUP, OTHER = (Pin(bytes([number]) * 32) for number in (1, 2, 5))
DAY = 86_400


def header(*pins: Pin, max_age: int = 1000, more: str = "") -> str:
    return "; ".join([*(f'pin-sha256="{pin}"' for pin in pins), f"max-age={max_age}"]) + more


class Kept:
    """A PinStore on a file, with the interface of the scenarios."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock
        self._store = PinStore(path, clock=clock)
        self.note, self.validate = self._store.note, self._store.validate
        self.known_host, self.forget = self._store.known_host, self._store.forget

    def count(self) -> int:
        return len(self._store)

    def close(self) -> None:
        self._store.close()

    def reopen(self) -> None:
        self.close()
        self.__init__(self._path, self._clock)  # type: ignore[misc] # the same file, from the beginning


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "pins.sqlite"


@pytest.fixture
def store(file: Path, clock: Clock) -> Generator[PinStore]:
    with PinStore(file, clock=clock) as store:
        yield store


@each_scenario
def test_scenario(scenario: Scenario, tmp_path: Path) -> None:
    with contextlib.ExitStack() as opened:
        run(scenario, lambda clock: opened.enter_context(contextlib.closing(Kept(tmp_path / "pins", clock))))


# -- its place --------------------------------------------------------------------------------------------------------


def test_the_file_is_private_and_so_are_its_companions(store: PinStore, file: Path) -> None:
    store.note("a.test", header(LEAF, BACKUP), [LEAF])
    companions = sorted(path.name for path in file.parent.iterdir())
    assert companions == ["pins.sqlite", "pins.sqlite-shm", "pins.sqlite-wal"]
    for path in file.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_without_a_path_it_is_in_the_users_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with PinStore() as store:
        assert store.path == tmp_path / "dynpin" / "pins.sqlite"
        assert store.is_default


def test_it_writes_ahead_and_waits_for_the_disk(store: PinStore) -> None:
    def ask(connection: sqlite3.Connection) -> list[object]:
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]

    assert store.database.write(ask) == ["wal", 2]  # FULL


def test_the_hosts_table_has_no_rowid_and_a_lookup_searches_by_key(store: PinStore) -> None:
    with pytest.raises(StoreError, match="rowid"):
        store.database.select("SELECT rowid FROM hosts")
    plan = store.database.select("EXPLAIN QUERY PLAN SELECT * FROM hosts WHERE host IN ('a', 'b')")
    assert [row[3] for row in plan] == ["SEARCH hosts USING PRIMARY KEY (host=?)"]


def test_a_closed_store_says_so(store: PinStore) -> None:
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.known_host("a.test")


def test_an_empty_store_is_true(store: PinStore) -> None:
    assert len(store) == 0
    assert store


@pytest.mark.parametrize("call", ["known_host", "forget"])
@pytest.mark.parametrize("name", ["", "a..b", "under score.test", "x" * 64 + ".test", "a/b"])
def test_an_invalid_name_is_refused(store: PinStore, call: str, name: str) -> None:
    with pytest.raises(InvalidHost):
        getattr(store, call)(name)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        PinStore(path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert [row[0] for row in other.execute("SELECT name FROM sqlite_master")] == ["theirs"]
    assert len(path.read_bytes()) == len(before)


def test_a_newer_schema_is_not_touched(store: PinStore, file: Path) -> None:
    store.close()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 999")
    with pytest.raises(StoreError, match="newer dynpin"):
        PinStore(file)


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "pins"
    path.write_text("these are not the pins you are looking for, but somebody's notes " * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="Name another file"):
        PinStore(path)
    assert path.read_bytes() == before


# -- writing ----------------------------------------------------------------------------------------------------------


def writes(store: PinStore, act: Callable[[], object]) -> int:
    """How many commits of `act` another connection sees."""
    with sqlite3.connect(store.path) as watcher:
        before = watcher.execute("PRAGMA data_version").fetchone()[0]
        act()
        after = watcher.execute("PRAGMA data_version").fetchone()[0]
    watcher.close()
    return int(after - before)


def test_a_busy_client_does_not_write_on_every_response(store: PinStore, clock: Clock) -> None:
    def respond() -> None:
        assert store.note("a.test", header(LEAF, BACKUP, max_age=DAY), [LEAF]).outcome in ("noted", "updated")

    assert writes(store, respond) == 1
    clock.now += 0.009 * DAY
    assert writes(store, respond) == 0
    clock.now += 0.002 * DAY  # more than 1 % of max-age since it was written
    assert writes(store, respond) == 1
    known = store.known_host("a.test")
    assert known is not None
    assert known.expires_at == clock.now + DAY


def test_a_shorter_max_age_is_written_at_once(store: PinStore, clock: Clock) -> None:
    store.note("a.test", header(LEAF, BACKUP, max_age=DAY), [LEAF])
    clock.now += 1
    assert writes(store, lambda: store.note("a.test", header(LEAF, BACKUP, max_age=DAY - 10), [LEAF])) == 1
    known = store.known_host("a.test")
    assert known is not None
    assert known.expires_at == clock.now + DAY - 10


@pytest.mark.parametrize("more", ["; includeSubDomains", '; report-uri="https://r.test/"'])
def test_other_metadata_is_written_at_once(store: PinStore, more: str) -> None:
    store.note("a.test", header(LEAF, BACKUP), [LEAF])
    assert writes(store, lambda: store.note("a.test", header(LEAF, BACKUP, more=more), [LEAF])) == 1


def test_a_response_without_pins_asks_nothing_of_the_file(store: PinStore, file: Path) -> None:
    file.unlink()
    assert store.note("a.test", [], [LEAF]).section == "2.3.1"
    with pytest.raises(StoreError, match="removed"):
        store.note("a.test", header(LEAF, BACKUP), [LEAF])


def test_months_on_one_connection_are_no_jump_of_the_clock(file: Path, clock: Clock) -> None:
    with PinStore(file, clock=clock, on_clock_jump="refuse") as store:
        store.note("a.test", header(LEAF, BACKUP, max_age=50 * DAY), [LEAF])
        for _ in range(4):
            clock.now += 20 * DAY
            store.note("a.test", [], [LEAF])
        assert store.known_host("a.test") is None  # its pins have expired normally, which refuses nothing


def test_of_several_fields_the_first_counts(store: PinStore) -> None:
    assert store.note("a.test", [header(LEAF, BACKUP), header(LEAF, OTHER)], [LEAF]).outcome == "noted"
    assert store.note("b.test", ["nonsense", header(LEAF, BACKUP)], [LEAF]).outcome == "ignored"
    assert store.note("c.test", [], [LEAF]).outcome == "ignored"
    joined = ", ".join([header(LEAF, BACKUP), header(LEAF, OTHER)])
    assert store.note("d.test", joined, [LEAF]).outcome == "ignored"
    assert [(known.host, known.pins) for known in store.hosts()] == [("a.test", (LEAF, BACKUP))]


# -- static pins ------------------------------------------------------------------------------------------------------


def test_headers_do_not_change_a_static_pin_until_it_expires(store: PinStore, clock: Clock) -> None:
    store.pin("a.test", [LEAF, BACKUP], expires_at=clock.now + 10)
    for value in (header(LEAF, OTHER), "max-age=0"):
        assert store.note("a.test", value, [LEAF]).outcome == "ignored"
    assert not store.validate("a.test", [OTHER]).ok
    clock.now += 11
    assert store.validate("a.test", [OTHER]).ok
    assert store.note("a.test", header(LEAF, OTHER), [LEAF]).outcome == "noted"


@pytest.mark.parametrize(("host", "pins"), [("127.0.0.1", [LEAF]), ("a.test", [])])
def test_a_static_pin_needs_a_name_and_a_pin(store: PinStore, host: str, pins: list[Pin]) -> None:
    with pytest.raises(ValueError, match=host):
        store.pin(host, pins)


# -- threads, processes, forks ----------------------------------------------------------------------------------------


def test_a_read_is_right_when_another_process_has_written(store: PinStore, file: Path, clock: Clock) -> None:
    assert store.known_host("a.test") is None  # cached from here on
    with PinStore(file, clock=clock) as other:
        other.note("a.test", header(LEAF, BACKUP), [LEAF])
    assert store.known_host("a.test") is not None
    with PinStore(file, clock=clock) as other:
        other.forget("a.test")
    assert store.known_host("a.test") is None


def test_many_threads_share_a_store(store: PinStore) -> None:
    def work(number: int) -> None:
        for turn in range(10):
            host = f"h{turn}.t{number}.example"
            assert store.note(host, header(LEAF, BACKUP), [LEAF]).outcome == "noted"
            assert not store.validate(host, [OTHER]).ok
            assert turn % 2 == 0 or store.forget(host)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(store) == 8 * 5


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_store_in_memory_survives_a_fork() -> None:
    with PinStore(":memory:") as store:
        store.pin("a.test", [LEAF])
        child = os.fork()
        if child == 0:
            os._exit(0 if store.known_host("a.test") else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


NOTER = """
import sys
from dynpin import Pin
from dynpin.clientstore import PinStore
leaf, backup = (Pin(bytes([n]) * 32) for n in (1, 2))
store = PinStore(sys.argv[1])
for number in range(200):
    noting = store.note(f"h{number}.test", f'pin-sha256="{leaf}"; pin-sha256="{backup}"; max-age=1000', [leaf])
    assert noting.outcome == "noted", noting
    print(number, flush=True)
"""


@pytest.mark.parametrize("kill_after", [0, 1, 7, 50, 120, 199])
def test_a_noting_that_returned_survives_sigkill(file: Path, kill_after: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", NOTER, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    returned = -1
    for line in process.stdout:
        returned = int(line)
        if returned == kill_after:
            process.send_signal(signal.SIGKILL)
    process.stdout.close()
    process.wait()
    with PinStore(file) as store:
        for number in range(returned + 1):
            assert store.known_host(f"h{number}.test") is not None
        # At most one more noting was in progress.
        assert len(store) - (returned + 1) in (0, 1)
        assert store.note("after.test", header(LEAF, BACKUP), [LEAF]).outcome == "noted"
