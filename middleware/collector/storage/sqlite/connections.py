"""The connections to the file: one writes, and each reader has its own while it reads.

After each commit and before each read, the path is compared with the open files. A write to a file that is no longer
at the path raises an error: it was not stored.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy import Engine as SQLAlchemyEngine

from dynpin.errors import StoreError

from ...fork import renew_after_fork
from .file import FullDisk, check_schema, make_file, prepare, sql_engine, storage_errors, transaction

__all__ = ["Connections"]

# How many connections are kept for the next reader.
_IDLE_READERS = 4

Identity = tuple[int, ...]


class _Open:
    """A connection and its open files."""

    def __init__(self, engine: SQLAlchemyEngine, path: Path) -> None:
        before = _identity(path)
        self.connection = engine.connect()
        try:
            # The log and its index exist after the first read.
            self.connection.execute(text("SELECT count(*) FROM sqlite_schema")).all()
            self.connection.rollback()
            self.files = _identity(path)
        except BaseException:
            self.connection.close()
            raise
        if self.files[:2] != before[:2] or not self.files[0]:
            self.connection.close()
            raise _replaced(path)

    def check(self, path: Path) -> None:
        """Raise if the path now leads to other files."""
        if not self.is_at(path):
            raise _replaced(path)

    def is_at(self, path: Path) -> bool:
        """Whether the path still leads to the open files."""
        return _identity(path) == self.files

    def close(self) -> None:
        self.connection.close()


class Connections:
    """The connections of one process to one file.

    Args:
        path: the file; it is made if there is none.

    Raises:
        StoreError: if the file cannot be used. On a full disk it is prepared later, at the first use with enough room.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = sql_engine(path)
        self._last: Identity | None = None  # the files of the last connection
        self._prepared: Identity | None = None  # the file that was prepared last
        self.renew()
        renew_after_fork(self)
        make_file(path)
        with suppress(FullDisk):
            self._prepare()

    def renew(self) -> None:
        """Start without connections; those of a parent process stay open."""
        self._lock = threading.Lock()
        self._writer: _Open | None = None
        self._idle: list[_Open] = []

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """A transaction on the one connection that writes. At its end it is on the disk, in the file at the path.

        Raises:
            StoreError: if it is not.
        """
        with self._lock, storage_errors(self.path):
            if self._writer is not None and not self._writer.is_at(self.path):
                self._drop()  # the file that is there now may be usable
            if self._writer is None:
                self._writer = self._open(self._engine)
            try:
                with transaction(self._writer.connection):
                    check_schema(self._writer.connection, self.path)
                    yield self._writer.connection
                self._writer.check(self.path)
            except BaseException:
                # The connections may be in any state. Close all of them: only then does SQLite make a lost log again.
                self._drop()
                raise

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """A connection for reading that nobody else uses at the same time."""
        # Not one for each thread: the threads of a server end, and would leave their connections open.
        idle = self._idle
        with storage_errors(self.path):
            one = self._reader(idle)
            try:
                check_schema(one.connection, self.path)
                yield one.connection
                one.connection.rollback()
            except BaseException:
                one.close()
                raise
            if idle is self._idle and len(idle) < _IDLE_READERS:
                idle.append(one)
            else:
                one.close()

    @contextmanager
    def writing_within(self, patience: float) -> Generator[Connection]:
        """A transaction on its own connection, which waits for a lock for `patience` seconds at most.

        Raises:
            StoreError: if it is not on the disk, in the file at the path.
        """
        with storage_errors(self.path):
            one = self._open(sql_engine(self.path, patience))
            try:
                with transaction(one.connection):
                    check_schema(one.connection, self.path)
                    yield one.connection
                one.check(self.path)
            finally:
                one.close()

    def close(self) -> None:
        """Close every connection; new ones are opened when they are needed."""
        with self._lock:
            self._drop()

    def _prepare(self) -> None:
        """Prepare the file that is at the path now, which may be another one than before."""
        there, last = _identity(self.path), self._last
        if last is not None and there[0] and there[:2] != last[:2] and _share_a_log(there, last):
            # A copy has replaced the file, but the old file's log is still there: SQLite would apply it to the copy.
            raise _log_of_another(self.path)
        if there[:2] != self._prepared:
            prepare(self.path, may_be_empty=self._prepared is None)
            self._prepared = there[:2]

    def _open(self, engine: SQLAlchemyEngine) -> _Open:
        self._prepare()
        one = _Open(engine, self.path)
        self._last = one.files
        return one

    def _reader(self, idle: list[_Open]) -> _Open:
        while True:
            try:
                one = idle.pop()
            except IndexError:
                return self._open(self._engine)
            if one.is_at(self.path):
                return one
            one.close()

    def _drop(self) -> None:
        # A connection that is in use is closed by its reader.
        idle, self._idle = self._idle, []
        for one in idle:
            one.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _identity(path: Path) -> Identity:
    """The files at the path: device and inode of the file, its -wal and its -shm; 0 if there is none."""
    found: Identity = ()
    for suffix in ("", "-wal", "-shm"):
        try:
            status = os.stat(f"{path}{suffix}")  # noqa: PTH116 - each page waits for it
        except FileNotFoundError:
            found += (0, 0)
        else:
            found += (status.st_dev, status.st_ino)
    return found


def _share_a_log(one: Identity, other: Identity) -> bool:
    return any(one[file] and one[file : file + 2] == other[file : file + 2] for file in (2, 4))


def _replaced(path: Path) -> StoreError:
    return StoreError(
        f"the report storage {path} was removed or replaced while it was in use, so nothing is stored; put the file "
        "back with its -wal, or start the collector again to make a new one"
    )


def _log_of_another(path: Path) -> StoreError:
    return StoreError(
        f"the report storage {path} was replaced, but the log of the old file is still there, so nothing is stored; "
        f"stop the collector, move {path.name}-wal and {path.name}-shm to the old file, whose last reports they hold, "
        "and start it again"
    )
