"""PostgreSQL as an engine of the storage."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from psycopg.errors import Diagnostic, UndefinedTable
from sqlalchemy import Connection, QueuePool, create_engine, event, func, select, text
from sqlalchemy import Engine as SQLAlchemyEngine
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from dynpin.errors import StoreError

from ...fork import renew_after_fork
from ..sql import PATIENCE_S, REVISION, check_revision, create, revision, upgrade, write_proof
from ..values import Arrival, Counted
from .address import Address
from .batch import add
from .errors import is_away, is_worth_another_try, storage_errors
from .waiting import bounded_wait, raw

__all__ = ["PostgreSQLEngine", "migrate"]

# Connections of one process. A page takes one for a moment; the intake needs one for all reports.
_KEPT, _AT_MOST, _POOL_S = 4, 16, 5
# How long the server may take to answer, to store a batch, and to measure its tables (seconds).
_PING_S, _BATCH_S, _MEASURING_S = 2.0, 8.0, 600.0
# How long a commit may wait for the standby (seconds). PostgreSQL itself would wait for ever.
_COMMIT_S = 5.0
# SQLSTATE of "canceling wait for synchronous replication": the commit is perhaps not on the standby.
_WARNING = "01000"
# The key of pg_advisory_xact_lock. Other programs in the same database must not use it: "dynpin" in ASCII.
_MIGRATING = int.from_bytes(b"dynpin", "big")
_REVISION = "dynpin.schema"
# Bytes that one report takes on the disk in addition to its row: the index entries and their pages.
_INDEXED_BYTES = 150
_TABLES = ("reports", "samples", "groups", "diagnoses", "pins")


class PostgreSQLEngine:
    """A database of PostgreSQL, shared by any number of processes on any number of machines.

    A server that cannot be reached yet is no error here. Each use is one, until it can be reached.

    Args:
        address: the DSN. If it has several hosts, the engine uses the one that accepts writes.

    Raises:
        StoreError: if the server refuses the user or the database, has no tables, or has another version; the message
            says what to do.
        ValueError: if the address cannot be read.
    """

    def __init__(self, address: str) -> None:
        self._address = Address.read(address)
        self.renew()
        renew_after_fork(self)
        try:
            with self.reading():
                pass
        except BaseException as error:
            if not (isinstance(error, StoreError) and is_away(error)):
                self.close()
                raise

    @property
    def name(self) -> str:
        """The address without the password."""
        return self._address.name

    @property
    def path(self) -> None:
        """None: a server is not a file."""

    def renew(self) -> None:
        """Start without connections; those of a parent process stay open."""
        before = self.__dict__.get("_engine")
        self._engine = _engine(self._address.conninfo)
        # Instead of pool_pre_ping, which waits without a limit for a server that hangs.
        event.listen(self._engine, "checkout", _check_out)
        if before is not None:
            # Do not close them: that would end the parent's sessions too.
            cast("SQLAlchemyEngine", before).dispose(close=False)

    @contextmanager
    def reading(self, patience: float = PATIENCE_S) -> Generator[Connection]:
        """A connection of the pool."""
        with storage_errors(self._address), self._engine.connect() as db, bounded_wait(db, patience):
            self._check(db)
            yield db

    @contextmanager
    def writing(self, patience: float = PATIENCE_S) -> Generator[Connection]:
        """A transaction. When it ends it is on the disk, and on the standby if there is a synchronous one."""
        with storage_errors(self._address), self._engine.connect() as db:
            try:
                with bounded_wait(db, patience):
                    self._check(db)
                    yield db
                _commit(db, self.name)
            except BaseException:
                # The connection may be in any state, and the server may be a standby by now: open a new one next time.
                db.invalidate()
                raise

    @contextmanager
    def clearing(self) -> Generator[Connection]:
        """A transaction that deletes."""
        with self.writing() as db:
            yield db

    def add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int], now: float) -> bool:
        """Store a batch. If the connection was lost, try once more on another; a batch that was stored counts once."""
        number = os.urandom(16)
        try:
            return self._add(arrivals, outcomes, number, now)
        except StoreError as error:
            if not is_worth_another_try(error):
                raise
        return self._add(arrivals, outcomes, number, now)

    def _add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int], batch: bytes, now: float) -> bool:
        with self.writing(_BATCH_S) as db:
            return add(raw(db), arrivals, outcomes, batch, now)

    def bytes_used(self) -> int:
        """About how many bytes the rows and their index entries take."""
        # Deleted rows leave room in the files, which the next reports fill. So read every row.
        rows = " UNION ALL ".join(f"SELECT sum(pg_column_size({name}.*) + 28) AS size FROM {name}" for name in _TABLES)  # noqa: S608
        with self.reading(_MEASURING_S) as db:
            db.execute(text(f"SET LOCAL statement_timeout = '{_MEASURING_S:.0f}s'"))
            own = int(db.scalar(text(f"SELECT coalesce(sum(size), 0) FROM ({rows}) AS tables")) or 0)  # noqa: S608
            return own + _INDEXED_BYTES * int(db.scalar(text("SELECT count(*) FROM reports")) or 0)

    def bytes_at_most(self) -> int:
        """The size of the files."""
        sizes = " + ".join(f"pg_total_relation_size('{name}')" for name in _TABLES)
        with self.reading() as db:
            return int(db.scalar(text(f"SELECT {sizes}")) or 0)

    def probe(self, now: float, patience: float) -> None:
        """Write one row durably; wait for a lock for `patience` seconds at most."""
        with self.writing(patience + 1) as db:
            db.execute(text(f"SET LOCAL lock_timeout = {int(patience * 1000)}"))
            write_proof(db, now)

    def shared_clock(self, db: Connection, now: float) -> float:
        """The server's clock, since the clocks of machines may differ."""
        return float(db.scalar(select(func.extract("epoch", func.clock_timestamp()))) or now)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _check(self, db: Connection) -> None:
        """Check the version of the tables: somebody may have migrated them, or the server is another one by now."""
        found: str | None = db.info[_REVISION]
        if found is None:
            raise StoreError(
                f"the report storage {self.name} has no tables yet; run  dynpin collect migrate  once, with the same "
                "--storage"
            )
        check_revision(found, self.name)


def migrate(address: str) -> None:
    """Change a database to this program's schema. If several processes do so at once, one works and the others wait.

    Raises:
        StoreError: if it cannot be reached or changed, or was written by a newer dynpin.
        ValueError: if the address cannot be read.
    """
    read = Address.read(address)
    name, engine = read.name, _engine(read.conninfo)
    try:
        with storage_errors(read), engine.connect() as db:
            # No limit: an index of many rows may take long.
            db.execute(text("SET LOCAL statement_timeout = 0"))
            db.execute(text("SET LOCAL lock_timeout = 0"))
            db.execute(select(func.pg_advisory_xact_lock(_MIGRATING)))
            found = revision(db)
            if found is None:
                create(db)
            elif found < REVISION:
                upgrade(db)
            else:
                check_revision(found, name)
            _commit(db, name)
    finally:
        engine.dispose()


def _engine(conninfo: str) -> SQLAlchemyEngine:
    # SQLAlchemy's pool has no threads, which a forked child would lack. It tries a server that was away with the
    # next request, without a growing pause.
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(conninfo),
        poolclass=QueuePool,
        pool_size=_KEPT,
        max_overflow=_AT_MOST - _KEPT,
        pool_timeout=_POOL_S,
    )


def _check_out(connection: psycopg.Connection[Any], record: ConnectionPoolEntry, _: object) -> None:
    """Begin a transaction and read the version of the tables, which also tests the connection.

    A migration waits for the end of this transaction, and the transaction for the end of a migration. If the server
    does not answer on a connection that was used before, the pool makes another.
    """
    try:
        # In a pipeline BEGIN is sent together with both.
        with bounded_wait(connection, _PING_S), connection.pipeline():
            connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", (_MIGRATING,))
            version = connection.execute("SELECT version_num FROM alembic_version")
        record.info[_REVISION] = next((found for (found,) in version), None)
    except UndefinedTable:
        connection.rollback()
        record.info[_REVISION] = None
    except psycopg.Error as error:
        if _REVISION not in record.info:
            raise
        raise DisconnectionError(str(error)) from error


def _commit(db: Connection, name: str) -> None:
    """Commit durably, also on the synchronous standby, or raise."""
    connection, warned = raw(db), list[str]()

    def notice(told: Diagnostic) -> None:
        if told.sqlstate == _WARNING:
            warned.append(told.message_primary or "")

    # statement_timeout does not cover the wait for the standby (PostgreSQL 15: finish_xact_command), which has no
    # limit. If that wait is cancelled, the commit *succeeds*, with a warning.
    connection.add_notice_handler(notice)
    try:
        with bounded_wait(db, _COMMIT_S):
            # Not SQLAlchemy's commit: it does nothing if the statements did not go through SQLAlchemy.
            connection.commit()
    finally:
        connection.remove_notice_handler(notice)
    if warned:
        raise StoreError(
            f"the report storage {name} has written to one server only: its standby does not answer ({warned[0]}); "
            "start the standby, or let the server go on without it: synchronous_standby_names"
        )
