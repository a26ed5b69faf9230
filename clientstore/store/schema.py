"""The tables of a pin store, how to create a new file, and how to recognise one."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path

from dynpin.errors import StoreError

from .advice import carry_over, check_command, nothing_to_save, put_back
from .files import log_of, making

__all__ = ["SCHEMA", "OtherFile", "check_head", "create"]

_VERSION = 1
# "dynp" in ASCII: marks a pin store among SQLite files (PRAGMA application_id).
_APPLICATION_ID = 0x64796E70

SCHEMA = f"""
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
-- Keyed by the host and WITHOUT ROWID: a look-up reads one tree, with a thousand hosts or a million.
CREATE TABLE hosts (
    host TEXT PRIMARY KEY,
    pins BLOB NOT NULL,                     -- 32 bytes each
    certificates BLOB NOT NULL,             -- 32 bytes each
    include_subdomains INTEGER NOT NULL,
    report_uri TEXT,
    noted_at REAL NOT NULL,                 -- seconds since the epoch, UTC, as all times
    expires_at REAL,
    source TEXT NOT NULL,                   -- "header" or "static"
    on_expiry TEXT NOT NULL,                -- "release" or "refuse"
    origin TEXT,
    recovery_root BLOB,                     -- 32 bytes; the seven columns of recovery are those of NotedRecovery
    recovery_uri TEXT,
    recovery_until REAL,
    list_version INTEGER,
    offered_root BLOB,
    offered_uri TEXT,
    offered_at REAL,
    reversed TEXT NOT NULL,                 -- the host, its labels from right to left, with a dot behind each
    digest BLOB NOT NULL                    -- of all columns above: SQLite does not detect a page in the wrong place
) WITHOUT ROWID;
-- The hosts noted from headers, by name, for the limits. It has all columns of their queries: otherwise SQLite reads
-- each row for the others, and with a million hosts a noting takes 4 s.
CREATE INDEX noted ON hosts (reversed, source, origin) WHERE source = 'header' AND origin IS NULL;
-- What programs preload, by the file that they ship.
CREATE INDEX preloaded ON hosts (origin) WHERE source = 'static' AND origin IS NOT NULL;
-- The hosts that a signed list may change.
CREATE INDEX recoverable ON hosts (recovery_root) WHERE recovery_root IS NOT NULL;
-- Static pins of a program that the user has forgotten: they are not preloaded again (RFC 7469 §2.7).
CREATE TABLE overrides (host TEXT PRIMARY KEY) WITHOUT ROWID;
-- Hosts that were not noted because of a limit, the last one of each scope.
CREATE TABLE refusals (
    scope TEXT PRIMARY KEY, host TEXT NOT NULL, bound INTEGER NOT NULL, refused_at REAL NOT NULL
) WITHOUT ROWID;
-- The signed lists: each has a root and the address of its files.
CREATE TABLE looks (
    root BLOB NOT NULL,
    uri TEXT NOT NULL,
    is_followed INTEGER NOT NULL,           -- by a program: fetched daily; else only after a refusal
    attempts INTEGER NOT NULL,
    looked_at REAL,
    next_look_at REAL,
    leased_until REAL,                      -- a process is looking at it now
    outcome TEXT,
    PRIMARY KEY (root, uri)
) WITHOUT ROWID;
-- The hosts that were refused, and the list that may have new pins for each: it changes these hosts only.
CREATE TABLE asked (
    host TEXT PRIMARY KEY,
    root BLOB NOT NULL,
    uri TEXT NOT NULL,
    asked_at REAL NOT NULL                  -- the time of the last refused connection
) WITHOUT ROWID;
CREATE INDEX asked_by_list ON asked (root, uri);
-- The trusted files of each root: those of TUF's client, or a signing key and the date of its last list.
CREATE TABLE trusted (root BLOB NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (root, name));
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE reports (
    id INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL,
    noted_host TEXT NOT NULL,
    domain TEXT NOT NULL,                   -- the registrable domain of noted_host
    report_uri TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at REAL NOT NULL,
    attempts INTEGER NOT NULL,
    next_attempt_at REAL,
    sent_at REAL,
    last_error TEXT
);
CREATE INDEX reports_by_attempt ON reports (next_attempt_at);
-- The attempts to send reports, one row each: those of the last hour are counted, in all and for each domain.
CREATE TABLE attempts (attempted_at REAL NOT NULL, domain TEXT NOT NULL);
"""


class OtherFile(StoreError):
    """The file is of another program or of another version of dynpin. There is nothing to repair in it.

    It was not changed.
    """


def create(path: Path) -> None:
    """Create a new store, mode 0600, whole or not at all. If another process was first, do nothing.

    Raises:
        StoreError: if there is a log without its store.
        OSError: if the folder cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with making(path):
        if path.exists():
            return
        log = log_of(path)
        if log.exists() and log.stat().st_size:
            raise StoreError(
                f"the pin store {path} is gone, but {log.name} is still there and may hold its last pins: "
                f"put that very file back; or, for a backup, {put_back(path)}; or remove the -wal too, to start "
                "with no pins"
            )
        log.unlink(missing_ok=True)  # an empty one
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        os.close(descriptor)
        try:
            with contextlib.closing(sqlite3.connect(name, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")
            Path(name).rename(path)  # on Windows an error if another process was first
        except FileExistsError:
            Path(name).unlink()
        except BaseException:
            for suffix in ("", "-wal", "-shm"):
                Path(name + suffix).unlink(missing_ok=True)
            raise


def check_head(path: Path) -> None:
    """Check that a file is a pin store of a known version, and that it was not cut off.

    Creates nothing beside the file: that is the use of SQLite's ``immutable``.

    Raises:
        OtherFile: if it is not a pin store, or that of another version of dynpin.
        StoreError: if it was cut off.
        sqlite3.Error: if it is not a database.
    """
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
    with contextlib.closing(connection):
        # If another process is merging the log, or was killed while it did, the head names pages that are only in the
        # log. Without locks SQLite takes that for damage. This setting makes it accept the file.
        connection.execute("PRAGMA writable_schema=ON")
        # Only the head is read, so that a large file takes no longer than a small one.
        ((application,),) = connection.execute("PRAGMA application_id").fetchall()
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        ((page_size,),) = connection.execute("PRAGMA page_size").fetchall()
    size = path.stat().st_size
    if size == 0:  # which SQLite takes for a new database
        raise StoreError(f"the pin store {path} is empty: it was cut off, or is none. {nothing_to_save(path)}")
    if application != _APPLICATION_ID:
        raise OtherFile(f"{path} is an SQLite database of another program, not a pin store; name another file")
    if version != _VERSION:
        found = f"(schema {version}, this one knows {_VERSION})"
        if version > _VERSION:
            raise OtherFile(
                f"the pin store {path} was written by a newer dynpin {found}; upgrade dynpin, or use another store file"
            )
        raise OtherFile(f"the pin store {path} was written by an older dynpin {found}. {carry_over()}")
    if size % page_size:  # SQLite reads zeros for what is missing
        raise StoreError(
            f"the pin store {path} was cut off, and pins with it. To save what is left:  "
            f"{check_command(path, '--repair')}  or, to put a backup in its place, {put_back(path)}; or move the "
            "file away to start with no pins"
        )
