"""The database that a store owns: one plain SQLite file, in WAL mode with ``synchronous=FULL``.

Reads. A connection is taken out of a pool, runs one statement, is fetched whole and goes back. There is no lock, so no
exception of a signal handler can leave one locked. A connection whose statement did not end well is closed and never
used again, so none can stay in an old snapshot. ``PRAGMA data_version`` tells, at each look, whether anything was
written since that connection looked last; it is compared within one connection, as its manual asks for.

Writes. Each is one transaction on a thread of the database's own; see :mod:`.writing`.

Forks. Every connection is closed before a fork and opened again on the next use; see :mod:`.files`.
"""

from __future__ import annotations

import contextlib
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
from .files import PATIENCE, fork_under_way, log_of, open_file, regular_file, track, wait_for_forks
from .schema import create, version_of
from .state import State
from .writing import WritingThread

__all__ = ["Database"]

_Value = TypeVar("_Value")
Row = tuple[Any, ...]

_PAUSE = 0.001
_FIRST_READ = "SELECT 1 FROM facts"


class _Connection(sqlite3.Connection):
    """A connection that is known to its database from the moment on at which it may be open, and what it has seen.

    Args:
        uri: the file, and how to open it.
        made: the connections of the database.
    """

    def __init__(self, uri: str, made: list[weakref.ref[_Connection]]) -> None:
        self.is_open = True
        # The thread that has taken it out of the pool last.
        self.thread = threading.get_ident()
        self.data_version = -1
        # What a file without a log looked like when it was opened: SQLite does not tell when such a file changes.
        self.stamp: tuple[int, ...] = ()
        made.append(weakref.ref(self))
        super().__init__(uri, timeout=PATIENCE, isolation_level=None, check_same_thread=False, uri=True)

    def close(self) -> None:
        """As sqlite3's, and no error where an exception kept it from being opened."""
        self.is_open = False
        with contextlib.suppress(sqlite3.ProgrammingError):
            super().close()


class Database:
    """One SQLite file that threads and processes share. Nothing is open before the first use.

    Args:
        path: the file, resolved; made where there is none.

    Raises:
        StoreError: where the file cannot be made or opened, or is no pin store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = f"the pin store {path}"
        self._uri = path.as_uri()
        self._file = open_file(path)
        # Not at exit: a report that is on its way still uses the file then.
        weakref.finalize(self, self._file.leave, id(self)).atexit = False
        self._state = State()
        self._idle: list[_Connection] = []
        self._made: list[weakref.ref[_Connection]] = []
        # The threads that are opening a connection, by a token for each time.
        self._opening: dict[object, int] = {}
        self._writer: _Connection | None = None
        self._writing = WritingThread(self._name)
        self._pid = os.getpid()
        self._closed = False
        track(self)
        self._on_thread(self._make)
        self.select(_FIRST_READ)
        self.rest()

    # -- reading ----------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """The state that the database is in now. While nobody writes it stays the same object.

        Raises:
            StoreError: where the file cannot be read, or is not the one that was opened.
        """
        self._read("PRAGMA data_version", (), compare=True)
        return self._state

    def select(self, sql: str, parameters: tuple[object, ...] = ()) -> list[Row]:
        """All rows of one SELECT, fetched whole.

        Raises:
            StoreError: where the file cannot be read, or is not the one that was opened.
        """
        return self._read(sql, parameters, compare=False)

    def _read(self, sql: str, parameters: tuple[object, ...], *, compare: bool) -> list[Row]:
        if self._closed or self._pid != os.getpid():
            self._check_usable()
        try:
            connection = self._take()
            ended = False
            try:
                rows: list[Row] = connection.execute(sql, parameters).fetchall()
                self._file.check_at_times()
                if compare and rows[0][0] != connection.data_version:
                    # In this order: whatever is raised in between, the connection looks again.
                    self._state = State()
                    connection.data_version = rows[0][0]
                ended = True
            finally:
                if ended:
                    self._idle.append(connection)
                else:
                    connection.close()
        except StoreError:
            raise
        except (sqlite3.Error, OSError) as error:
            raise store_error(self.path, error) from error
        return rows

    def _take(self) -> _Connection:
        """A connection that nobody else uses, out of the pool or new; not while a fork is under way."""
        while True:
            connection = self._pop() or self._connect()
            connection.thread = threading.get_ident()
            if not fork_under_way():
                return connection
            self._idle.append(connection)
            wait_for_forks(self._name)

    def _pop(self) -> _Connection | None:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was first
                return None
            if connection.is_open and (not connection.stamp or connection.stamp == self._stamp()):
                return connection
            connection.close()
        return None

    def _connect(self) -> _Connection:
        """A new connection for reading, once no fork is under way."""
        token = object()
        while True:
            # Announced before the look: a thread that forks says so first, and then waits for these.
            self._opening[token] = threading.get_ident()
            if not fork_under_way():
                break
            self._opening.pop(token, None)
            wait_for_forks(self._name)
        try:
            return self._open_reader()
        finally:
            self._opening.pop(token, None)

    def _open_reader(self) -> _Connection:
        """Open the file for reading. Such a connection can neither change it nor merge its log into it."""
        if regular_file(self.path) is None:
            raise StoreError(
                f"{self._name} was removed while it was in use. Put it back, or start the program again to begin with "
                "no pins"
            )
        self._file.enter(id(self))
        stamp: tuple[int, ...] = ()
        try:
            connection = self._opened("mode=ro")
        except sqlite3.OperationalError:
            # Reading a file in WAL mode makes a -shm beside it, which cannot be made on a read-only medium.
            if os.access(self.path.parent, os.W_OK):
                raise
            self._refuse_log()
            stamp = self._stamp()
            connection = self._opened("mode=ro&immutable=1")
        connection.stamp = stamp
        self._file.opened()
        return connection

    def _opened(self, how: str) -> _Connection:
        for reference in tuple(self._made):
            if reference() is None:
                with contextlib.suppress(ValueError):  # another thread was first
                    self._made.remove(reference)
        connection = _Connection(f"{self._uri}?{how}", self._made)
        try:
            connection.execute(_FIRST_READ).fetchall()  # SQLite opens the log now
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_log(self) -> None:
        log = log_of(self.path)
        if log.exists() and log.stat().st_size:
            raise StoreError(
                f"{self._name} cannot be read: {log.name} holds pins that are not merged yet, and the folder cannot be "
                "written. Make it writable, or copy both files to a folder that is"
            )

    def _stamp(self) -> tuple[int, ...]:
        status = self.path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns

    # -- writing ----------------------------------------------------------------------------------------------------

    @property
    def read_only(self) -> bool:
        """Whether the file, or its folder, cannot be written."""
        return not (os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK))

    def write(self, job: Callable[[sqlite3.Connection], _Value]) -> _Value:
        """Run `job` in one transaction, on the thread that writes, and return what it returns once that is durable.

        The job has the write lock from its first read on. What it raises rolls everything back and is raised here.

        Raises:
            StoreError: where the file cannot be written; where another process holds its lock for longer than a
                second; or where it is not the file that was opened, so that the write may be lost.
        """
        return self._on_thread(lambda: self._transact(job))

    def write_later(self, job: Callable[[sqlite3.Connection], object]) -> None:
        """Run `job` like :meth:`write`, and do not wait for it. What it raises is lost: the job must tell of it."""
        self._check_usable()
        self._writing.do_later(lambda: self._transact(job))

    def _on_thread(self, act: Callable[[], _Value]) -> _Value:
        self._check_usable()
        try:
            return self._writing.do(act)
        except StoreError:
            raise
        except (sqlite3.Error, OSError) as error:
            raise store_error(self.path, error) from error

    def _transact(self, job: Callable[[sqlite3.Connection], _Value]) -> _Value:
        self._check_usable()
        writer = self._writer or self._open_writer()
        self._file.check()
        ended = False
        try:
            writer.execute("BEGIN IMMEDIATE")
            value = job(writer)
            writer.execute("COMMIT")
            ended = True
        finally:
            if not ended:
                self._close_writer()  # which rolls back
        self._file.check()  # nothing is acknowledged that went to a file which is not the store any more
        return value

    def _open_writer(self) -> _Connection:
        # Behind a reader, which looks at the file first. No fork comes between, since it waits for this thread.
        self._idle.append(self._pop() or self._open_reader())
        writer = self._opened("mode=rw")
        # FULL, since NORMAL forgets acknowledged commits when the power fails (sqlite.org/pragma.html).
        writer.execute("PRAGMA synchronous=FULL")
        writer.execute("PRAGMA temp_store=MEMORY")
        self._writer = writer
        self._file.opened()
        return writer

    def _close_writer(self) -> None:
        """Close the connection that writes.

        The last connection to a file merges the log into it. Where the log was replaced, that would overwrite what
        others have written, so such a connection is never closed.
        """
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if self._file.log_is_lost:
            _never_close(writer)
        else:
            writer.close()

    def _make(self) -> None:
        if regular_file(self.path) is None:
            create(self.path)
        version_of(self.path)

    # -- closing ----------------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Close every connection; the next use opens them again. Waits for reads and writes that are under way."""
        caller = threading.get_ident()
        if self._pid != os.getpid():
            return
        if not fork_under_way():
            self._writing.do(lambda: self._close_connections(caller))
        elif self._writing.rests():
            # Here, since Python warns of a fork while another thread is alive.
            self._close_connections(caller)

    def _close_connections(self, caller: int) -> None:
        """What stays open, as somebody uses it for longer than a second, is refused in the child of a fork."""
        lost = self._writer is not None and self._file.log_is_lost
        if lost:
            self._close_writer()
        if self._close_readers(caller) and not lost:
            self._close_writer()
            self._file.leave(id(self))

    def _close_readers(self, caller: int) -> bool:
        """Close the readers once nobody uses them; False where somebody uses one for longer than a second."""
        deadline = time.monotonic() + PATIENCE
        while True:
            while (connection := self._pop()) is not None:
                connection.close()
            alive = [connection for reference in tuple(self._made) if (connection := reference()) is not None]
            left = [connection for connection in alive if connection.is_open and connection is not self._writer]
            # The caller waits, so what it has taken was lost: an exception kept it from going back.
            for connection in left:
                if connection.thread == caller:
                    connection.close()
            opening = any(thread != caller for thread in tuple(self._opening.values()))
            if not opening and not any(connection.is_open for connection in left):
                self._opening.clear()
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)

    def close(self) -> None:
        """Close the database for good; what uses it afterwards gets a StoreError."""
        self.rest()
        self._closed = True

    def renew(self) -> None:
        """Begin anew in the child of a fork: the pool is the parent's."""
        self._pid = os.getpid()
        # What was open all the same is the parent's, and refused: see OpenFile.enter.
        for reference in self._made:
            connection = reference()
            if connection is not None:
                _never_close(connection)
        self._state = State()
        self._idle, self._made, self._opening, self._writer = [], [], {}, None

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreError(f"{self._name} is closed; open a new PinStore")
        if self._pid != os.getpid():  # a fork that bypassed Python's hooks
            self.renew()


def _never_close(connection: _Connection) -> None:
    """Keep SQLite from ending a connection in its own way, at the end of the process too; the system closes its files.

    Python 3.12 has a setting of SQLite's for that (SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE), and 3.11 has not.
    """
    import ctypes  # noqa: PLC0415 - for this alone

    connection.is_open = False
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
