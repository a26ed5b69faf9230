"""The file that keeps the position on a ramp: SQLite, so that all processes of a server agree."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Generator
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from dynpin.errors import PolicyError

from ..steps import Position

__all__ = ["KeptRamp", "RampFile"]


class KeptRamp(Protocol):
    """The stored position on a ramp, and the history of max-age."""

    def now(self, clock: Callable[[], float]) -> float:
        """The ramp's time, in seconds since the epoch, UTC."""
        ...

    def read(self) -> Position | None:
        """The position, or None if the ramp has not begun. This uses no network.

        Raises:
            PolicyError: if it cannot be read, or is the ramp of another policy.
        """
        ...

    def sent(self) -> tuple[tuple[float, int | None], ...]:
        """The history of max-age, oldest first: when it began, and the max-age (seconds); None means report-only.

        Raises:
            PolicyError: see :meth:`read`.
        """
        ...

    def change(
        self, begin: Position, decide: Callable[[Position, float], Position], now: float
    ) -> tuple[Position, Position]:
        """Change the position, while nobody else can; the position before and after.

        Args:
            begin: the position if none is stored yet.
            decide: gets the position and the ramp's time, and gives the new position.
            now: the time of this machine; it is stored if max-age changes.

        Raises:
            PolicyError: see :meth:`read`; also if the position cannot be written.
        """
        ...

    def restart(self, begin: Position, now: float) -> tuple[Position, Position]:
        """Start again at this position; the position before and after.

        Raises:
            PolicyError: see :meth:`change`.
        """
        ...


_TABLES = """
    CREATE TABLE position (
        only INTEGER PRIMARY KEY CHECK (only = 1), began_at INTEGER NOT NULL, max_age INTEGER, waited REAL NOT NULL,
        asked_at REAL, disturbed_at REAL, open_groups INTEGER NOT NULL, is_held INTEGER NOT NULL, failure TEXT NOT NULL,
        token TEXT NOT NULL
    );
    CREATE TABLE sent (at INTEGER NOT NULL, max_age INTEGER);
    PRAGMA user_version = 1;
"""
_VERSION = 1
_FIELDS = ("began_at", "max_age", "waited", "asked_at", "disturbed_at", "open_groups", "is_held", "failure")


class RampFile:
    """The position on the ramp, and the history of max-age, in a file.

    Every process of the server reads and writes it. Each call opens and closes its own connection, so that none
    crosses a fork.

    Args:
        path: the file.
        token: the token of the report-uri of this ramp. A file has the ramp of one token.
    """

    def __init__(self, path: Path, token: str) -> None:
        self.path, self.token = path, token

    def now(self, clock: Callable[[], float]) -> float:
        """The time of this machine."""
        return clock()

    def read(self) -> Position | None:
        """The position, or None if the ramp has not begun.

        Raises:
            PolicyError: if the file is damaged, or has the ramp of another policy.
        """
        if not self.path.exists():
            return None
        with self._connection("mode=ro") as db:
            return _position(db) if self._version(db) else None

    def sent(self) -> tuple[tuple[float, int | None], ...]:
        """The history of max-age, oldest first: when it began, and the max-age (seconds); None means report-only.

        Raises:
            PolicyError: see :meth:`read`.
        """
        if not self.path.exists():
            return ()
        with self._connection("mode=ro") as db:
            return tuple(db.execute("SELECT at, max_age FROM sent ORDER BY at, rowid")) if self._version(db) else ()

    def change(
        self, begin: Position, decide: Callable[[Position, float], Position], now: float
    ) -> tuple[Position, Position]:
        """Change the position, while no other process can; the position before and after."""
        with self._connection("mode=rwc") as db:
            db.execute("BEGIN IMMEDIATE")
            if not self._version(db):
                for statement in _TABLES.split(";"):
                    db.execute(statement)
            kept = _position(db)
            before = kept or begin
            after = decide(before, now)
            # The clock may have gone back, but the history must stay in order.
            (at,) = db.execute("SELECT max(?, coalesce(max(at), 0)) FROM sent", (int(now),)).fetchone()
            marks = ", ".join("?" * len(_FIELDS))
            values = asdict(after)
            db.execute(
                f"REPLACE INTO position (only, {', '.join(_FIELDS)}, token) VALUES (1, {marks}, ?)",  # noqa: S608 - our own names
                [*(values[name] for name in _FIELDS), self.token],
            )
            if kept is None:
                db.execute("INSERT INTO sent VALUES (?, ?)", (at, before.max_age))
            if after.max_age != before.max_age:
                db.execute("INSERT INTO sent VALUES (?, ?)", (at, after.max_age))
            db.execute("COMMIT")
        return before, after

    def restart(self, begin: Position, now: float) -> tuple[Position, Position]:
        """Start again at this position; the position before and after."""
        return self.change(begin, lambda before, at: begin, now)

    def _version(self, db: sqlite3.Connection) -> int:
        """The version of the tables; 0 if there are none. Raises if they belong to another ramp."""
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version > _VERSION:
            raise PolicyError(f"{self.path} was written by a newer version of dynpin: upgrade this one")
        if version:
            (other,) = db.execute("SELECT max(token) FROM position").fetchone()
            if other not in (None, self.token):
                raise PolicyError(f"{self.path} keeps the ramp of another report-uri. Name another file: [ramp] state")
        return version

    @contextlib.contextmanager
    def _connection(self, mode: str) -> Generator[sqlite3.Connection]:
        if self.path.exists() and not self.path.is_file():  # SQLite would wait for a pipe for ever
            raise PolicyError(f"{self.path} keeps no position on a ramp: it is not a file. Name another: [ramp] state")
        try:
            db = sqlite3.connect(f"{self.path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None, timeout=10)
            try:
                yield db
            finally:
                db.close()
        except sqlite3.Error as error:
            raise PolicyError(
                f"{self.path}, which keeps the position on the ramp, cannot be used ({error}). The server must be able "
                "to write to it and to its folder. Without the file, the ramp starts again"
            ) from None


def _position(db: sqlite3.Connection) -> Position | None:
    row = db.execute(f"SELECT {', '.join(_FIELDS)} FROM position").fetchone()  # noqa: S608 - our own names
    if row is None:
        return None
    began_at, max_age, waited, asked_at, disturbed_at, open_groups, is_held, failure = row
    return Position(began_at, max_age, waited, asked_at, disturbed_at, open_groups, bool(is_held), failure)
