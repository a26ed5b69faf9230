"""The file of the collector: what is in it, and how it is made and opened.

Readable with Datasette as it is: times are seconds since the epoch, and the view ``readable_reports`` has them as text.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from dynpin.errors import StoreError

__all__ = ["BODY", "SCHEMA_VERSION", "connect", "open_database", "storage_errors", "transaction"]

# PRAGMA user_version.
SCHEMA_VERSION = 1
# "dynr" in ASCII: tells a collector's file from any other SQLite file (PRAGMA application_id).
_APPLICATION_ID = 0x64796E72
# How long a writer waits for those of other processes: shorter than a graceful end may take.
_BUSY_TIMEOUT_S = 5.0
# The body of a report, of samples and the texts that they share.
BODY = (
    "CASE WHEN samples.text_id IS NULL THEN samples.body "
    "ELSE texts.head || samples.first_date || texts.middle || samples.second_date || texts.tail END"
)

# groups   one row for each cause (dynpin.report.grouping_key), with its counts and its verdict; diagnoses has the long
#          text apart, since every batch writes the rows of its groups anew and every count of groups reads them all
# reports  one row for each report; samples has the bodies apart, so that a scan of the rows stays small; what several
#          bodies have in common stands once in texts, and a sample then has its two dates alone (see BODY)
# rates    reports of a group in each hour; totals the same of all groups that have mode, verdict, state and token in
#          common, moved by triggers when a group's verdict or state changes: no page ever counts the reports
# agents   user agents of a group;  pins: which groups a pin occurs in, and where;  authorities: names of CAs by pin
# outcomes what the intake answered in each hour: accepted, filtered, rejected
# audit    who decided what, and who failed to sign in;  leases: which worker does which work, and until when
_TABLES = """
CREATE TABLE groups (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL,
    noted_host TEXT NOT NULL,
    port INTEGER,
    mode TEXT NOT NULL,
    token TEXT NOT NULL,
    known_pins TEXT NOT NULL,
    validated_pins TEXT NOT NULL,
    first_seen REAL NOT NULL,
    last_seen REAL NOT NULL,
    reports INTEGER NOT NULL,
    issuer TEXT,
    verdict TEXT,
    severity TEXT,
    -- A verdict holds for the keys and roots that it was found with; with others it is found again.
    judged_with TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT 'open',
    state_at REAL,
    alerted_at REAL
);
CREATE INDEX groups_by_last_seen ON groups (last_seen);
CREATE INDEX groups_by_first_seen ON groups (first_seen);
CREATE INDEX groups_by_host ON groups (host, last_seen);
CREATE INDEX groups_by_noted_host ON groups (noted_host, last_seen);
CREATE INDEX groups_by_verdict ON groups (verdict, last_seen);
CREATE INDEX groups_by_issuer ON groups (issuer, last_seen);
CREATE INDEX groups_by_judged_with ON groups (judged_with);
CREATE INDEX groups_unannounced ON groups (id) WHERE alerted_at IS NULL;
CREATE INDEX groups_without_verdict ON groups (id) WHERE verdict IS NULL;
-- All that a tally asks of a group, so that counting all groups reads no row of theirs.
CREATE INDEX groups_in_short ON groups
    (last_seen, first_seen, host, noted_host, mode, verdict, state, token, issuer, reports);
-- A diagnosis is some kilobytes of JSON: twenty times the rest of its group.
CREATE TABLE diagnoses (
    group_id INTEGER PRIMARY KEY REFERENCES groups (id) ON DELETE CASCADE,
    diagnosis TEXT NOT NULL
);
CREATE TABLE pins (
    pin TEXT NOT NULL,
    group_id INTEGER NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    place TEXT NOT NULL,
    PRIMARY KEY (pin, group_id, place)
) WITHOUT ROWID;
CREATE INDEX pins_by_group ON pins (group_id);
CREATE TABLE authorities (
    pin TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    group_id INTEGER NOT NULL REFERENCES groups (id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX authorities_by_group ON authorities (group_id);
CREATE TABLE reports (
    id INTEGER PRIMARY KEY,
    group_id INTEGER NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    received_at REAL NOT NULL,
    observed_at REAL,
    expires_at REAL,
    token TEXT NOT NULL,
    source TEXT NOT NULL,
    user_agent TEXT NOT NULL,
    flags TEXT NOT NULL
);
CREATE INDEX reports_by_group ON reports (group_id, received_at);
CREATE INDEX reports_by_time ON reports (received_at);
-- The reports of a burst are one text but for their dates; and each byte of a body is written twice, to the log too.
CREATE TABLE texts (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    head TEXT NOT NULL,
    middle TEXT NOT NULL,
    tail TEXT NOT NULL
);
CREATE TABLE samples (
    report_id INTEGER PRIMARY KEY REFERENCES reports (id) ON DELETE CASCADE,
    body TEXT NOT NULL,
    text_id INTEGER REFERENCES texts (id),
    first_date TEXT,
    second_date TEXT
);
-- Which texts nobody needs any more is asked with every prune.
CREATE INDEX samples_by_text ON samples (text_id) WHERE text_id IS NOT NULL;
CREATE TABLE rates (
    group_id INTEGER NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    hour INTEGER NOT NULL,
    reports INTEGER NOT NULL,
    PRIMARY KEY (group_id, hour)
) WITHOUT ROWID;
CREATE INDEX rates_by_hour ON rates (hour, group_id, reports);
CREATE TABLE totals (
    hour INTEGER NOT NULL,
    mode TEXT NOT NULL,
    verdict TEXT NOT NULL,
    state TEXT NOT NULL,
    token TEXT NOT NULL,
    reports INTEGER NOT NULL,
    PRIMARY KEY (hour, mode, verdict, state, token)
) WITHOUT ROWID;
CREATE TABLE agents (
    group_id INTEGER NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    user_agent TEXT NOT NULL,
    reports INTEGER NOT NULL,
    PRIMARY KEY (group_id, user_agent)
) WITHOUT ROWID;
CREATE TABLE outcomes (
    hour INTEGER NOT NULL,
    token TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (hour, token, outcome, reason)
) WITHOUT ROWID;
CREATE TABLE tokens (
    token TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    hosts TEXT NOT NULL,
    created_at REAL NOT NULL,
    revoked_at REAL
) WITHOUT ROWID;
-- Tokens that stand in the settings of a collector, and when one started with them last: they hold as long as it runs.
CREATE TABLE named_tokens (
    token TEXT PRIMARY KEY,
    named_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    expires_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE api_tokens (
    name TEXT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    used_at REAL,
    revoked_at REAL
) WITHOUT ROWID;
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    who TEXT NOT NULL,
    source TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL
);
CREATE INDEX audit_by_subject ON audit (subject, id);
CREATE INDEX audit_by_action ON audit (action, id);
CREATE TABLE leases (
    work TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    expires_at REAL NOT NULL
) WITHOUT ROWID;
-- What the nodes of a site share: a version for each change, so that of two writers one is first.
CREATE TABLE site_states (
    host TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    changed_at REAL NOT NULL,
    changed_by TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""
# One statement each; a trigger has semicolons of its own.
_MORE = (
    """
CREATE TRIGGER totals_follow_groups AFTER UPDATE OF verdict, state ON groups
WHEN old.verdict IS NOT new.verdict OR old.state != new.state BEGIN
    INSERT INTO totals
        SELECT hour, old.mode, coalesce(old.verdict, ''), old.state, old.token, -reports FROM rates
        WHERE group_id = old.id ON CONFLICT DO UPDATE SET reports = reports + excluded.reports;
    INSERT INTO totals
        SELECT hour, new.mode, coalesce(new.verdict, ''), new.state, new.token, reports FROM rates
        WHERE group_id = new.id ON CONFLICT DO UPDATE SET reports = reports + excluded.reports;
END""",
    """
CREATE TRIGGER totals_forget_groups BEFORE DELETE ON groups BEGIN
    INSERT INTO totals
        SELECT hour, old.mode, coalesce(old.verdict, ''), old.state, old.token, -reports FROM rates
        WHERE group_id = old.id ON CONFLICT DO UPDATE SET reports = reports + excluded.reports;
END""",
    # The columns are from this page.
    f"""
CREATE VIEW readable_reports AS
    SELECT reports.id, datetime(received_at, 'unixepoch') AS received, datetime(observed_at, 'unixepoch') AS observed,
           groups.host, groups.noted_host, groups.port, groups.mode, groups.verdict, groups.issuer,
           reports.token, source, user_agent, flags, {BODY} AS body
    FROM reports JOIN groups ON groups.id = reports.group_id LEFT JOIN samples ON samples.report_id = reports.id
    LEFT JOIN texts ON texts.id = samples.text_id""",  # noqa: S608
)


def open_database(path: Path) -> None:
    """Make the file (mode 0600) where there is none; safe when several processes start at once.

    Raises:
        StoreError: where the file cannot be opened, is no collector's, is damaged, or was written by a newer dynpin.
    """
    with storage_errors(path):
        if not path.parent.is_dir():
            # A slip of the pen must not make a new storage somewhere, and leave the reports of before unseen.
            raise StoreError(
                f"there is no folder {path.parent} to keep the report storage {path.name} in; make it, or name "
                "another file"
            )
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = connect(path)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            if _version(connection) != SCHEMA_VERSION:
                _make_tables(connection, path)
            else:
                _refuse_read_only(connection)
        finally:
            connection.close()


def connect(path: Path, timeout: float = _BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """One more connection to a file that :func:`open_database` has made; where the file is gone, none is made."""
    # By default SQLite makes an empty file in place of one that is gone.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(
        uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    connection.row_factory = sqlite3.Row
    try:
        # WAL with FULL: NORMAL forgets acknowledged reports when the power fails.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        # A checkpoint writes what the log has a second time and syncs twice: after 32 MB, not after 4.
        connection.execute("PRAGMA wal_autocheckpoint=8000")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    with transaction(connection):
        version = _version(connection)  # again: another process may have been first
        if version == SCHEMA_VERSION:
            return
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"the report storage {path} was written by a newer dynpin (schema {version}, this one knows "
                f"{SCHEMA_VERSION}); upgrade dynpin, or name another file"
            )
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != _APPLICATION_ID and tables:
            raise StoreError(f"{path} is an SQLite database of another program; name another file for the reports")
        # One statement at a time: executescript would commit the transaction that all processes wait for.
        for statement in (*_TABLES.split(";\n"), *_MORE):
            if statement.strip():
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _refuse_read_only(connection: sqlite3.Connection) -> None:
    """Raise where nothing can ever be written; a disk that is full may be emptied."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM facts WHERE name = 'written_at'")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            raise
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Hold the write lock of the file from the first read to the commit; roll back on any error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def storage_errors(path: Path) -> Generator[None]:
    """Turn what SQLite and the file system raise into a StoreError that names the file and the cause."""
    try:
        yield
    except StoreError:
        raise
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"the report storage {path} cannot be used: {_cause(path, error)}") from error


def _cause(path: Path, error: Exception) -> str:
    """What is wrong, and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    number = getattr(error, "errno", None)
    if not path.exists():
        return "the file is gone; put it back, or start the collector again for a new one"
    if code == sqlite3.SQLITE_FULL or number in (errno.ENOSPC, errno.EDQUOT):
        smaller = "dynpin collect prune --megabytes N"
        return f"the disk is full ({error}); free some space on it. After that  {smaller}  keeps less"
    if code == sqlite3.SQLITE_READONLY or number == errno.EROFS or not all(map(_is_writable, (path, path.parent))):
        return f"the file, its folder or its disk is read-only ({error}); make all three writable"
    if code == sqlite3.SQLITE_BUSY:
        return f"another process has held its lock for too long ({error})"
    return f"{error}; check the file, its folder's permissions and the free space"


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK)
