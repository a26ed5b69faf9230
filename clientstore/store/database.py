"""The database that a store owns: plain SQLite, in WAL mode with ``synchronous=FULL``.

Reads. A connection is taken out of a pool, runs one statement, is fetched whole and goes back. There is no lock, so no
exception of a signal handler can leave one locked. A connection whose statement did not end well is closed and never
used again, so none can stay in an old snapshot. ``PRAGMA data_version`` tells, at each look, whether anything was
written since that connection looked last.

Writes. Each is one transaction on a thread of the database's own. Python runs signal handlers on the main thread
alone, so nothing can interrupt a transaction. The thread ends when nothing waits any more.

Forks. Every connection is closed before a fork and opened again on the next use; see :mod:`.files`.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import queue
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from dynpin.errors import StoreError

from .advice import store_error
from .files import PATIENCE, fork_under_way, log_of, open_file, register, regular_file, wait_for_forks
from .schema import SCHEMA, create, version_of

__all__ = ["Database", "State"]

_Value = TypeVar("_Value")
Row = tuple[Any, ...]

# How long a caller waits for the disk, in seconds; for a lock it is PATIENCE.
_LONGEST = 10.0
_PAUSE = 0.001


class _Connection(sqlite3.Connection):
    """A connection that can be referenced weakly, and that knows what it has seen."""

    data_version = -1
    is_open = True
    # The thread that has taken it out of the pool last.
    thread = 0
    # What a file without a log looked like when it was opened: SQLite does not tell when such a file changes.
    stamp: tuple[int, ...] = ()

    def close(self) -> None:
        self.is_open = False
        super().close()


class State:
    """What was read since the last write by anybody. Another write makes another state, so that nothing stale stays.

    Attributes:
        cached: what has been read; a place for the owner of the database.
    """

    __slots__ = ("__weakref__", "cached")

    def __init__(self) -> None:
        self.cached: dict[str, Any] = {}


class _Task(Generic[_Value]):
    """One thing to do on the thread that writes, and what came of it."""

    def __init__(self, act: Callable[[], _Value]) -> None:
        self.act = act
        self.due = time.monotonic() + PATIENCE
        # A plain lock is taken and released in one step each; Event and Future take a lock inside, which an exception
        # of a signal handler can leave locked.
        self.done = threading.Lock()
        self.done.acquire()
        self.result: list[_Value] = []
        self.error: BaseException | None = None


class Database:
    """One SQLite file, or a database in memory, that threads and processes share.

    Args:
        path: the file, resolved; None for memory.

    Raises:
        StoreError: where the file cannot be made or opened, or is no pin store.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._state = State()
        self._idle: list[_Connection] = []
        self._made: list[weakref.ref[_Connection]] = []
        # A token for each thread that opens a connection, or reads in memory, right now.
        self._busy: set[object] = set()
        self._writer: _Connection | None = None
        self._tasks: queue.SimpleQueue[_Task[Any]] = queue.SimpleQueue()
        self._writing = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        self._memory: _Connection | None = None
        if path is None:
            self._memory = _Connection(":memory:", isolation_level=None, check_same_thread=False)
            self._memory.executescript(SCHEMA)
        else:
            self._file = open_file(path)
            weakref.finalize(self, self._file.leave, id(self))
            self._on_writing_thread(self._make)
            self.select("SELECT 1 FROM facts")
            self.rest()
        _databases[id(self)] = weakref.ref(self)

    # -- reading ----------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """The state that the database is in now. While nobody writes it stays the same object.

        Raises:
            StoreError: where the file cannot be read, or is not the one that was opened.
        """
        if self._memory is not None:
            self._check_open()
            return self._state
        self._read("PRAGMA data_version", (), self._compare)
        return self._state

    def select(self, sql: str, parameters: tuple[object, ...] = ()) -> list[Row]:
        """All rows of one SELECT, fetched whole.

        Raises:
            StoreError: where the file cannot be read, or is not the one that was opened.
        """
        return self._read(sql, parameters, None)

    def _read(
        self, sql: str, parameters: tuple[object, ...], seen: Callable[[_Connection, list[Row]], None] | None
    ) -> list[Row]:
        self._check_open()
        try:
            if self._memory is not None:
                return self._read_memory(sql, parameters)
            connection = self._take()
            ended = False
            try:
                rows = connection.execute(sql, parameters).fetchall()
                self._file.check()
                if seen is not None:
                    seen(connection, rows)
                ended = True
            finally:
                if ended:
                    self._idle.append(connection)
                else:
                    connection.close()
            return rows
        except (sqlite3.Error, OSError) as error:
            raise store_error(self.path, error) from error

    def _compare(self, connection: _Connection, rows: list[Row]) -> None:
        version = rows[0][0]
        if version != connection.data_version:
            # In this order: whatever is raised in between, the connection looks again.
            self._state = State()
            connection.data_version = version

    def _read_memory(self, sql: str, parameters: tuple[object, ...]) -> list[Row]:
        assert self._memory is not None
        token = object()
        self._busy.add(token)
        try:
            return self._memory.execute(sql, parameters).fetchall()
        finally:
            self._busy.discard(token)

    def _take(self) -> _Connection:
        """A connection that nobody else uses, out of the pool or new; not while a fork is under way."""
        if self._pid != os.getpid():
            self.renew()
        while True:
            connection = self._pop() or self._connect()
            connection.thread = threading.get_ident()
            if not fork_under_way():
                return connection
            self._idle.append(connection)
            wait_for_forks(self._name)

    def _pop(self) -> _Connection | None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.is_open and (not connection.stamp or connection.stamp == self._stamp()):
                return connection
            connection.close()

    def _connect(self) -> _Connection:
        """A new connection for reading, once no fork is under way."""
        token = object()
        while True:
            # Announced before the look: a thread that forks first says so, and then waits for these.
            self._busy.add(token)
            if not wait_for_forks(self._name):
                break
            self._busy.discard(token)
        try:
            return self._open_reader()
        finally:
            self._busy.discard(token)

    def _open_reader(self) -> _Connection:
        """Open the file for reading. Such a connection can neither change it nor merge its log into it."""
        assert self.path is not None
        if regular_file(self.path) is None:
            raise StoreError(
                f"the pin store {self.path} was removed while it was in use. Put it back, or start the program "
                "again to begin with no pins"
            )
        self._file.enter(id(self))
        stamp: tuple[int, ...] = ()
        try:
            connection = self._opened("mode=ro")
            connection.execute("SELECT 1 FROM facts").fetchall()
        except sqlite3.OperationalError:
            # Reading a file in WAL mode makes a -shm beside it, which cannot be made on a read-only medium.
            if os.access(self.path.parent, os.W_OK) or self._has_log():
                raise
            stamp = self._stamp()
            connection = self._opened("mode=ro&immutable=1")
            connection.execute("SELECT 1 FROM facts").fetchall()
        connection.stamp = stamp
        self._file.opened()
        return connection

    def _opened(self, how: str) -> _Connection:
        assert self.path is not None
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?{how}",
            timeout=PATIENCE,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
            uri=True,
        )
        for reference in tuple(self._made):
            if reference() is None:
                with contextlib.suppress(ValueError):  # another thread was first
                    self._made.remove(reference)
        self._made.append(weakref.ref(connection))
        return connection

    def _has_log(self) -> bool:
        assert self.path is not None
        log = log_of(self.path)
        if log.exists() and log.stat().st_size:
            raise StoreError(
                f"the pin store {self.path} cannot be read: {log.name} holds pins that are not merged yet, and the "
                "folder cannot be written. Make it writable, or copy both files to a folder that is"
            )
        return False

    def _stamp(self) -> tuple[int, ...]:
        assert self.path is not None
        status = self.path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns

    # -- writing ----------------------------------------------------------------------------------------------------

    @property
    def read_only(self) -> bool:
        """Whether the file, or its folder, cannot be written."""
        return self.path is not None and not (os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK))

    def write(self, job: Callable[[sqlite3.Connection], _Value]) -> _Value:
        """Run `job` in one transaction, on the thread that writes, and return what it returns once that is durable.

        The job has the write lock from its first read on. What it raises rolls everything back and is raised here.

        Raises:
            StoreError: where the file cannot be written; where another process holds its lock for longer than a
                second; or where it is not the file that was opened, so that the write may be lost.
        """
        return self._on_writing_thread(lambda: self._transact(job))

    def write_later(self, job: Callable[[sqlite3.Connection], object]) -> None:
        """Run `job` like :meth:`write`, and do not wait for it. What it raises is lost: the job must tell of it."""
        self._begin(_Task(lambda: self._transact(job)))

    def _on_writing_thread(self, act: Callable[[], _Value]) -> _Value:
        self._check_open()
        if self._pid != os.getpid():
            self.renew()
        task = _Task(act)
        self._begin(task)
        if not task.done.acquire(timeout=_LONGEST):
            raise StoreError(f"the disk of {self._name} did not answer for {_LONGEST:g} seconds; see what holds it up")
        if task.error is not None:
            raise task.error
        return task.result[0]

    def _begin(self, task: _Task[Any]) -> None:
        self._tasks.put(task)
        if self._writing.locked():
            return  # the thread that holds it looks for tasks again after it has released it
        self._start()

    def _start(self) -> None:
        try:
            _thread.start_new_thread(self._work, ())
        except RuntimeError:  # the interpreter is going down
            self._work()

    def _work(self) -> None:
        while not self._tasks.empty():
            if not self._writing.acquire(blocking=False):
                return
            try:
                # Announced before the look, as in _take: whoever forks waits for this lock.
                if not fork_under_way():
                    self._do_tasks()
            finally:
                self._writing.release()
            if fork_under_way():
                time.sleep(_PAUSE)

    def _do_tasks(self) -> None:
        while not fork_under_way():
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                return
            try:
                if time.monotonic() > task.due:
                    raise StoreError(f"{self._name} is busy: another write holds it; try again")
                task.result.append(task.act())
            except (sqlite3.Error, OSError) as error:
                task.error = store_error(self.path, error)
            except BaseException as error:  # noqa: BLE001 - it is raised where the caller waits
                task.error = error
            finally:
                task.done.release()

    def _transact(self, job: Callable[[sqlite3.Connection], _Value]) -> _Value:
        connection = self._memory or self._writer or self._open_writer()
        if self._memory is None:
            self._file.check()
        ended = False
        try:
            connection.execute("BEGIN IMMEDIATE")
            value = job(connection)
            connection.execute("COMMIT")
            ended = True
        finally:
            if self._memory is not None:
                if not ended and connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._state = State()  # data_version does not tell a connection of its own commits
            elif not ended:
                self._close_writer()
        if self._memory is None:
            self._file.check()  # nothing is acknowledged that went to a file which is not the store any more
        return value

    def _open_writer(self) -> _Connection:
        assert self.path is not None
        # A reader is open from here on: see _close_writer. No fork comes between, since it waits for this thread.
        self._idle.append(self._pop() or self._open_reader())
        connection = self._opened("mode=rw")
        try:
            # FULL, since NORMAL forgets acknowledged commits when the power fails (sqlite.org/pragma.html).
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA temp_store=MEMORY")
            connection.execute("SELECT 1 FROM facts").fetchall()
            self._file.opened()
        except BaseException:
            connection.close()
            raise
        self._writer = connection
        return connection

    def _close_writer(self) -> None:
        """Close the connection that writes.

        The last connection to a file merges the log into it. Where the log was replaced that would overwrite what
        others have written, so such a connection stays open for the life of the process, beside a reader: SQLite
        merges nothing while another connection of the process is open.
        """
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if self._file.log_is_lost:
            reader = self._opened("mode=ro")
            reader.execute("SELECT 1 FROM facts").fetchall()
            _left_open.extend((reader, writer))
        else:
            writer.close()

    def _make(self) -> None:
        assert self.path is not None
        if regular_file(self.path) is None:
            create(self.path)
        version_of(self.path)

    # -- closing ----------------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Close every connection; the next use opens them again. Waits for reads and writes that are under way."""
        if self._memory is not None:
            self._wait_until(lambda: not self._busy)
            return
        if self._pid != os.getpid() or not self._writing.acquire(timeout=5 * PATIENCE):
            return  # what stays open is refused in the child
        try:
            lost = self._writer is not None and self._file.log_is_lost
            if lost:
                self._close_writer()
            if self._wait_until(self._close_readers) and not lost:
                self._close_writer()
                self._file.leave(id(self))
        finally:
            self._writing.release()
            if not self._tasks.empty():  # they came while this thread held the lock
                self._start()

    def _close_readers(self) -> bool:
        """Close the readers that nobody uses; True where none is left."""
        while (connection := self._pop()) is not None:
            connection.close()
        left = [found for reference in self._made if (found := reference()) is not None and found is not self._writer]
        for connection in left:
            # One of this thread's own was lost: an exception kept it from going back.
            if connection.is_open and connection.thread == threading.get_ident():
                connection.close()
        return not self._busy and not any(connection.is_open for connection in left)

    def _wait_until(self, done: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                self._busy.clear()  # an exception may have lost a token
                return False
            time.sleep(_PAUSE)
        return True

    def close(self) -> None:
        """Close the database for good; what uses it afterwards gets a StoreError."""
        self._closed = True
        self.rest()
        if self._memory is not None:
            self._memory.close()
        _databases.pop(id(self), None)

    def renew(self) -> None:
        """Begin anew in the child of a fork: locks and threads are the parent's."""
        self._pid = os.getpid()
        self._state = State()
        self._busy = set()
        self._tasks = queue.SimpleQueue()
        self._writing = threading.Lock()
        # What was open all the same is never closed here: see files.OpenFile.enter.
        _left_open.extend(self._idle)
        if self._writer is not None:
            _left_open.append(self._writer)
        self._idle, self._made, self._writer = [], [], None

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self._name} is closed; open a new PinStore")

    @property
    def _name(self) -> str:
        return "the pin store in memory" if self.path is None else f"the pin store {self.path}"


_databases: dict[int, weakref.ref[Database]] = {}
_left_open: list[_Connection] = []


def _alive() -> Iterator[Database]:
    for reference in tuple(_databases.values()):
        database = reference()
        if database is not None:
            yield database


@atexit.register
def _rest_all() -> None:
    """Close what a program has left open, so that no log is left beside the file."""
    for database in _alive():
        with contextlib.suppress(StoreError, OSError, sqlite3.Error):
            database.rest()


register(_alive)
