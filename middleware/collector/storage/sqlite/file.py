"""The file of the collector: how it is made and opened, and what its errors mean.

Datasette can read the file: times are seconds since the epoch, and the view ``readable_reports`` has them as text.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy import Engine as SQLAlchemyEngine
from sqlalchemy.exc import DBAPIError

from dynpin.errors import StoreError

from ..sql import REVISION, check_revision, create, revision, upgrade

__all__ = [
    "FullDisk",
    "check_schema",
    "connect",
    "make_file",
    "migrate",
    "prepare",
    "raw",
    "sql_engine",
    "storage_errors",
    "transaction",
]

# "dynr" in ASCII: tells a collector's file from any other SQLite file (PRAGMA application_id).
_APPLICATION_ID = 0x64796E72
# How long a writer waits for writers of other processes: shorter than a graceful shutdown may take.
_BUSY_TIMEOUT_S = 5.0


class FullDisk(StoreError):
    """The file system of the storage is full. The storage can be used again when there is room."""


def make_file(path: Path) -> None:
    """Make an empty file (mode 0600) if there is none.

    Raises:
        StoreError: if there is no such folder, or the file cannot be made.
    """
    with storage_errors(path):
        if not path.parent.is_dir():
            # A typo must not make a new storage somewhere else, without the old reports.
            raise StoreError(
                f"there is no folder {path.parent} for the report storage {path.name}; make it, or name another file"
            )
        log = Path(f"{path}-wal")
        has_log = log.exists() and log.stat().st_size > 0  # read first: a process that makes the file now has no log
        if not path.exists():
            if has_log:
                # SQLite would delete the log, and with it reports that were acknowledged.
                raise StoreError(
                    f"the report storage {path} is gone, but its log {log.name} is still there and may hold reports; "
                    f"put the file back, or remove {log.name} to begin without any report"
                )
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def prepare(path: Path, *, may_be_empty: bool = True) -> None:
    """Make the tables if the file is empty, and check it. Several processes may do so at once.

    Args:
        path: the file.
        may_be_empty: whether tables may be made. They may not if another file was used before: its reports would seem
            to be gone, and nobody would notice.

    Raises:
        StoreError: if the file cannot be opened, is not a collector's, is damaged, or has another schema.
    """
    with storage_errors(path), sql_engine(path).connect() as db:
        found = _refuse_others(db, path)
        if found is None and not may_be_empty:
            raise StoreError(
                f"the report storage {path} was replaced by an empty file while it was in use, so nothing is stored; "
                "put the file back with its -wal, or start the collector again to begin without any report"
            )
        # Not before: the file may belong to another program. Some copies are not in this mode (VACUUM INTO).
        raw(db).execute("PRAGMA journal_mode=WAL")
        if found is None:
            _make_tables(db, path)
        else:
            check_revision(found, str(path))
            _refuse_read_only(raw(db))


def check_schema(db: Connection, path: Path) -> None:
    """Raise if somebody has migrated the file since it was prepared. No migration begins while a transaction writes."""
    (found,) = raw(db).execute("SELECT max(version_num) FROM alembic_version").fetchone()
    if found is None:
        raise StoreError(
            f"the report storage {path} cannot be used: the version of its tables is lost (alembic_version is empty); "
            "stop the collector, keep this file, and put a backup in its place"
        )
    check_revision(found, str(path))


def migrate(path: Path) -> None:
    """Change a file to this program's schema; other processes wait.

    Raises:
        StoreError: if it cannot be used, is not a collector's, or was written by a newer dynpin.
    """
    with storage_errors(path):
        if not path.exists():
            raise StoreError(f"there is no file {path}; name the collector's with --storage")
    with storage_errors(path), sql_engine(path).connect() as db, transaction(db):
        found = _refuse_others(db, path)
        if found is None or found < REVISION:
            upgrade(db)
        else:
            check_revision(found, str(path))


def _make_tables(db: Connection, path: Path) -> None:
    with transaction(db):
        if _refuse_others(db, path) is None:  # no other process was first
            create(db)
            raw(db).execute(f"PRAGMA application_id={_APPLICATION_ID}")


def _refuse_others(db: Connection, path: Path) -> str | None:
    """The version of the schema; raises if the file belongs to another program."""
    # In this order: another process may make the tables in between.
    (tables,) = raw(db).execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (application,) = raw(db).execute("PRAGMA application_id").fetchone()
    if application != _APPLICATION_ID and tables:
        raise StoreError(f"{path} is an SQLite database of another program; name another file for the reports")
    return revision(db)


def sql_engine(path: Path, timeout: float = _BUSY_TIMEOUT_S) -> SQLAlchemyEngine:
    """SQLAlchemy's engine for the file. The caller closes each connection."""
    # No pool: it would keep connections to a file that is no longer at the path.
    return create_engine("sqlite://", creator=lambda: connect(path, timeout), poolclass=NullPool)


def raw(db: Connection) -> sqlite3.Connection:
    """SQLite's own connection."""
    return cast("sqlite3.Connection", db.connection.dbapi_connection)


def connect(path: Path, timeout: float = _BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """Connect to a file that :func:`make_file` has made. If the file is gone, this raises and makes none."""
    if path.exists() and not path.is_file():
        # SQLite takes an empty device, such as /dev/full, for an empty database.
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    # mode=rw: by default SQLite makes an empty file if there is none.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(
        uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        # FULL: with WAL and NORMAL, acknowledged reports are lost when the power fails.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        # A checkpoint writes the log's pages again and syncs twice. Do so every 32 MB instead of every 4 MB.
        connection.execute("PRAGMA wal_autocheckpoint=8000")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _refuse_read_only(connection: sqlite3.Connection) -> None:
    """Raise if nothing can ever be written. A full disk is no such case, since it may be emptied."""
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
def transaction(db: Connection) -> Generator[None]:
    """Hold the write lock of the file from the first read to the commit; roll back on any error."""
    # SQLite's own connection: SQLAlchemy has no BEGIN IMMEDIATE, and commits only transactions that it began.
    own = raw(db)
    own.execute("BEGIN IMMEDIATE")
    try:
        yield
        own.execute("COMMIT")
    except BaseException:
        if own.in_transaction:
            own.execute("ROLLBACK")
        raise
    finally:
        db.rollback()


@contextmanager
def storage_errors(path: Path) -> Generator[None]:
    """Turn errors of SQLite and the file system into a StoreError that names the file and the cause."""
    try:
        yield
    except StoreError:
        raise
    except (DBAPIError, sqlite3.Error, OSError) as error:
        cause = error.orig or error if isinstance(error, DBAPIError) else error
        kind = FullDisk if _is_full(path, cause) else StoreError
        raise kind(f"the report storage {path} cannot be used: {_cause(path, cause)}") from error


def _is_full(path: Path, error: BaseException) -> bool:
    """Whether an error comes from a full file system."""
    extended = getattr(error, "sqlite_errorcode", 0)
    if extended & 0xFF == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    if extended & 0xFF not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) or not _exists(path):
        return False
    # Without room for its -wal and -shm, SQLite does not say that the disk is full.
    return extended == sqlite3.SQLITE_IOERR_SHMSIZE or not all(_room(path))


def _room(path: Path) -> tuple[int, int]:
    """The bytes and the files that still fit on the file system of the storage."""
    status = os.statvfs(path.parent)
    # Some file systems have no fixed number of files.
    return status.f_bavail * status.f_frsize, status.f_favail if status.f_files else 1


def _cause(path: Path, error: BaseException) -> str:
    """The cause, and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    number = getattr(error, "errno", None)
    if _exists(path.parent) and _is_full(path, error):
        folder = path.parent.resolve()
        mounted_at = next(one for one in (folder, *folder.parents) if one.is_mount())
        free, files = _room(path)
        room = f"{free:,} bytes" if files else "no file"
        smaller = "dynpin collect prune --megabytes N"
        return (
            f"the disk is full ({error}; free on the file system at {mounted_at}: {room}); free some space on it, then "
            f"keep fewer reports:  {smaller}"
        )
    try:
        os.stat(path)  # noqa: PTH116 - as in _exists
    except (FileNotFoundError, NotADirectoryError):
        return "the file is gone; put it back with its -wal, or start the collector again to make a new one"
    except PermissionError as closed:
        return f"{closed}; let the user of the collector enter every folder of this path"
    except OSError as unreachable:
        return f"{unreachable}; check the path"
    if path.is_dir():
        return f"it is a folder; name a file in it, such as {path / 'reports.sqlite'}"
    if not path.is_file():
        return "it is a device, a pipe or a socket; name a file, such as reports.sqlite"
    if code == sqlite3.SQLITE_READONLY or number == errno.EROFS or not all(map(_is_writable, (path, path.parent))):
        return f"the file, its folder or its disk is read-only ({error}); make all three writable"
    if code == sqlite3.SQLITE_BUSY:
        return f"another process has held the lock for too long ({error}); end the one that holds it, such as a backup"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"the file is damaged ({error}); stop the collector, keep this file, and put a backup in its place"
    return f"{error}; check the file, the permissions of its folder and the free space"


def _exists(path: Path) -> bool:
    # Path.exists raises if a folder must not be entered, or a name is too long.
    return os.path.exists(path)  # noqa: PTH110


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK)
