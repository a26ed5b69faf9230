"""The file of the pin store: how it is opened, what is in it, and how an older one is brought up to date."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dynpin.errors import StoreError

if TYPE_CHECKING:
    from sqlite_utils import Database
    from sqlite_utils.migrations import Migrations

__all__ = ["IN_MEMORY", "SCHEMA_VERSION", "open_database", "store_error", "store_errors", "transaction"]

IN_MEMORY = ":memory:"
# The number of migrations below; PRAGMA user_version of an up-to-date file.
SCHEMA_VERSION = 2
# "dynp" in ASCII: tells a pin store from any other SQLite file (PRAGMA application_id).
_APPLICATION_ID = 0x64796E70
_BUSY_TIMEOUT_MS = 30_000


def _migrations() -> Migrations:
    # sqlite-utils is imported when a file must be made or brought up to date, and not on every start: its import
    # costs more than everything else that opening a store does.
    from sqlite_utils.migrations import Migrations  # noqa: PLC0415

    migrations = Migrations("dynpin-clientstore")
    for number, step in enumerate((_hosts_and_reports, _attempts_of_reports), start=1):
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


def open_database(path: Path | str) -> sqlite3.Connection:
    """Open the store's file, making it (mode 0600) or bringing it up to date where that is needed.

    Safe when several processes open a new file at once.

    Raises:
        StoreError: where the file cannot be opened, is no pin store, is damaged, or was written by a newer dynpin.
    """
    with store_errors(path):
        if path != IN_MEMORY:
            _make_private_file(Path(path))
        connection = sqlite3.connect(
            path, timeout=_BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            # WAL with FULL: NORMAL forgets acknowledged notings when the power fails.
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA journal_mode=WAL")
            if _version(connection) != SCHEMA_VERSION:
                _bring_up_to_date(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def _make_private_file(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _bring_up_to_date(connection: sqlite3.Connection, path: Path | str) -> None:
    from sqlite_utils import Database  # noqa: PLC0415 - see _migrations

    with transaction(connection):
        version = _version(connection)  # again: another process may have been first
        if version == SCHEMA_VERSION:
            return
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"the pin store {path} was written by a newer dynpin (schema {version}, this one knows "
                f"{SCHEMA_VERSION}); upgrade dynpin, or use another store file"
            )
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != _APPLICATION_ID and tables:
            raise StoreError(f"{path} is an SQLite database of another program, not a pin store; name another file")
        _migrations().apply(Database(connection))
        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Hold the write lock of the file from the first read to the commit; roll back on any error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def store_errors(path: Path | str) -> Generator[None]:
    """Turn what SQLite and the file system raise into a StoreError that names the file and the way out."""
    try:
        yield
    except StoreError:
        raise
    except (sqlite3.Error, OSError) as error:
        raise store_error(path, error) from error


def store_error(path: Path | str, error: sqlite3.Error | OSError) -> StoreError:
    """The StoreError that says what happened to the file, and what to do."""
    if isinstance(error, OSError):
        return StoreError(f"the pin store {path} cannot be used: {error}; check the folder and its permissions")
    return StoreError(f"the pin store {path} cannot be used: {error}. {_advice(error)}")


def _advice(error: sqlite3.Error) -> str:
    text = str(error)
    if "readonly" in text or "unable to open" in text:
        return "Check the permissions of the file and of its folder."
    if "full" in text:
        return "The disk is full: nothing was lost, free some space and try again."
    if "locked" in text:
        return f"Another process has held it for {_BUSY_TIMEOUT_MS // 1000} seconds."
    return (
        "Nothing is enforced or sent until it is mended: run `dynpin hosts check`, or move the file away to start "
        "with no pins."
    )
