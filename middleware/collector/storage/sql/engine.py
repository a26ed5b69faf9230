"""What a database does by itself, and a unit of work on it: all else is the same for both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

from ..values import Arrival, Counted

__all__ = ["PATIENCE_S", "Engine", "Unit", "reads", "upsert", "writes"]

# How long a unit of work may take: longer than a statement may, by the server's own clock.
PATIENCE_S = 25.0
P = ParamSpec("P")
T = TypeVar("T")


class Engine(Protocol):
    """A database: SQLite's file, or a server of PostgreSQL. Every method may be called from any thread.

    Each raises :class:`~dynpin.errors.StoreError`, which names the file or the server, the cause and what to do.
    """

    @property
    def name(self) -> str:
        """What errors and people call it: the path, or the address without the password."""
        ...

    @property
    def path(self) -> Path | None:
        """The file, where it is one on this machine."""
        ...

    def reading(self, patience: float = PATIENCE_S) -> AbstractContextManager[Connection]:
        """A connection that nobody else has meanwhile; what it changes is not kept.

        A server that has not answered it all within so many seconds is given up.
        """
        ...

    def writing(self, patience: float = PATIENCE_S) -> AbstractContextManager[Connection]:
        """A transaction; when it ends without an exception, what it wrote survives a loss of power.

        A server that has not answered it all within so many seconds is given up.
        """
        ...

    def clearing(self) -> AbstractContextManager[Connection]:
        """A transaction that deletes, and so needs little room."""
        ...

    def add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int], now: float) -> bool:
        """Store a batch; see :class:`~dynpin.middleware.collector.storage.Sink`."""
        ...

    def bytes_used(self) -> int:
        """How much there is, without the room that deleted rows have left."""
        ...

    def probe(self, now: float, patience: float) -> None:
        """Write one row durably, and wait for others so many seconds at most."""
        ...

    def lease_clock(self, db: Connection, now: float) -> float:
        """Seconds since the epoch by the clock that all who claim leases share."""
        ...

    def close(self) -> None:
        """Close every connection; new ones are opened when they are needed."""
        ...


class Unit(NamedTuple):
    """A connection, in a transaction where something is written, and the time when it began."""

    db: Connection
    now: float
    engine: Engine


class HasUnits(Protocol):
    """What gives units of work: the storage."""

    def reading(self) -> AbstractContextManager[Unit]:
        """A unit that reads."""
        ...

    def writing(self) -> AbstractContextManager[Unit]:
        """A unit that writes."""
        ...


def reads(question: Callable[Concatenate[Unit, P], T]) -> Callable[Concatenate[HasUnits, P], T]:
    """A function on a unit as a method of the storage, which gives it one to read from."""

    @wraps(question)
    def method(self: HasUnits, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.reading() as unit:
            return question(unit, *args, **kwargs)

    return method


def writes(change: Callable[Concatenate[Unit, P], T]) -> Callable[Concatenate[HasUnits, P], T]:
    """A function on a unit as a method of the storage, which gives it a transaction."""

    @wraps(change)
    def method(self: HasUnits, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.writing() as unit:
            return change(unit, *args, **kwargs)

    return method


def upsert(
    db: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *, add: str = "", replace: Iterable[str] = ()
) -> int:
    """Insert rows; where one of the same primary key is there, add to a column of it or replace some, or leave it.

    All of one statement go by the order of their keys, so that no two transactions wait for each other in a circle.

    Returns:
        How many rows were written.
    """
    if not rows:
        return 0
    keys = [column.name for column in table.primary_key]
    # Both dialects have the same clause, under a class of their own.
    insert = postgresql.insert if db.dialect.name == "postgresql" else sqlite.insert
    statement: Any = insert(table)
    changes = {name: statement.excluded[name] for name in replace}
    if add:
        changes[add] = table.c[add] + statement.excluded[add]
    if changes:
        statement = statement.on_conflict_do_update(index_elements=keys, set_=changes)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=keys)
    ordered = sorted(rows, key=lambda row: tuple(row[key] for key in keys))
    # SQLAlchemy keeps the count of an INSERT only where it is asked to.
    return db.execute(statement, ordered, execution_options={"preserve_rowcount": True}).rowcount
