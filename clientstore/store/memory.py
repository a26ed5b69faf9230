"""A database in memory, for a store that keeps nothing on the disk."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from dynpin.errors import StoreError

from .advice import store_error
from .files import fork_under_way, track
from .schema import SCHEMA
from .state import State
from .writing import WritingThread

__all__ = ["MemoryDatabase"]

_Value = TypeVar("_Value")


class MemoryDatabase:
    """The methods of :class:`~dynpin.clientstore.store.Database`, for the memory of this process.

    One connection reads and writes. `data_version` does not report a connection's own writes, so each write makes a
    new state. A look-up may see a write in progress, even one that is rolled back later; the new state then has
    nothing of it.
    """

    path = None
    read_only = False

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection.executescript(SCHEMA)
        self._state = State()
        self._writing = WritingThread("the pin store in memory")
        self._pid = os.getpid()
        self._closed = False
        track(self)

    def state(self) -> State:
        """See :meth:`Database.state`."""
        self._check_usable()
        return self._state

    def select(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """See :meth:`Database.select`."""
        self._check_usable()
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise store_error(None, error) from error

    def write(self, job: Callable[[sqlite3.Connection], _Value]) -> _Value:
        """See :meth:`Database.write`."""
        self._check_usable()
        return self._writing.do(lambda: self._transact(job))

    def write_later(self, job: Callable[[sqlite3.Connection], object]) -> None:
        """See :meth:`Database.write_later`."""
        self._check_usable()
        self._writing.do_later(lambda: self._transact(job))

    def _transact(self, job: Callable[[sqlite3.Connection], _Value]) -> _Value:
        try:
            self._connection.execute("BEGIN")
            value = job(self._connection)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise store_error(None, error) from error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._state = State()
        return value

    def rest(self) -> None:
        """Wait for a write in progress. The memory stays: a fork copies it."""
        if fork_under_way():
            self._writing.rests()
        else:
            self._writing.do(lambda: None)

    def rest_later(self) -> None:
        """Do nothing: there is no file to close."""

    def close(self) -> None:
        """See :meth:`Database.close`."""
        if not self._closed:
            self._writing.do(lambda: None)
        self._closed = True
        self._connection.close()

    def renew(self) -> None:
        """Start again in the child of a fork: the thread, and a write that it had begun, belong to the parent."""
        self._pid = os.getpid()
        self._writing = WritingThread("the pin store in memory")
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
            self._state = State()

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreError("the pin store in memory is closed; open a new PinStore")
        if self._pid != os.getpid():  # a fork that bypassed Python's hooks
            self.renew()
