"""The storage on SQLite: one connection writes, and each reader has one to itself while it reads."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...fork import renew_after_fork
from ..filters import Filter
from ..interface import (
    Arrival,
    Column,
    Counted,
    Group,
    Page,
    Pruned,
    Retention,
    Rise,
    State,
    StoredReport,
    Token,
    Triaged,
)
from . import queries
from .batches import add
from .pruning import prune
from .schema import connect, open_database, storage_errors, transaction

__all__ = ["SQLiteStorage"]

# How many connections are kept for the next reader.
_IDLE_READERS = 4


class SQLiteStorage:
    """The collector's reports in one SQLite file that threads and processes share safely.

    Args:
        path: the file; made with mode 0600.
        clock: seconds since the epoch, UTC; filters such as ``since=7d`` count from it.

    Raises:
        StoreError: where the file cannot be used; the message says what to do.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self.clock = clock
        open_database(self.path)
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Begin without connections; those of a parent process are left alone."""
        self._lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._idle: list[sqlite3.Connection] = []

    # -- writing ------------------------------------------------------------------------------------------------

    def add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int]) -> bool:
        """Store reports and counts in one transaction; see :class:`~dynpin.middleware.collector.storage.Storage`."""
        with self.writing() as db:
            return add(db, arrivals, outcomes)

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """A transaction on the one connection that writes."""
        with self._lock, storage_errors(self.path):
            if self._writer is None:
                self._writer = connect(self.path)
            with transaction(self._writer):
                yield self._writer

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """A connection for reading, which nobody else has meanwhile."""
        # Not one for each thread: a server's threads come and go, and each would leave its connection open behind it.
        idle = self._idle
        with storage_errors(self.path):
            try:
                connection = idle.pop()
            except IndexError:
                connection = connect(self.path)
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            if idle is self._idle and len(idle) < _IDLE_READERS:
                idle.append(connection)
            else:
                connection.close()

    def _rows(self, sql: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        with self.reading() as db:
            return db.execute(sql, parameters).fetchall()

    def close(self) -> None:
        """Close every connection; the storage opens new ones when it is used again."""
        with self._lock:
            # Those that are being read from are closed by whoever has them.
            idle, self._idle = self._idle, []
            for connection in (*idle, *((self._writer,) if self._writer is not None else ())):
                connection.close()
            self._writer = None

    # -- reading ------------------------------------------------------------------------------------------------

    def reports(self, wanted: Filter, *, cursor: str | None = None, limit: int = 50) -> Page[StoredReport]:
        """The reports that a filter wants, newest first."""
        with self.reading() as db:
            return queries.reports(db, wanted, self.clock(), cursor, limit)

    def groups(
        self, wanted: Filter, *, cursor: str | None = None, limit: int = 50, newest: bool = False
    ) -> Page[Group]:
        """The groups that a filter wants, the last seen first, or the first seen last."""
        with self.reading() as db:
            return queries.groups(db, wanted, self.clock(), cursor, limit, newest=newest)

    def group(self, key: str) -> Group | None:
        """One group by its key."""
        with self.reading() as db:
            return queries.group(db, key)

    def activity(self, wanted: Filter, since: int, until: int) -> list[tuple[int, str, int]]:
        """Hour, mode and number of reports, for the hours from `since` up to and without `until`."""
        with self.reading() as db:
            return queries.activity(db, wanted, self.clock(), since, until)

    def tally(self, wanted: Filter, column: Column, limit: int = 10) -> list[tuple[str, int, int]]:
        """Value, number of groups and number of reports, by a column of the groups, most reports first."""
        with self.reading() as db:
            return queries.tally(db, wanted, self.clock(), column, limit)

    def agents(self, group: Group) -> list[tuple[str, int]]:
        """User agents of a group and how many reports each sent, most first."""
        rows = self._rows(
            "SELECT user_agent, reports FROM agents WHERE group_id = ? ORDER BY reports DESC", (group.id,)
        )
        return [(row["user_agent"], row["reports"]) for row in rows]

    def outcomes(self, since: int) -> list[tuple[str, str, int]]:
        """Outcome, reason and number of what the intake answered since an hour, most first."""
        rows = self._rows(
            "SELECT outcome, reason, sum(count) AS number FROM outcomes WHERE hour >= ? GROUP BY outcome, reason "
            "ORDER BY number DESC",
            (since,),
        )
        return [(row["outcome"], row["reason"], row["number"]) for row in rows]

    def tokens(self) -> list[Token]:
        """Every token, the revoked ones too, oldest first."""
        rows = self._rows("SELECT * FROM tokens ORDER BY created_at, token")
        return [
            Token(row["token"], row["name"], queries.texts(row["hosts"]), row["created_at"], row["revoked_at"])
            for row in rows
        ]

    # -- triage -------------------------------------------------------------------------------------------------

    def untriaged(self, limit: int, judged_with: str = "") -> list[tuple[Group, str, float]]:
        """Groups without a verdict or with one of other keys, each with the body of a report and when that came."""
        with self.reading() as db:
            return queries.untriaged(db, limit, judged_with)

    def sample_with(self, pin: str) -> str | None:
        """The body of a report in whose chains this pin was seen."""
        with self.reading() as db:
            return queries.sample_with(db, pin)

    def set_verdict(self, group: Group, triaged: Triaged) -> None:
        """Store what triage found."""
        with self.writing() as db:
            db.execute(
                "UPDATE groups SET verdict = ?, severity = ?, issuer = ?, judged_with = ? WHERE id = ?",
                (triaged.verdict, triaged.severity, triaged.issuer, triaged.judged_with, group.id),
            )
            db.execute("INSERT OR REPLACE INTO diagnoses VALUES (?, ?)", (group.id, triaged.diagnosis))
            db.executemany(
                "INSERT OR IGNORE INTO pins VALUES (?, ?, ?)", [(pin, group.id, place) for pin, place in triaged.pins]
            )

    # -- what people decide -------------------------------------------------------------------------------------

    def set_state(self, key: str, state: State) -> bool:
        """Open, mute or resolve a group; False where there is none."""
        with self.writing() as db:
            changed = db.execute(
                "UPDATE groups SET state = ?, state_at = ? WHERE key = ?", (state, self.clock(), key)
            ).rowcount
        return changed > 0

    def add_token(self, token: Token) -> None:
        """Keep a token; one that exists is replaced."""
        with self.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?)",
                (token.token, token.name, json.dumps(token.hosts), token.created_at, token.revoked_at),
            )

    def revoke_token(self, token: str) -> bool:
        """Let a token be used no more; False where there is none that could be."""
        with self.writing() as db:
            changed = db.execute(
                "UPDATE tokens SET revoked_at = ? WHERE token = ? AND revoked_at IS NULL", (self.clock(), token)
            ).rowcount
        return changed > 0

    def add_session(self, identity: str, expires_at: float) -> None:
        """Keep a session, and forget those that ended."""
        with self.writing() as db:
            db.execute("DELETE FROM sessions WHERE expires_at < ?", (self.clock(),))
            db.execute("INSERT INTO sessions VALUES (?, ?)", (identity, expires_at))

    def has_session(self, identity: str) -> bool:
        """Whether a session is there and has not ended."""
        return bool(self._rows("SELECT 1 FROM sessions WHERE id = ? AND expires_at >= ?", (identity, self.clock())))

    def end_session(self, identity: str) -> None:
        """Forget a session."""
        with self.writing() as db:
            db.execute("DELETE FROM sessions WHERE id = ?", (identity,))

    def secret(self) -> str:
        """A random text that belongs to this file, made when it is first asked for."""
        with self.writing() as db:
            db.execute("INSERT OR IGNORE INTO facts VALUES ('secret', ?)", (secrets.token_hex(32),))
            (value,) = db.execute("SELECT value FROM facts WHERE name = 'secret'").fetchone()
        return str(value)

    # -- alerts -------------------------------------------------------------------------------------------------

    def unannounced(self, limit: int) -> list[Group]:
        """Judged, open groups that no alert has told of."""
        with self.reading() as db:
            return queries.unannounced(db, limit)

    def rising(self, hour: int, factor: float, at_least: int) -> list[Rise]:
        """Groups, but for the muted, that sent so many more reports in this hour than on average in the day before."""
        with self.reading() as db:
            return queries.rising(db, hour, factor, at_least)

    def announce(self, groups: Iterable[Group], at: float) -> None:
        """Remember that an alert has told of these groups."""
        with self.writing() as db:
            db.executemany("UPDATE groups SET alerted_at = ? WHERE id = ?", [(at, group.id) for group in groups])

    def fact(self, name: str) -> float | None:
        """A number kept under a name."""
        rows = self._rows("SELECT value FROM facts WHERE name = ?", (name,))
        return float(rows[0]["value"]) if rows else None

    def set_fact(self, name: str, value: float) -> None:
        """Keep a number under a name."""
        with self.writing() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    # -- retention ----------------------------------------------------------------------------------------------

    def prune(self, retention: Retention) -> Pruned:
        """Delete what is not to be kept, in small transactions."""
        return prune(self.writing, retention, self.clock())
