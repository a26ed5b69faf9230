"""The database that a store owns: one plain SQLite file, in WAL mode with ``synchronous=FULL``.

Reads. A read takes a connection out of a pool, runs one statement, fetches all rows and gives the connection back.
There is no lock, so an exception from a signal handler cannot leave one locked. If a statement fails, its connection
is closed and never used again, so none stays in an old snapshot. ``PRAGMA data_version`` tells at each look whether
anything was written since that connection looked last. It is compared within one connection only, as SQLite's manual
requires.

Writes. Each is one transaction on a thread of the database; see :mod:`.writing`.

Forks. Every connection is closed before a fork and opened again on the next use; see :mod:`.files`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dynpin.errors import StoreError

from .advice import store_error
from .connection import ForkUnderWay, OpenConnection, never_close
from .files import PATIENCE, fork_under_way, living, log_of, open_file, regular_file, track, wait_for_forks
from .schema import check_head, create
from .state import State
from .writing import WritingThread

__all__ = ["Database"]

logger = logging.getLogger("dynpin.clientstore")

_Value = TypeVar("_Value")
Row = tuple[Any, ...]

_PAUSE = 0.001
# How long closing waits for writes, in seconds.
_CLOSING = 10.0
# How often to retry: a background write; and opening a file that is being replaced.
_ATTEMPTS = 5
_FIRST_READ = "SELECT 1 FROM facts"
# The errors that a damaged file causes. SQLite quotes text from the file, which may not be valid UTF-8.
_FAULTS = (sqlite3.Error, OSError, UnicodeError)


class Database:
    """One SQLite file that threads and processes share. Nothing is open before the first use.

    Args:
        path: the file, resolved; created if there is none.

    Raises:
        StoreError: if the file cannot be created or opened, or is not a pin store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = f"the pin store {path}"
        self._uri = path.as_uri()
        self._file = open_file(path)
        self._state = State()
        self._idle: list[OpenConnection] = []
        self._made: list[weakref.ref[OpenConnection]] = []
        self._writer: OpenConnection | None = None
        self._writing = WritingThread(self._name)
        self._pid = os.getpid()
        self._closed = False
        track(self)
        self._open()

    # -- reading ----------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """The current state of the database. It stays the same object until somebody writes.

        Raises:
            StoreError: if the file cannot be read, or is not the one that was opened.
        """
        self._read("PRAGMA data_version", (), compare=True)
        return self._state

    def select(self, sql: str, parameters: tuple[object, ...] = ()) -> list[Row]:
        """All rows of one SELECT, fetched whole.

        Raises:
            StoreError: if the file cannot be read, or is not the one that was opened.
        """
        return self._read(sql, parameters, compare=False)

    def _read(self, sql: str, parameters: tuple[object, ...], *, compare: bool) -> list[Row]:
        self._check_usable()
        try:
            connection = self._take()
            try:
                rows: list[Row] = connection.execute(sql, parameters).fetchall()
                if connection.stamp:
                    self._check_stamp(connection)
                else:
                    self._file.check_at_times(connection)
                if compare and rows[0][0] != connection.data_version:
                    # In this order: if an exception comes in between, the connection looks again.
                    self._state = State()
                    connection.data_version = rows[0][0]
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)
        except _FAULTS as error:
            raise store_error(self.path, error) from None
        return rows

    def _take(self) -> OpenConnection:
        """A connection that nobody else uses, from the pool or new; never during a fork."""
        while True:
            with contextlib.suppress(ForkUnderWay):
                connection = self._pop() or self._open_reader()
                # Check again: the fork may have seen this one as idle in the pool.
                if not fork_under_way():
                    return connection
                connection.close()
            wait_for_forks(self._name)

    def _pop(self) -> OpenConnection | None:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was first
                return None
            connection.thread = threading.get_ident()
            if not connection.stamp or connection.stamp == self._stamp():
                return connection
            connection.close()
        return None

    def _open_reader(self) -> OpenConnection:
        """Open the file for reading. This connection can neither change the file nor merge its log."""
        try:
            return self._opened("mode=ro")
        except sqlite3.OperationalError:
            # To read a file in WAL mode SQLite creates a -shm beside it, which fails on a read-only medium.
            if os.access(self.path.parent, os.W_OK):
                raise
        stamp, log = self._stamp(), log_of(self.path)
        if log.exists() and log.stat().st_size:
            raise StoreError(
                f"{self._name} cannot be read: {log.name} holds pins that are not merged yet, and the "
                "folder cannot be written. Make it writable, or copy both files to a folder that is"
            )
        connection = self._opened("mode=ro&immutable=1")
        connection.stamp = stamp
        return connection

    def _opened(self, how: str, *, regardless: bool = False) -> OpenConnection:
        """A connection to the file that is at the path, even if the file is being replaced."""
        for _ in range(_ATTEMPTS):
            before = regular_file(self.path)
            if before is None:
                raise StoreError(
                    f"{self._name} was removed while it was in use. Put it back, or start the program again to begin "
                    "with no pins"
                )
            self._file.refuse_inherited()
            connection = OpenConnection(f"{self._uri}?{how}", self._file.connections, self._made, regardless=regardless)
            try:
                connection.execute(_FIRST_READ).fetchall()  # SQLite opens the log now
                if self._file.opened(connection, before):
                    return connection
                connection.close()
            except BaseException:
                connection.close()
                raise
        raise StoreError(f"{self._name} is being replaced again and again; check what else writes to its folder")

    def _check_stamp(self, connection: OpenConnection) -> None:
        if connection.stamp != self._stamp():
            raise StoreError(f"{self._name} was changed while it was read; try again")

    def _stamp(self) -> tuple[int, ...]:
        """The values that change when the file or its log is written, for connections that take no lock."""
        file = self.path.stat()
        log = log_of(self.path).stat() if log_of(self.path).exists() else None
        return (
            *(file.st_ino, file.st_size, file.st_mtime_ns),
            *((0, 0, 0) if log is None else (log.st_size, log.st_ino, log.st_mtime_ns)),
        )

    # -- writing ----------------------------------------------------------------------------------------------------

    @property
    def read_only(self) -> bool:
        """Whether the file, or its folder, cannot be written."""
        return not (os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK))

    def write(self, job: Callable[[sqlite3.Connection], _Value]) -> _Value:
        """Run `job` in one transaction on the writing thread. Return its result once the write is durable.

        The job has the write lock from its first read. An exception in it rolls everything back and is raised here.

        Raises:
            StoreError: if the file cannot be written; if another process holds its lock for longer than a second; or
                if it is not the file that was opened, so that the write may be lost.
        """
        return self._on_thread(lambda: self._transact(job))

    def write_later(self, job: Callable[[sqlite3.Connection], object]) -> None:
        """Run `job` like :meth:`write`, without waiting for it. A failure is logged."""
        self._check_usable()
        self._writing.do_later(lambda: self._transact_patiently(job))

    def _transact_patiently(self, job: Callable[[sqlite3.Connection], object]) -> None:
        failure: Exception | None = None
        for _ in range(_ATTEMPTS):
            try:
                self._transact(job)
            except sqlite3.OperationalError as error:  # another process writes
                failure = error
            except Exception as error:  # noqa: BLE001 - nobody waits for it
                failure = error
                break
            else:
                return
        logger.warning("%s: a write in the background failed: %s", self._name, failure)

    def _on_thread(self, act: Callable[[], _Value], *, patience: float = PATIENCE) -> _Value:
        self._check_usable()
        try:
            return self._writing.do(act, patience=patience)
        except _FAULTS as error:
            raise store_error(self.path, error) from None

    def _transact(self, job: Callable[[sqlite3.Connection], _Value]) -> _Value:
        self._check_usable()
        writer = self._writer or self._open_writer()
        self._file.check(writer)
        try:
            writer.execute("BEGIN IMMEDIATE")
            value = job(writer)
            writer.execute("COMMIT")
        except BaseException:
            self._close_writer()  # which rolls back
            raise
        self._file.check(writer)  # acknowledge nothing that went to a file which is no longer the store
        return value

    def _open_writer(self) -> OpenConnection:
        writer = self._opened("mode=rw", regardless=True)
        # FULL: NORMAL loses acknowledged commits at a power failure (sqlite.org/pragma.html).
        writer.execute("PRAGMA synchronous=FULL")
        writer.execute("PRAGMA temp_store=MEMORY")
        self._writer = writer
        return writer

    def _close_writer(self) -> None:
        """Close the connection that writes.

        The last connection to a file merges the log into it. If the log was replaced, that would overwrite the writes
        of others, so such a connection is never closed.
        """
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if self._file.has_lost(writer):
            never_close(writer)
        else:
            writer.close()

    def _open(self) -> None:
        """Create the file if there is none, and check that it is a pin store that can be read."""
        try:
            if regular_file(self.path) is None:
                self._on_thread(lambda: create(self.path))
            check_head(self.path)
        except _FAULTS as error:
            raise store_error(self.path, error) from None
        journal = self.path.with_name(f"{self.path.name}-journal")
        if journal.exists() or self.select("PRAGMA journal_mode") != [("wal",)]:
            self._on_thread(self._to_wal)

    def _to_wal(self) -> None:
        """Put a file made by VACUUM INTO into WAL mode, and roll back the journal of a program that was killed."""
        if self.read_only:
            return
        with contextlib.closing(sqlite3.connect(f"{self._uri}?mode=rw", timeout=PATIENCE, uri=True)) as connection:
            connection.execute("PRAGMA journal_mode=WAL").fetchall()

    # -- closing ----------------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Close every connection; the next use opens them again. Waits for reads and writes in progress."""
        caller = threading.get_ident()
        if self._pid != os.getpid():
            return
        if not fork_under_way():
            self._on_thread(lambda: self._close_connections(caller), patience=_CLOSING)
        elif self._writing.rests():
            # Here, since Python warns of a fork while another thread is alive.
            self._close_connections(caller)
        # If a write takes too long, its connection stays open, and the child of the fork refuses.

    def rest_later(self) -> None:
        """Run :meth:`rest` at some later time: for a finalizer, which may run anywhere and must not wait."""
        if self._pid == os.getpid() and not self._closed:
            self._writing.do_later(lambda: self._close_connections(0))

    def _close_connections(self, caller: int) -> None:
        """Close the readers first, so that the writer merges the log. A connection in use for over a second stays open.

        The child of a fork then refuses. To close a connection while a thread uses it would crash SQLite.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            while (connection := self._pop()) is not None:
                connection.close()
            # The caller's own connection cannot become free while the caller waits here: this is a finalizer or a
            # signal handler that has interrupted a look-up.
            used = [connection for connection in self._open_readers() if connection.thread != caller]
            if not used or time.monotonic() > deadline:
                break
            time.sleep(_PAUSE)
        self._close_writer()

    def _open_readers(self) -> list[OpenConnection]:
        return [each for each in living(self._made) if each is not self._writer]

    def close(self) -> None:
        """Close the database for good; any later use raises StoreError."""
        if not self._closed:
            try:
                self.rest()
            except (OSError, sqlite3.Error):
                self._closed = True
                raise
            self._closed = True  # last, so that close() can run again after an exception from a signal handler

    def renew(self) -> None:
        """Start again in the child of a fork: the pool belongs to the parent."""
        self._pid = os.getpid()
        # A connection that was still open belongs to the parent: it stays open here, and OpenFile refuses it.
        for connection in living(self._made):
            never_close(connection)
        self._state = State()
        self._idle, self._made, self._writer = [], [], None
        self._writing = WritingThread(self._name)

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreError(f"{self._name} is closed; open a new PinStore")
        if self._pid != os.getpid():  # a fork that bypassed Python's hooks
            self.renew()
