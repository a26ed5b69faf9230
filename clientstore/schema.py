"""The file of the pin store: how it is opened, what is in it, and how an older one is brought up to date."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dynpin.clientstore.advice import BUSY_TIMEOUT_MS, check_command, put_back, store_errors
from dynpin.clientstore.past_sqlite import first_bytes
from dynpin.errors import StoreError

if TYPE_CHECKING:
    from sqlite_utils import Database
    from sqlite_utils.migrations import Migrations

__all__ = [
    "IN_MEMORY",
    "SCHEMA_VERSION",
    "OpenFile",
    "OtherFile",
    "file_stamp",
    "open_database",
    "transaction",
]

IN_MEMORY = ":memory:"
# The number of migrations below; PRAGMA user_version of an up-to-date file.
SCHEMA_VERSION = 3
# "dynp" in ASCII: tells a pin store from any other SQLite file (PRAGMA application_id).
_APPLICATION_ID = 0x64796E70
# How long to wait before the next look whether somebody else still writes, and at most.
_LOOK_AGAIN, _LOOK_AGAIN_AT_LEAST = 0.0001, 0.001


def _migrations() -> Migrations:
    # sqlite-utils is imported when a file must be made or brought up to date, and not on every start: its import
    # costs more than everything else that opening a store does.
    from sqlite_utils.migrations import Migrations  # noqa: PLC0415

    migrations = Migrations("dynpin-clientstore")
    for number, step in enumerate((_hosts_and_reports, _attempts_of_reports, _static_pins_and_uses), start=1):
        migrations(name=f"{number:03}{step.__name__}")(step)
    return migrations


def _hosts_and_reports(db: Database) -> None:
    # Keyed by the host and WITHOUT ROWID, a look-up is one descent of one tree, at a thousand hosts or a million.
    # Never use sqlite-utils' transform() on it, which silently drops WITHOUT ROWID.
    db.conn.execute(
        """
        CREATE TABLE hosts (
            host TEXT PRIMARY KEY,
            pins BLOB NOT NULL,
            include_subdomains INTEGER NOT NULL,
            report_uri TEXT,
            noted_at REAL NOT NULL,
            expires_at REAL,
            source TEXT NOT NULL,
            domain TEXT NOT NULL
        ) WITHOUT ROWID
        """
    )
    db.conn.execute("CREATE INDEX hosts_by_domain ON hosts (domain)")
    # How many rows each registrable domain has, "" for all of them: the bounds must not cost a count of a million.
    db.conn.execute("CREATE TABLE counts (domain TEXT PRIMARY KEY, hosts INTEGER NOT NULL) WITHOUT ROWID")
    db.conn.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID")
    db.table("reports").create(
        {
            "id": int,
            "fingerprint": str,
            "host": str,
            "noted_host": str,
            "report_uri": str,
            "body": str,
            "created_at": float,
            "attempts": int,
            "next_attempt_at": float,
            "sent_at": float,
            "last_error": str,
        },
        pk="id",
        not_null={"fingerprint", "host", "report_uri", "body", "created_at", "attempts"},
    )
    db.table("reports").create_index(["fingerprint"], unique=True)


def _attempts_of_reports(db: Database) -> None:
    # When a report was tried last: attempts are limited by the hour, for all processes together.
    db.table("reports").add_column("attempted_at", float)
    db.table("reports").create_index(["next_attempt_at"])


def _static_pins_and_uses(db: Database) -> None:
    for column in (
        "certificates BLOB NOT NULL DEFAULT x''",
        "on_expiry TEXT NOT NULL DEFAULT 'release'",
        "origin TEXT",
    ):
        db.conn.execute(f"ALTER TABLE hosts ADD COLUMN {column}")
    db.conn.execute("CREATE INDEX hosts_by_origin ON hosts (origin) WHERE origin IS NOT NULL")
    # Static pins of a program that the user has forgotten: they are not preloaded again (RFC 7469 §2.7).
    db.conn.execute("CREATE TABLE overrides (host TEXT PRIMARY KEY) WITHOUT ROWID")
    db.conn.execute(
        "CREATE TABLE uses (host TEXT PRIMARY KEY, count INTEGER NOT NULL, last_at REAL NOT NULL) WITHOUT ROWID"
    )


class OtherFile(StoreError):
    """The file is sound, and not for this dynpin: of a newer one, or of another program. There is nothing to repair."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open pin store.

    Attributes:
        connection: the connection to it.
        read_only: whether nothing can be written to it.
        stamp: what the file looked like, where SQLite takes it for one that nobody writes; else None.
    """

    connection: sqlite3.Connection
    read_only: bool = False
    stamp: tuple[int, ...] | None = None


def open_database(path: Path | str) -> OpenFile:
    """Open the store's file, making it (mode 0600) or bringing it up to date where that is needed.

    Safe when several processes open a new file at once. A file that cannot be written is opened for reading.

    Raises:
        StoreError: where the file cannot be opened, is no pin store, is damaged, or was written by a newer dynpin.
    """
    with store_errors(path):
        if isinstance(path, str):
            return OpenFile(_open_for_writing(path))
        # Looked at in this order, since whoever makes the store makes its -wal afterwards.
        orphaned = _beside(path, "-wal").exists()
        if not path.exists():
            if orphaned:
                raise StoreError(
                    f"the pin store {path} is gone, but {path.name}-wal is still there and may hold its last pins: "
                    f"put that very file back; or, for a backup, {put_back(path)}; or remove the -wal too, to start "
                    "with no pins"
                )
            _make(path)
        if _is_cut_off(path):
            raise StoreError(
                f"the pin store {path} was cut off, and pins with it. To save what is left:  "
                f"{check_command(path, '--repair')}  or, to put a backup in its place, {put_back(path)}; or move the "
                "file away to start with no pins"
            )
        if _is_writable(path):
            return OpenFile(_open_for_writing(path))
        return _open_for_reading(path)


def file_stamp(path: Path) -> tuple[int, ...]:
    """What changes when somebody writes to the file."""
    status = path.stat()
    return (status.st_ino, status.st_size, status.st_mtime_ns, _beside(path, "-wal").exists())


def _make(path: Path) -> None:
    """Make a new store under another name and link it into place, so that no process ever sees half of one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    os.close(descriptor)
    try:
        _open_for_writing(name).close()
        with contextlib.suppress(FileExistsError):  # another process was first
            os.link(name, path)
    finally:
        Path(name).unlink()
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _open_for_writing(path: Path | str) -> sqlite3.Connection:
    connection = _connect(path)
    try:
        current = _version(connection) == SCHEMA_VERSION
        if not current:
            _refuse_other_file(connection, path)  # before the next line changes it
        # WAL with FULL: NORMAL forgets acknowledged notings when the power fails.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA journal_mode=WAL")
        if not current:
            _bring_up_to_date(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _open_for_reading(path: Path) -> OpenFile:
    stamp: tuple[int, ...] | None = None
    connection = _connect(path.absolute().as_uri() + "?mode=ro", uri=True)
    try:
        _version(connection)
    except sqlite3.OperationalError:
        # Reading a WAL file takes a -shm beside it, which cannot be made here. Without a -wal there is nothing to
        # coordinate; with one, reading the file alone would miss the last pins.
        connection.close()
        stamp = file_stamp(path)
        if _beside(path, "-wal").exists() and _beside(path, "-wal").stat().st_size:
            raise StoreError(
                f"the pin store {path} cannot be read: {path.name}-wal holds pins that are not merged yet, and the "
                "folder cannot be written. Make it writable, or copy both files to a folder that is"
            ) from None
        connection = _connect(path.absolute().as_uri() + "?mode=ro&immutable=1", uri=True)
    try:
        version = _version(connection)
    except BaseException:
        connection.close()
        raise
    if version != SCHEMA_VERSION:
        connection.close()
        raise _other_version(path, version)
    return OpenFile(connection, True, stamp)


def _connect(path: Path | str, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT_MS / 1000,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        uri=uri,
    )


def _is_cut_off(path: Path) -> bool:
    """Whether the file ends before a page does: SQLite takes an empty one for new, and zeros for what is missing."""
    size = path.stat().st_size
    header = first_bytes(path, 18)
    page_size = int.from_bytes(header[16:18])
    return size == 0 or (
        header.startswith(b"SQLite format 3\0") and size % (65_536 if page_size == 1 else page_size or 1) != 0
    )


def _is_writable(path: Path) -> bool:
    # SQLite makes its -wal and -shm in the folder.
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _refuse_other_file(connection: sqlite3.Connection, path: Path | str) -> None:
    version = _version(connection)
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != _APPLICATION_ID and tables:
        raise OtherFile(f"{path} is an SQLite database of another program, not a pin store; name another file")
    if version > SCHEMA_VERSION:
        raise _other_version(path, version)


def _bring_up_to_date(connection: sqlite3.Connection, path: Path | str) -> None:
    from sqlite_utils import Database  # noqa: PLC0415 - see _migrations

    with transaction(connection):
        _refuse_other_file(connection, path)  # again: another process may have been first
        if _version(connection) == SCHEMA_VERSION:
            return
        _migrations().apply(Database(connection))
        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _other_version(path: Path | str, version: int) -> OtherFile:
    if version > SCHEMA_VERSION:
        return OtherFile(
            f"the pin store {path} was written by a newer dynpin (schema {version}, this one knows {SCHEMA_VERSION}); "
            "upgrade dynpin, or use another store file"
        )
    return OtherFile(
        f"the pin store {path} was written by an older dynpin (schema {version}) and must be brought up to date to "
        f"{SCHEMA_VERSION}, but it cannot be written; make the file and its folder writable once"
    )


@contextmanager
def transaction(connection: sqlite3.Connection, *, wait: bool = True) -> Generator[None]:
    """Hold the write lock of the file from the first read to the commit; roll back on any error."""
    _begin(connection, BUSY_TIMEOUT_MS / 1000 if wait else 0.0)
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _begin(connection: sqlite3.Connection, patience: float) -> None:
    # SQLite's own waiting sleeps up to a tenth of a second: with eight writers the file would lie idle half the time.
    deadline, pause = time.monotonic() + patience, _LOOK_AGAIN
    connection.execute("PRAGMA busy_timeout=0")
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() >= deadline:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, _LOOK_AGAIN_AT_LEAST)
            else:
                return
    finally:
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
