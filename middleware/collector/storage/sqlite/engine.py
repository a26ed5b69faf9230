"""SQLite as an engine of the storage: one file, embedded, nothing to set up."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sqlalchemy import Connection

from dynpin.errors import StoreError

from ..sql import PATIENCE_S, write_proof
from ..values import Arrival, Counted
from .batch import add
from .connections import Connections
from .file import open_database, raw

__all__ = ["SQLiteEngine"]


class SQLiteEngine:
    """One SQLite file that threads and processes share safely.

    Args:
        path: the file; made with mode 0600.

    Raises:
        StoreError: where the file cannot be used; the message says what to do.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        open_database(path)
        self._connections = Connections(path)

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def reading(self, patience: float = PATIENCE_S) -> AbstractContextManager[Connection]:
        """A connection for reading, which nobody else has meanwhile."""
        return self._connections.reading()

    def writing(self, patience: float = PATIENCE_S) -> AbstractContextManager[Connection]:
        """A transaction on the one connection that writes; it is on the disk when it ends."""
        return self._connections.writing()

    @contextmanager
    def clearing(self) -> Generator[Connection]:
        """A transaction that deletes."""
        # What is in the file already needs no place in the log: then a deletion makes nothing grow, and works on a
        # full disk too. Where others read just now, it is moved with the next one.
        with contextlib.suppress(StoreError), self.reading() as db:
            raw(db).execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        with self.writing() as db:
            yield db

    def add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int], now: float) -> bool:
        """Store a batch."""
        with self.writing() as db:
            return add(raw(db), arrivals, outcomes)

    def bytes_used(self) -> int:
        """The pages that hold something."""
        # Pages that deleted rows left are filled by the next reports.
        names = ("page_count", "freelist_count", "page_size")
        with self.reading() as db:
            pages, free, size = (raw(db).execute(f"PRAGMA {name}").fetchone()[0] for name in names)
        return int((pages - free) * size)

    def probe(self, now: float, patience: float) -> None:
        """Write one row durably, and wait for others so many seconds at most."""
        with self._connections.writing_within(patience) as db:
            write_proof(db, now)

    def lease_clock(self, db: Connection, now: float) -> float:
        """The clock of the machine, which all who share the file are on."""
        return now

    def close(self) -> None:
        """Close every connection."""
        self._connections.close()
