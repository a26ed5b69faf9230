"""The file of a store: what kind of file it is, how it is created, and whether it is still the one that was opened.

SQLite must not be open across a fork. It keeps a list of the files that a process has open. The child inherits that
list but not the locks, so its new connections would take no lock at all (sqlite.org, "How To Corrupt An SQLite Database
File", 2.6). So connections close before a fork and open lazily on both sides. If a fork bypasses Python's hooks while a
connection is open, the child refuses.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import sqlite3
import stat
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeVar

from dynpin.errors import StoreError

from .advice import put_back

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has no fcntl, and its os.rename does not replace a file
    fcntl = None

__all__ = [
    "PATIENCE",
    "OpenFile",
    "fork_under_way",
    "living",
    "log_of",
    "making",
    "open_file",
    "regular_file",
    "track",
    "wait_for_forks",
]

# How long to wait for a lock, in seconds.
PATIENCE = 1.0
# How often look-ups check that the open file is still the one at the path, in seconds.
LOOK_EVERY = 0.5
_PAUSE = 0.002


def log_of(path: Path) -> Path:
    """The ``-wal`` of a store: SQLite's write-ahead log, beside the file."""
    return path.with_name(f"{path.name}-wal")


def regular_file(path: Path) -> os.stat_result | None:
    """The status of the file; None if there is nothing at the path. Opens nothing.

    Raises:
        StoreError: if it is not a plain file with exactly one name.
        OSError: if its status cannot be read.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"the pin store {path} is not a file but {_kind(status.st_mode)}; name a file")
    if status.st_nlink > 1:
        raise StoreError(
            f"the pin store {path} has {status.st_nlink} names (hard links). SQLite keeps a log for each name, so pins "
            f"would be lost. Remove the other names; find them with:  find FOLDER -samefile {path}"
        )
    return status


def _kind(mode: int) -> str:
    kinds: list[tuple[Callable[[int], bool], str]] = [
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
    ]
    return next((name for test, name in kinds if test(mode)), "a device")


@contextmanager
def making(path: Path) -> Generator[None]:
    """Keep other processes from creating the same store at the same time."""
    if fcntl is None:
        yield
        return
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except PermissionError:  # a folder that can be written but not listed: creating a store takes milliseconds
        yield
        return
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(f"another process is creating the pin store {path}; try again") from None
                time.sleep(_PAUSE)
                continue
            except OSError:
                pass  # a network file system without flock: creating a store takes milliseconds
            break
        yield
        with _unless_unsupported():
            os.fsync(folder)  # so that the new file's name survives a power failure
    finally:
        os.close(folder)


@contextmanager
def _unless_unsupported() -> Generator[None]:
    """Ignore that a file system cannot do this to a folder, as SQLite does; a fault of the disk is raised."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP):
            raise


class Connection(Protocol):
    """What this module needs to know about a connection.

    Attributes:
        is_open: whether it is open, or about to be.
        pid: the process that opened it; 0 before that.
        files: the files that it has open, as :meth:`OpenFile.identity` gave them when it opened; empty before that, and
            when it begins to close.
        checked_at: when they were compared last, by :func:`time.monotonic`.
    """

    is_open: bool
    pid: int
    files: tuple[int, ...]
    checked_at: float


_Connection = TypeVar("_Connection", bound=Connection)


def living(connections: list[weakref.ref[_Connection]]) -> list[_Connection]:
    """The connections of a list that are open or opening. Removes freed ones in place, since others may append."""
    for reference in tuple(connections):
        if reference() is None:
            with contextlib.suppress(ValueError):  # another thread has removed it
                connections.remove(reference)
    found = [reference() for reference in tuple(connections)]
    return [connection for connection in found if connection is not None and connection.is_open]


class OpenFile:
    """One file of this process and all connections to it, from any database.

    Attributes:
        path: the file.
        connections: every connection of this process, added before it opens.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections: list[weakref.ref[Connection]] = []
        self._paths = tuple(str(path) + suffix for suffix in ("", "-wal", "-shm"))

    def identity(self) -> tuple[int, ...]:
        """The files at the path: device, inode and number of names of the file, its -wal and its -shm."""
        found: tuple[int, ...] = ()
        for path in self._paths:
            try:
                status = os.stat(path)  # noqa: PTH116 - look-ups wait for it
            except FileNotFoundError:
                found += (0, 0, 0)
            else:
                found += (status.st_dev, status.st_ino, status.st_nlink)
        return found

    def refuse_inherited(self) -> None:
        """Refuse to open the file in a process that has inherited a connection to it.

        Raises:
            StoreError: if the process has inherited one.
        """
        pid = os.getpid()
        if any(connection.pid not in (0, pid) for connection in living(self.connections)):
            raise StoreError(
                f"the pin store {self.path} was open when this process was forked without Python's os.fork, so SQLite "
                "cannot lock it here. Open the PinStore after the fork (in uWSGI: lazy-apps = true)"
            )

    def opened(self, connection: Connection, before: os.stat_result) -> bool:
        """Record which files a connection has opened; False if the file was replaced since `before`.

        Raises:
            StoreError: if another connection has other files open: neither would read what the other writes.
        """
        connection.files = self.identity()
        if connection.files[:2] != (before.st_dev, before.st_ino):
            return False
        for other in living(self.connections):
            if other.files not in ((), connection.files):  # () is closing, or is opening and will check then
                self._refuse(other.files, connection.files)
        return True

    def check_at_times(self, connection: Connection) -> None:
        """Run :meth:`check` if the last one was more than half a second ago. Each look-up waits for this.

        Raises:
            StoreError: as :meth:`check` does.
        """
        now = time.monotonic()
        if now - connection.checked_at > LOOK_EVERY:
            self.check(connection)
            connection.checked_at = now

    def check(self, connection: Connection) -> None:
        """Check that the path still leads to the files that the connection has open.

        Raises:
            StoreError: if one of them was removed, replaced or renamed.
        """
        now = self.identity()
        if now != connection.files:
            self._refuse(connection.files, now)

    def has_lost(self, connection: Connection) -> bool:
        """Whether the file is the same but its log was replaced: nobody else would read this connection's writes."""
        now = self.identity()
        return now[:3] == connection.files[:3] and now != connection.files

    def _refuse(self, before: tuple[int, ...], now: tuple[int, ...]) -> None:
        regular_file(self.path)  # raises its own error for a second name
        what = "it" if before[:3] != now[:3] else "its -wal" if before[3:6] != now[3:6] else "its -shm"
        raise StoreError(
            f"the pin store {self.path} cannot be trusted any more: {what} was removed or replaced while it was in "
            f"use. Stop the programs that use it, and start them again; or, to restore a backup, {put_back(self.path)}"
        )


_files: dict[Path, OpenFile] = {}


def open_file(path: Path) -> OpenFile:
    """The :class:`OpenFile` that this process shares for a resolved path."""
    return _files.setdefault(path, OpenFile(path))


# -- fork -------------------------------------------------------------------------------------------------------------


class _Resting(Protocol):
    def rest(self) -> None: ...
    def renew(self) -> None: ...


_databases: dict[int, weakref.ref[_Resting]] = {}
# One element for each fork in progress. Each change is a single step of the interpreter, so that an exception from a
# signal handler cannot interrupt it.
_forking: list[None] = []


def track(database: _Resting) -> None:
    """Close a database before each fork and at the end of the process, for as long as it is alive."""
    key = id(database)
    _databases[key] = weakref.ref(database, lambda _: _databases.pop(key, None))


def _living_databases() -> Iterator[_Resting]:
    for reference in tuple(_databases.values()):
        database = reference()
        if database is not None:
            yield database


def fork_under_way() -> bool:
    """Whether a fork is in progress, so that nothing may be opened."""
    return bool(_forking)


def wait_for_forks(name: str) -> None:
    """Wait until no fork is in progress.

    Raises:
        StoreError: if it takes longer than :data:`PATIENCE`.
    """
    deadline = time.monotonic() + PATIENCE
    while _forking:
        if time.monotonic() > deadline:
            raise StoreError(f"{name} cannot be opened during a fork; try again")
        time.sleep(_PAUSE)


@atexit.register
def _rest_all() -> None:
    """Close everything before a fork, and at the end of the process, so that no log is left beside a file."""
    for database in _living_databases():
        with contextlib.suppress(OSError, sqlite3.Error):
            database.rest()


def _renew_all() -> None:
    for database in _living_databases():
        database.renew()


if hasattr(os, "register_at_fork"):
    # Before a fork, hooks run in reverse order of registration: first the fork is announced, then everything is closed.
    os.register_at_fork(before=_rest_all, after_in_child=_renew_all)
    os.register_at_fork(
        before=partial(_forking.append, None), after_in_parent=_forking.pop, after_in_child=_forking.clear
    )
