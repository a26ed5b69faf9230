"""The interface of a database engine, and a unit of work on it. Everything else is the same for both engines."""

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

# How long a unit of work may take (seconds): longer than the server's limit for one statement.
PATIENCE_S = 25.0
P = ParamSpec("P")
T = TypeVar("T")


class Engine(Protocol):
    """A database: a file of SQLite, or a server of PostgreSQL. Every method may be called from any thread.

    Each raises :class:`~dynpin.errors.StoreError`, which names the file or the server, the cause and what to do.
    """

    @property
    def name(self) -> str:
        """The name in errors: the path, or the address without the password."""
        ...

    @property
    def path(self) -> Path | None:
        """The path of the file, or None for a server."""
        ...

    def reading(self, patience: float = PATIENCE_S) -> AbstractContextManager[Connection]:
        """A connection that nobody else uses at the same time. Its changes are not kept.

        If a server has not answered everything within `patience` seconds, this raises.
        """
        ...

    def writing(self, patience: float = PATIENCE_S) -> AbstractContextManager[Connection]:
        """A transaction. If it ends without an exception, its changes survive a loss of power.

        If a server has not answered everything within `patience` seconds, this raises.
        """
        ...

    def clearing(self) -> AbstractContextManager[Connection]:
        """A transaction for deletions, which needs little space on the disk."""
        ...

    def add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int], now: float) -> bool:
        """Store a batch; see :class:`~dynpin.middleware.collector.storage.Sink`."""
        ...

    def bytes_used(self) -> int:
        """How many bytes the rows take, without the free space that deleted rows have left."""
        ...

    def bytes_at_most(self) -> int:
        """A number that :meth:`bytes_used` does not exceed, and that takes no reading of every row."""
        ...

    def probe(self, now: float, patience: float) -> None:
        """Write one row durably; wait for a lock for `patience` seconds at most."""
        ...

    def shared_clock(self, db: Connection, now: float) -> float:
        """Seconds since the epoch, by the clock that all processes share."""
        ...

    def close(self) -> None:
        """Close every connection; new ones are opened when they are needed."""
        ...


class Unit(NamedTuple):
    """A connection and the time when the unit of work began. The connection is in a transaction if the unit writes."""

    db: Connection
    now: float
    engine: Engine


class HasUnits(Protocol):
    """The storage, as the source of units of work."""

    def reading(self) -> AbstractContextManager[Unit]:
        """A unit that reads."""
        ...

    def writing(self) -> AbstractContextManager[Unit]:
        """A unit that writes."""
        ...


def reads(question: Callable[Concatenate[Unit, P], T]) -> Callable[Concatenate[HasUnits, P], T]:
    """Turn a function on a unit into a method of the storage that reads."""

    @wraps(question)
    def method(self: HasUnits, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.reading() as unit:
            return question(unit, *args, **kwargs)

    return method


def writes(change: Callable[Concatenate[Unit, P], T]) -> Callable[Concatenate[HasUnits, P], T]:
    """Turn a function on a unit into a method of the storage that writes, in a transaction."""

    @wraps(change)
    def method(self: HasUnits, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.writing() as unit:
            return change(unit, *args, **kwargs)

    return method


def upsert(
    db: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *, add: str = "", replace: Iterable[str] = ()
) -> int:
    """Insert rows. If the primary key exists, add to its column `add`, replace its columns `replace`, or leave it.

    The rows are written in the order of their keys, so that transactions cannot deadlock.

    Returns:
        How many rows were written.
    """
    if not rows:
        return 0
    keys = [column.name for column in table.primary_key]
    # Both dialects have the same clause, each in its own class.
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
    # SQLAlchemy counts the rows of an INSERT only with this option.
    return db.execute(statement, ordered, execution_options={"preserve_rowcount": True}).rowcount
