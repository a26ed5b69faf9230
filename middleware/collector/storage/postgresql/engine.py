"""PostgreSQL as an engine of the storage."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import psycopg
from psycopg.errors import Diagnostic
from sqlalchemy import Connection, QueuePool, create_engine, event, func, select, text
from sqlalchemy import Engine as SQLAlchemyEngine
from sqlalchemy.exc import DisconnectionError

from dynpin.errors import StoreError

from ...fork import renew_after_fork
from ..sql import PATIENCE_S, REVISION, check_revision, create, revision, upgrade, write_proof
from ..values import Arrival, Counted
from .address import Address
from .batch import add
from .errors import is_worth_another_try, storage_errors
from .waiting import bounded_wait, raw

__all__ = ["PostgreSQLEngine", "migrate"]

# Connections of one process: a page takes one for a moment, and the intake one for all reports.
_KEPT, _AT_MOST, _POOL_S = 4, 16, 5
# How long the server may take to answer at all, to store a batch, and to measure its tables.
_PING_S, _BATCH_S, _MEASURING_S = 2.0, 8.0, 600.0
# How long a commit may wait for the standby. PostgreSQL itself would wait for ever.
_COMMIT_S = 5.0
# "cancelled wait for synchronous replication": what was committed here is perhaps not on the standby.
_WARNING = "01000"
# Any number that other programs in the same database do not take (pg_advisory_xact_lock): "dynpin" in ASCII.
_MIGRATING = int.from_bytes(b"dynpin", "big")
# What is about one report on the disk beside its row: the entries of its indexes and their pages.
_INDEXED_BYTES = 150
_TABLES = ("reports", "samples", "groups", "diagnoses", "pins")


class PostgreSQLEngine:
    """A database of PostgreSQL that any number of processes on any number of machines share.

    Args:
        address: the DSN, with several hosts where there are: whichever takes writes is used.

    Raises:
        StoreError: where it cannot be reached, has no tables, or is of another version; the message says what to do.
        ValueError: where the address cannot be read.
    """

    def __init__(self, address: str) -> None:
        self._address = Address.read(address)
        self.renew()
        renew_after_fork(self)
        try:
            with self.reading() as db:
                _check(revision(db), self.name)
        except BaseException:
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
        """Begin without connections; those of a parent process are left to it."""
        before = self.__dict__.get("_engine")
        self._engine = _engine(self._address.conninfo)
        if before is not None:
            # Not closed, which would end the parent's sessions too.
            cast("SQLAlchemyEngine", before).dispose(close=False)

    @contextmanager
    def reading(self, patience: float = PATIENCE_S) -> Generator[Connection]:
        """A connection of the pool."""
        with storage_errors(self._address), self._engine.connect() as db, bounded_wait(db, patience):
            yield db

    @contextmanager
    def writing(self, patience: float = PATIENCE_S) -> Generator[Connection]:
        """A transaction; it is on the disk when it ends, and on the standby where there is a synchronous one."""
        with storage_errors(self._address), self._engine.connect() as db:
            try:
                with bounded_wait(db, patience):
                    yield db
                _commit(db, self.name)
            except BaseException:
                # Whatever state it is in, or the server, which may be a standby by now: the next one begins anew.
                db.invalidate()
                raise

    @contextmanager
    def clearing(self) -> Generator[Connection]:
        """A transaction that deletes."""
        with self.writing() as db:
            yield db

    def add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int], now: float) -> bool:
        """Store a batch; where the connection was lost, once more on another: what is there already counts once."""
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
        """About what the rows take, with the entries of their indexes."""
        # Not the size of the files: what was deleted stays in them, and is filled by the next reports.
        rows = " UNION ALL ".join(f"SELECT sum(pg_column_size({name}.*) + 28) AS size FROM {name}" for name in _TABLES)  # noqa: S608
        with self.reading(_MEASURING_S) as db:
            db.execute(text(f"SET LOCAL statement_timeout = '{_MEASURING_S:.0f}s'"))
            own = int(db.scalar(text(f"SELECT coalesce(sum(size), 0) FROM ({rows}) AS tables")) or 0)  # noqa: S608
            return own + _INDEXED_BYTES * int(db.scalar(text("SELECT count(*) FROM reports")) or 0)

    def probe(self, now: float, patience: float) -> None:
        """Write one row durably, and wait for others so many seconds at most."""
        with self.writing(patience + 1) as db:
            db.execute(text(f"SET LOCAL lock_timeout = {int(patience * 1000)}"))
            write_proof(db, now)

    def lease_clock(self, db: Connection, now: float) -> float:
        """The server's: machines may differ."""
        return float(db.scalar(select(func.extract("epoch", func.clock_timestamp()))) or now)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _check(found: str | None, name: str) -> None:
    if found is None:
        raise StoreError(
            f"the report storage {name} has no tables yet; run  dynpin collect migrate  once, with the same --storage"
        )
    check_revision(found, name)


def migrate(address: str) -> None:
    """Bring a database to this program's schema; of several that do so at once the others wait.

    Raises:
        StoreError: where it cannot be reached or changed, or is of a newer dynpin.
        ValueError: where the address cannot be read.
    """
    read = Address.read(address)
    name, engine = read.name, _engine(read.conninfo)
    try:
        with storage_errors(read), engine.connect() as db:
            # An index of many rows takes as long as it takes.
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
    # SQLAlchemy's pool alone: it has no threads of its own, which no child of a fork would have, and tries a server
    # that was away with the next request, without a pause that grows.
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(conninfo),
        poolclass=QueuePool,
        pool_size=_KEPT,
        max_overflow=_AT_MOST - _KEPT,
        pool_timeout=_POOL_S,
    )
    # In place of pool_pre_ping, which waits for a server that hangs without end.
    event.listen(engine, "checkout", _check_out)
    return engine


def _check_out(connection: psycopg.Connection, *_: object) -> None:
    """Before a connection of the pool is used: where the server does not answer on it, another is made."""
    try:
        # In a pipeline BEGIN is sent together with it.
        with bounded_wait(connection, _PING_S), connection.pipeline():
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        raise DisconnectionError(str(error)) from error


def _commit(db: Connection, name: str) -> None:
    """Commit, durably on the synchronous standby too, or raise."""
    connection, warned = raw(db), list[str]()

    def notice(told: Diagnostic) -> None:
        if told.sqlstate == _WARNING:
            warned.append(told.message_primary or "")

    # statement_timeout ends before the commit waits for the standby (PostgreSQL 15: finish_xact_command), which may
    # be for ever. A wait that is cancelled *succeeds*, with a warning.
    connection.add_notice_handler(notice)
    try:
        with bounded_wait(db, _COMMIT_S):
            # Not by SQLAlchemy, which commits nothing that went past it.
            connection.commit()
    finally:
        connection.remove_notice_handler(notice)
    if warned:
        raise StoreError(
            f"the report storage {name} has written to one server alone: its standby does not answer ({warned[0]}); "
            "start the standby, or let the server go on without it: synchronous_standby_names"
        )
