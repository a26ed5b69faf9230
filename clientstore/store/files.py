"""The file of a store: what kind it is, how it is made, and whether it is still the one that was opened.

SQLite must not be open across a fork. It keeps a list of the files that a process has open, the child inherits that
list, and the locks of the list are not the child's: its own new connection would take no lock at all (sqlite.org,
"How To Corrupt An SQLite Database File", 2.6). So connections close before a fork and open lazily on both sides. Where
a fork bypasses Python's hooks while a connection was open, the child refuses.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Protocol

from dynpin.errors import StoreError

from .advice import put_back

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has none, and there os.rename replaces no file
    fcntl = None

__all__ = [
    "PATIENCE",
    "OpenFile",
    "fork_under_way",
    "log_of",
    "making",
    "open_file",
    "regular_file",
    "track",
    "wait_for_forks",
]

# How long anything here waits for a lock, in seconds.
PATIENCE = 1.0
# How often look-ups look whether the file is still the one that is open, in seconds.
LOOK_EVERY = 0.5
_PAUSE = 0.002


def log_of(path: Path) -> Path:
    """The ``-wal`` of a store: SQLite's write-ahead log beside the file."""
    return path.with_name(f"{path.name}-wal")


def regular_file(path: Path) -> os.stat_result | None:
    """The status of the file; None where there is nothing at the path. Nothing is opened.

    Raises:
        StoreError: where something else than a plain file with one name is there.
        OSError: where it cannot be looked at.
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
    """Hold off other processes that would make the same store."""
    if fcntl is None:
        yield
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(f"another process is making the pin store {path}; try again") from None
                time.sleep(_PAUSE)
                continue
            except OSError:
                pass  # a network file system without flock: making a store takes milliseconds
            break
        yield
        os.fsync(folder)
    finally:
        os.close(folder)


class OpenFile:
    """One file of this process: which databases have it open, and which file that was.

    Attributes:
        path: the file.
        users: the process that opened it, for each database of this process that has it open, by the database's id.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.users: dict[int, int] = {}
        self._path, self._log = str(path), str(log_of(path))
        # Device, inode and number of names of the file; device and inode of its log.
        self._seen: tuple[int, ...] = ()
        self._seen_log: tuple[int, ...] = ()
        self._checked_at = 0.0

    def enter(self, user: int) -> None:
        """Announce that a database is about to open the file.

        Raises:
            StoreError: where this process has inherited an open connection to it.
        """
        pid = os.getpid()
        self.users.setdefault(user, pid)
        if any(opened_by != pid for opened_by in tuple(self.users.values())):
            raise StoreError(
                f"the pin store {self.path} was open when this process was forked past Python's own os.fork, so SQLite "
                "cannot lock it here. Open the PinStore after the fork (in uWSGI: lazy-apps = true)"
            )

    def leave(self, user: int) -> None:
        """Announce that a database has closed the file."""
        self.users.pop(user, None)
        if not self.users:
            self._seen = self._seen_log = ()

    def opened(self) -> None:
        """Remember which files were opened, where this is the first connection to them; else :meth:`check`.

        Raises:
            StoreError: where they are others than those that this process has open.
        """
        if not self._seen:
            self._seen = _identity(self._path)[:3]
        if not self._seen_log:
            self._seen_log = _identity(self._log)[:2]
        self.check()

    def check_at_times(self) -> None:
        """:meth:`check`, where it was not done for half a second: what a look-up waits for each time.

        Raises:
            StoreError: as :meth:`check` does.
        """
        now = time.monotonic()
        if now - self._checked_at > LOOK_EVERY:
            self.check()
            self._checked_at = now

    def check(self) -> None:
        """Look whether the path still leads to the files that are open; two calls of :func:`os.stat`.

        Raises:
            StoreError: where the file or its log was removed or replaced, or has another name by now.
        """
        if _identity(self._path)[:3] == self._seen and not self.log_is_lost:
            return
        regular_file(self.path)  # a second name has an error of its own
        what = "its -wal" if self.log_is_lost else "it"
        raise StoreError(
            f"the pin store {self.path} cannot be trusted any more: {what} was removed or replaced while it was in "
            f"use. Stop the programs that use it, and start them again; or, to restore a backup, {put_back(self.path)}"
        )

    @property
    def log_is_lost(self) -> bool:
        """Whether the log of the open file was removed or replaced: what SQLite writes then, nobody else reads."""
        return bool(self._seen_log) and _identity(self._log)[:2] != self._seen_log


def _identity(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)  # noqa: PTH116 - each look-up waits for it
    except FileNotFoundError:
        return ()
    return status.st_dev, status.st_ino, status.st_nlink


_files: dict[Path, OpenFile] = {}


def open_file(path: Path) -> OpenFile:
    """What this process shares about a file; a resolved path."""
    return _files.setdefault(path, OpenFile(path))


# -- fork -------------------------------------------------------------------------------------------------------------


class _Resting(Protocol):
    def rest(self) -> None: ...
    def renew(self) -> None: ...


_databases: dict[int, weakref.ref[_Resting]] = {}
# The threads that are about to fork. A set, since adding to it and looking at it are one step each.
_forking: set[int] = set()


def track(database: _Resting) -> None:
    """Have a database closed before each fork, and at the end of the process, for as long as it is alive."""
    key = id(database)
    _databases[key] = weakref.ref(database, lambda _: _databases.pop(key, None))


def _alive() -> Iterator[_Resting]:
    for reference in tuple(_databases.values()):
        database = reference()
        if database is not None:
            yield database


def fork_under_way() -> bool:
    """Whether nothing may be opened now."""
    return bool(_forking)


def wait_for_forks(name: str) -> None:
    """Wait while a fork is under way.

    Raises:
        StoreError: where it takes longer than :data:`PATIENCE`.
    """
    deadline = time.monotonic() + PATIENCE
    while _forking:
        if time.monotonic() > deadline:
            raise StoreError(f"{name} cannot be opened while a fork is under way; try again")
        time.sleep(_PAUSE)


def _before_fork() -> None:
    _forking.add(threading.get_ident())
    _rest_all()


def _after_in_parent() -> None:
    _forking.discard(threading.get_ident())


def _after_in_child() -> None:
    _forking.clear()
    for database in _alive():
        database.renew()


@atexit.register
def _rest_all() -> None:
    """Close what is open: before a fork, and at the end, so that no log is left beside a file."""
    for database in _alive():
        with contextlib.suppress(OSError, sqlite3.Error):
            database.rest()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
