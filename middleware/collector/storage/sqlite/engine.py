"""SQLite as an engine of the storage: one file, with no server to set up."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sqlalchemy import Connection

from dynpin.errors import StoreError

from ..sql import PATIENCE_S, write_proof
from ..values import Arrival, Counted
from .batch import add
from .connections import Connections
from .file import raw

__all__ = ["SQLiteEngine"]


class SQLiteEngine:
    """One SQLite file that threads and processes share safely.

    A full disk is no error here. Each use is one, until there is room.

    Args:
        path: the file, or a link to it; it is made with mode 0600.

    Raises:
        StoreError: if the file cannot be used; the message says what to do.
    """

    def __init__(self, path: Path) -> None:
        # SQLite follows a link, and its log is beside the file itself. A changed link counts from the next start.
        self._path = Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114 - never raises
        self._connections = Connections(self._path)

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def reading(self, patience: float = PATIENCE_S) -> AbstractContextManager[Connection]:
        """A connection for reading that nobody else uses at the same time."""
        return self._connections.reading()

    def writing(self, patience: float = PATIENCE_S) -> AbstractContextManager[Connection]:
        """A transaction on the one connection that writes. It is on the disk when it ends."""
        return self._connections.writing()

    @contextmanager
    def clearing(self) -> Generator[Connection]:
        """A transaction that deletes."""
        # Empty the log first. Then a deletion makes no file grow, and works on a full disk too. If there are readers
        # now, the next deletion empties the log.
        with contextlib.suppress(StoreError), self.reading() as db:
            raw(db).execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        with self.writing() as db:
            yield db

    def add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int], now: float) -> bool:
        """Store a batch."""
        with self.writing() as db:
            return add(raw(db), arrivals, outcomes)

    def bytes_used(self) -> int:
        """The bytes of the pages in use."""
        # Not the free pages, which the next reports fill.
        names = ("page_count", "freelist_count", "page_size")
        with self.reading() as db:
            pages, free, size = (raw(db).execute(f"PRAGMA {name}").fetchone()[0] for name in names)
        return int((pages - free) * size)

    def bytes_at_most(self) -> int:
        """The same number, since SQLite knows it."""
        return self.bytes_used()

    def probe(self, now: float, patience: float) -> None:
        """Write one row durably; wait for a lock for `patience` seconds at most."""
        with self._connections.writing_within(patience) as db:
            write_proof(db, now)

    def shared_clock(self, db: Connection, now: float) -> float:
        """The clock of this machine: all processes that share the file run on it."""
        return now

    def close(self) -> None:
        """Close every connection."""
        self._connections.close()
