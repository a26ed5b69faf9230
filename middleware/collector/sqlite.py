"""The storage on SQLite: one connection writes, each reading thread has its own."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from dynpin.middleware.collector.conditions import group_conditions
from dynpin.middleware.collector.filters import BadFilter, Filter, seconds
from dynpin.middleware.collector.schema import connect, open_database, storage_errors, transaction
from dynpin.middleware.collector.storage import HOUR, Arrival, Counted, Group, Page, StoredReport, Token

__all__ = ["SQLiteStorage"]

# So many user agents of one group are told apart; a sender that varies its own fills no table.
_MAX_AGENTS = 20
_OTHER_AGENTS = "(others)"


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
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._writer: sqlite3.Connection | None = None
        self._readers = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._pid = os.getpid()

    # -- writing ------------------------------------------------------------------------------------------------

    def add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int]) -> None:
        """Store reports and counts in one transaction; see :class:`~dynpin.middleware.collector.storage.Storage`."""
        with self.writing() as db:
            groups = {arrival.key: arrival for arrival in arrivals}
            ids = {key: _touch_group(db, arrival, arrivals) for key, arrival in groups.items()}
            for arrival in arrivals:
                _add_report(db, ids[arrival.key], arrival)
            _add_rates(db, ids, arrivals)
            db.executemany(
                "INSERT INTO outcomes VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
                [(*counted, number) for counted, number in outcomes.items()],
            )

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """A transaction on the one connection that writes."""
        with self._lock, storage_errors(self.path):
            if self._writer is None or self._pid != os.getpid():
                self._renew()
                self._writer = connect(self.path)
                self._open.append(self._writer)
            with transaction(self._writer):
                yield self._writer

    def reading(self) -> sqlite3.Connection:
        """The connection of the calling thread, for reading."""
        if self._pid != os.getpid():
            with self._lock:
                self._renew()
        connection = cast("sqlite3.Connection | None", getattr(self._readers, "connection", None))
        if connection is None:
            with storage_errors(self.path):
                connection = connect(self.path)
            self._readers.connection = connection
            self._open.append(connection)
        return connection

    def _renew(self) -> None:
        # A connection must not cross a fork: the child forgets the parent's without closing them.
        if self._pid != os.getpid():
            self._begin()

    def close(self) -> None:
        """Close every connection; the storage opens new ones when it is used again."""
        with self._lock:
            for connection in self._open:
                connection.close()
            self._begin()

    # -- reading ------------------------------------------------------------------------------------------------

    def reports(self, wanted: Filter, *, cursor: str | None = None, limit: int = 50) -> Page[StoredReport]:
        """The reports that a filter wants, newest first."""
        where = group_conditions(Filter(wanted.terms), self.clock())
        for edge, comparison in ((wanted.since, ">="), (wanted.until, "<")):
            if edge:
                where = where.and_(f"reports.received_at {comparison} ?", seconds(edge, self.clock()))
        if cursor:
            where = where.and_("reports.id < ?", _number(cursor))
        rows = (
            self.reading()
            .execute(
                f"SELECT reports.*, reports.token AS report_token, samples.body, {_GROUP_COLUMNS} FROM reports "  # noqa: S608 - from conditions.py
                "JOIN groups ON groups.id = reports.group_id LEFT JOIN samples ON samples.report_id = reports.id "
                f"WHERE {where.sql} ORDER BY reports.id DESC LIMIT ?",
                [*where.parameters, limit + 1],
            )
            .fetchall()
        )
        entries = [_stored_report(row) for row in rows[:limit]]
        return Page(entries, str(entries[-1].id) if len(rows) > limit else None)

    def groups(self, wanted: Filter, *, cursor: str | None = None, limit: int = 50) -> Page[Group]:
        """The groups that a filter wants, the last seen first."""
        where = group_conditions(wanted, self.clock())
        if cursor:
            last_seen, _, identity = cursor.partition("-")
            where = where.and_(
                "(groups.last_seen, groups.id) < (?, ?)", _number(last_seen) / 1e6, _number(identity or "0")
            )
        rows = (
            self.reading()
            .execute(
                f"SELECT {_GROUP_COLUMNS} FROM groups WHERE {where.sql} "  # noqa: S608 - from conditions.py
                "ORDER BY groups.last_seen DESC, groups.id DESC LIMIT ?",
                [*where.parameters, limit + 1],
            )
            .fetchall()
        )
        entries = [_group(row) for row in rows[:limit]]
        last = entries[-1] if len(rows) > limit else None
        return Page(entries, None if last is None else f"{round(last.last_seen * 1e6)}-{last.id}")

    def tokens(self) -> list[Token]:
        """Every token, the revoked ones too, oldest first."""
        rows = self.reading().execute("SELECT * FROM tokens ORDER BY created_at, token").fetchall()
        return [
            Token(row["token"], row["name"], tuple(json.loads(row["hosts"])), row["created_at"], row["revoked_at"])
            for row in rows
        ]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BadFilter("the cursor is not one that this collector gave")
    return int(text)


# -- rows -------------------------------------------------------------------------------------------------------------


def _touch_group(db: sqlite3.Connection, arrival: Arrival, arrivals: Sequence[Arrival]) -> int:
    times = [other.received_at for other in arrivals if other.key == arrival.key]
    row = db.execute(
        "UPDATE groups SET reports = reports + ?, first_seen = min(first_seen, ?), last_seen = max(last_seen, ?) "
        "WHERE key = ? RETURNING id",
        (len(times), min(times), max(times), arrival.key),
    ).fetchone()
    if row is not None:
        return int(row["id"])
    report = arrival.report
    known = [str(pin) for pin in report.known_pins]
    cursor = db.execute(
        "INSERT INTO groups (key, host, noted_host, port, mode, token, known_pins, validated_pins, first_seen, "
        "last_seen, reports) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            arrival.key,
            report.hostname,
            report.noted_hostname or "",
            report.port,
            arrival.mode,
            arrival.token,
            json.dumps(known),
            json.dumps(arrival.validated_pins),
            min(times),
            max(times),
            len(times),
        ),
    )
    identity = cast("int", cursor.lastrowid)
    places = [(pin, identity, "known") for pin in known]
    places += [(pin, identity, "validated") for pin in arrival.validated_pins]
    db.executemany("INSERT OR IGNORE INTO pins VALUES (?, ?, ?)", places)
    return identity


def _add_report(db: sqlite3.Connection, group_id: int, arrival: Arrival) -> None:
    report = arrival.report
    cursor = db.execute(
        "INSERT INTO reports (group_id, received_at, observed_at, expires_at, token, source, user_agent, flags) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            group_id,
            arrival.received_at,
            report.date_time,
            report.effective_expiration_date,
            arrival.token,
            arrival.source,
            arrival.user_agent,
            " ".join(report.flags),
        ),
    )
    db.execute("INSERT INTO samples VALUES (?, ?)", (cursor.lastrowid, arrival.body))


def _add_rates(db: sqlite3.Connection, ids: Mapping[str, int], arrivals: Sequence[Arrival]) -> None:
    hours = [int(arrival.received_at // HOUR) for arrival in arrivals]
    rates = Counter((ids[arrival.key], hour) for arrival, hour in zip(arrivals, hours, strict=True))
    totals = Counter((hour, arrival.mode) for arrival, hour in zip(arrivals, hours, strict=True))
    agents = Counter((ids[arrival.key], arrival.user_agent) for arrival in arrivals)
    for table, counts in (("rates", rates), ("totals", totals)):
        db.executemany(
            f"INSERT INTO {table} VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET reports = reports + excluded.reports",  # noqa: S608 - a name from the line above
            [(*key, number) for key, number in counts.items()],
        )
    for (group_id, agent), number in agents.items():
        known = db.execute(
            "UPDATE agents SET reports = reports + ? WHERE group_id = ? AND user_agent = ? RETURNING 1",
            (number, group_id, agent),
        ).fetchone()
        if known is None:
            (told_apart,) = db.execute("SELECT count(*) FROM agents WHERE group_id = ?", (group_id,)).fetchone()
            db.execute(
                "INSERT INTO agents VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET reports = reports + excluded.reports",
                (group_id, agent if told_apart < _MAX_AGENTS else _OTHER_AGENTS, number),
            )


_GROUP_COLUMNS = (
    "groups.id AS group_id, groups.key, groups.host, groups.noted_host, groups.port, groups.mode, groups.token, "
    "groups.known_pins, groups.validated_pins, groups.first_seen, groups.last_seen, groups.reports, groups.issuer, "
    "groups.verdict, groups.severity, groups.diagnosis, groups.state"
)


def _group(row: sqlite3.Row) -> Group:
    return Group(
        id=row["group_id"],
        key=row["key"],
        host=row["host"],
        noted_host=row["noted_host"],
        port=row["port"],
        mode=row["mode"],
        token=row["token"],
        known_pins=tuple(json.loads(row["known_pins"])),
        validated_pins=tuple(json.loads(row["validated_pins"])),
        first_seen=row["first_seen"],
        last_seen=row["last_seen"],
        reports=row["reports"],
        issuer=row["issuer"],
        verdict=row["verdict"],
        severity=row["severity"],
        diagnosis=row["diagnosis"],
        state=row["state"],
    )


def _stored_report(row: sqlite3.Row) -> StoredReport:
    return StoredReport(
        id=row["id"],
        group=_group(row),
        received_at=row["received_at"],
        observed_at=row["observed_at"],
        expires_at=row["expires_at"],
        token=row["report_token"],
        source=row["source"],
        user_agent=row["user_agent"],
        flags=tuple(row["flags"].split()),
        body=row["body"],
    )
