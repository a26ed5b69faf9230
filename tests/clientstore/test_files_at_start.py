"""What a store may find at its path when it starts, and how it creates a new file."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import sqlite3
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dynpin import KnownPinnedHost, StoreError
from dynpin.clientstore import PinStore, enforce
from dynpin.clientstore.store import check, database, repair
from dynpin.clientstore.store.connection import OpenConnection
from tests.small_disk import mounted

from .files import IN_ANOTHER_PROCESS, LEAF, OTHER, beside, pin_elsewhere
from .opened import open_files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pins.sqlite"


# -- at the start -----------------------------------------------------------------------------------------------------


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (Path.mkdir, "a folder"),
    "pipe": (os.mkfifo, "a named pipe"),
    "socket": (make_socket, "a socket"),
    "device": (lambda path: path.symlink_to("/dev/null"), "a device"),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_path_that_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    make, said = KINDS[kind]
    path = tmp_path / "p"
    make(path)
    with pytest.raises(StoreError, match=f"is not a file but {said}"):
        PinStore(path)
    assert [each.name for each in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("version", [0, 1, 3])
def test_another_programs_database_is_refused_and_untouched(file: Path, mode: str, version: int) -> None:
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute(f"PRAGMA journal_mode={mode}")
        other.execute(f"PRAGMA user_version={version}")
        other.execute("CREATE TABLE theirs (x)")
        other.commit()
    before = file.read_bytes()
    with pytest.raises(StoreError, match="of another program"):
        PinStore(file)
    assert file.read_bytes() == before
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_a_backup_in_another_journal_mode_is_accepted_and_survives_a_kill(file: Path) -> None:
    with PinStore(file.with_name("old.sqlite")) as store:
        store.pin("bank.test", [LEAF])
        with contextlib.closing(sqlite3.connect(store.path)) as other:
            other.execute(f"VACUUM INTO '{file}'")
    script = IN_ANOTHER_PROCESS.replace("store.pin(", "__import__('threading').get_ident(); store.pin(")
    subprocess.run([sys.executable, "-c", script + "    __import__('os')._exit(0)", str(file), "b.test"], check=True)
    with PinStore(file) as store:
        assert {known.host for known in store.hosts()} == {"bank.test", "b.test"}
        assert store.database.select("PRAGMA journal_mode") == [("wal",)]


def test_enforcing_opens_nothing_so_that_a_server_can_fork_its_workers(file: Path) -> None:
    with PinStore(file) as store:
        enforce(ssl.create_default_context(), store)
        assert open_files(file.parent) == []


@pytest.mark.parametrize("value", ["NULL", "'yesterday'", "x'00'", "1e300", "9e999"])
def test_a_last_time_that_is_damaged_refuses_nothing(file: Path, value: str) -> None:
    with PinStore(file) as store:
        store.pin("bank.test", [LEAF])
        store.database.write(lambda connection: connection.execute(f"UPDATE facts SET value = {value}"))
    with PinStore(file) as store:
        assert not store.validate("bank.test", [OTHER]).ok
    assert check(file, 1_800_000_000.0) == []


def test_a_file_whose_schema_has_a_damaged_letter_is_damage(file: Path) -> None:
    with PinStore(file) as store:
        store.pin("bank.test", [LEAF])
    data = file.read_bytes()
    file.write_bytes(data.replace(b"CREATE TABLE facts", b"CREATE TABLE f\xffcts"))
    with pytest.raises(StoreError, match="--repair"):
        PinStore(file)
    assert check(file, 0.0)


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        (["DROP INDEX noted"], ["the index noted is missing"]),
        (
            ["CREATE TRIGGER gone AFTER INSERT ON hosts BEGIN DELETE FROM hosts; END"],
            ["dynpin did not make the trigger 'gone'"],
        ),
        (
            ["ALTER TABLE hosts RENAME TO kept", "CREATE VIEW hosts AS SELECT * FROM kept WHERE 0"],
            [
                "the table hosts is missing",
                "dynpin did not make the table 'kept'",
                "dynpin did not make the view 'hosts'",
            ],
        ),
        (["ANALYZE"], []),
    ],
    ids=["index", "trigger", "view", "statistics"],
)
def test_parts_that_are_not_dynpins_are_found_and_repaired(file: Path, changes: list[str], faults: list[str]) -> None:
    with PinStore(file, clock=lambda: 0.0) as store:
        store.pin("bank.test", [LEAF])
    with contextlib.closing(sqlite3.connect(file)) as connection:
        for change in changes:
            connection.execute(change)
        connection.commit()
    assert check(file, 0.0) == faults
    if faults and "view" not in changes[-1].lower():
        assert repair(file, 0.0).kept == 1
        assert check(file, 0.0) == []


@pytest.mark.parametrize(
    "change",
    [
        {"host": "BANK.Test"},
        {"host": "127.0.0.1"},
        {"expires_at": float("nan")},
        {"noted_at": float("inf")},
        {"source": "elsewhere"},
        {"pins": ()},
    ],
)
def test_an_entry_that_could_not_be_read_back_is_not_merged(file: Path, change: dict[str, Any]) -> None:
    entry = replace(KnownPinnedHost("bank.test", (LEAF,), False, None, 1e9, 2e9), **change)
    with PinStore(file) as store:
        with pytest.raises(
            ValueError, match=r"not an entry that a store can hold|not a time within the years|is an IP address"
        ):
            store.merge([entry])
        assert store.hosts() == []


def test_a_hard_link_is_refused_and_a_symbolic_one_followed(file: Path) -> None:
    with PinStore(file) as store:
        store.pin("bank.test", [LEAF])
    link = file.with_name("link.sqlite")
    link.symlink_to(file)
    with PinStore(link) as store:
        assert store.path == file
        assert not store.validate("bank.test", [OTHER]).ok
    link.unlink()
    os.link(file, link)
    for path in (file, link):
        with pytest.raises(StoreError, match="has 2 names"):
            PinStore(path)


def test_a_link_into_another_folder_is_judged_by_that_folder(tmp_path: Path) -> None:
    real, links = tmp_path / "real", tmp_path / "links"
    real.mkdir()
    links.mkdir()
    (links / "pins.sqlite").symlink_to(real / "pins.sqlite")  # the target does not exist yet
    with PinStore(links / "pins.sqlite") as store:
        store.pin("bank.test", [LEAF])
        assert sorted(path.name for path in links.iterdir()) == ["pins.sqlite"]
        # The last pins are in the log beside the real file, and are visible by both names.
        with PinStore(real / "pins.sqlite") as other, PinStore(links / "pins.sqlite") as again:
            assert not other.validate("bank.test", [OTHER]).ok
            assert not again.validate("bank.test", [OTHER]).ok


@pytest.fixture
def read_only_medium(tmp_path: Path) -> Iterator[Path]:
    """A folder on a read-only file system; the test fills it before it is sealed."""
    with mounted(tmp_path / "medium", 8) as folder:
        yield folder


def seal(medium: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", medium], check=True)


@pytest.mark.parametrize("by_link", [False, True], ids=["path", "link"])
@pytest.mark.parametrize("merged", [False, True], ids=["log", "merged"])
def test_a_read_only_medium(read_only_medium: Path, tmp_path: Path, by_link: bool, merged: bool) -> None:
    source = tmp_path / "source.sqlite"
    with PinStore(source) as store:
        store.pin("bank.test", [LEAF])
        if not merged:
            for suffix in ("", "-wal"):
                shutil.copy(beside(source, suffix), read_only_medium / f"pins.sqlite{suffix}")
    if merged:
        shutil.copy(source, read_only_medium / "pins.sqlite")
    seal(read_only_medium)
    path = read_only_medium / "pins.sqlite"
    if by_link:
        (tmp_path / "link.sqlite").symlink_to(path)
        path = tmp_path / "link.sqlite"
    if not merged:
        with pytest.raises(StoreError, match="holds pins that are not merged yet"):
            PinStore(path)
        return
    with PinStore(path) as store:
        assert store.read_only
        assert not store.validate("bank.test", [OTHER]).ok


def test_a_file_that_takes_no_lock_and_changes_while_it_is_read_is_refused(file: Path) -> None:
    with PinStore(file) as store:
        store.pin("bank.test", [LEAF])
    with PinStore(file) as store:
        database: Any = store.database
        reader = database._opened("mode=ro&immutable=1")  # as if the folder could not be written
        reader.stamp = database._stamp()
        database._idle = [reader]

        def change(_: str) -> None:
            pin_elsewhere(file, "later.test")

        reader.set_trace_callback(change)
        with pytest.raises(StoreError, match="changed while it was read; try again"):
            store.known_host("later.test")
        assert store.known_host("later.test") is not None


# -- a new file -------------------------------------------------------------------------------------------------------


def test_a_folder_without_hard_links_and_locks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as exFAT and some network mounts; SQLite works there."""
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with PinStore(file) as store:
        store.pin("bank.test", [LEAF])
        assert not store.validate("bank.test", [OTHER]).ok


@pytest.mark.parametrize(
    ("name", "number", "works"),
    [
        *(("fsync", errno.EINVAL, True), ("fsync", errno.ENOTSUP, True), ("open", errno.EACCES, True)),
        *(("fsync", errno.EIO, False), ("open", errno.EIO, False)),
    ],
)
def test_a_folder_that_cannot_be_synced_or_listed(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int, works: bool
) -> None:
    """As SQLite does: it writes into such a folder. A fault of the disk is told."""
    real = getattr(os, name)

    def refuse_folders(what: Any, *arguments: Any, **options: Any) -> Any:
        if stat.S_ISDIR(os.fstat(what).st_mode) if isinstance(what, int) else Path(what).is_dir():
            raise OSError(number, os.strerror(number))
        return real(what, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, name, refuse_folders)
        if not works:
            with pytest.raises(StoreError, match=os.strerror(number)):
                PinStore(file)
            return
        with PinStore(file) as store:
            store.pin("bank.test", [LEAF])
    with PinStore(file) as store:
        assert not store.validate("bank.test", [OTHER]).ok


def test_many_make_one_store_at_once_and_each_keeps_its_pins(file: Path) -> None:
    start = threading.Barrier(8)

    def make(number: int) -> None:
        start.wait()
        with PinStore(file) as store:
            store.pin(f"h{number}.test", [LEAF])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(8)))
    with PinStore(file) as store:
        assert len(store) == 8
    assert not [path for path in file.parent.iterdir() if path.name.startswith(".")]


def test_a_store_opens_while_the_last_connection_of_another_closes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite removes the log with the last connection, and the next one makes a new log."""
    late = PinStore(file)
    late.rest()
    seen: list[int] = []

    class Closed(sqlite3.Connection):
        def close(self) -> None:
            super().close()
            if not beside(file, "-wal").exists() and not seen:
                seen.append(len(late))

    class Closing(OpenConnection, Closed):
        """Is the last one, and has removed the log when it tells the others that it is closed."""

    with monkeypatch.context() as patch:
        patch.setattr(database, "OpenConnection", Closing)
        with PinStore(file) as store:
            store.pin("bank.test", [LEAF])
    assert seen == [1]
    late.close()


def test_an_empty_log_without_a_store_is_no_hindrance(file: Path) -> None:
    beside(file, "-wal").touch()
    with PinStore(file) as store:
        assert len(store) == 0


def test_descriptors_are_given_back(file: Path) -> None:
    for number in range(40):
        with PinStore(file, partition=str(number)) as store:
            store.pin("bank.test", [LEAF])
            assert open_files(store.path)
        assert open_files(file.parent) == []
    stores = [PinStore(file, partition=str(number)) for number in range(40)]
    assert open_files(file.parent) == []  # nothing is open before the first use
    for store in stores:
        store.close()


def test_the_environment_names_the_users_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNPIN_STORE", str(tmp_path / "named.sqlite"))
    with PinStore() as store:
        assert store.path == tmp_path / "named.sqlite"
        assert store.is_default


@pytest.mark.parametrize("moment", [float("inf"), float("nan"), 1e300, -1e300])
def test_a_time_that_no_date_can_hold_is_refused(file: Path, moment: float) -> None:
    with PinStore(file) as store:
        with pytest.raises(ValueError, match="not a time"):
            store.pin("bank.test", [LEAF], expires_at=moment)
        assert store.hosts() == []


def test_a_platform_without_fork_and_fcntl(tmp_path: Path) -> None:
    script = """
import os, ssl, sys
del os.register_at_fork, os.fork
sys.modules["fcntl"] = None
from dynpin import Pin
from dynpin.clientstore import PinStore, enforce
with PinStore(sys.argv[1]) as store:
    store.pin("a.test", [Pin(bytes(32))])
    assert not store.validate("a.test", [Pin(bytes([1]) * 32)]).ok
    enforce(ssl.create_default_context(), store)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "pins.sqlite")], check=True, timeout=240)
