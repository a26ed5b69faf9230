"""Write a batch of reports to the SQLite file: one statement for each table, for any number of reports.

At each statement the writing thread releases Python's global lock, and must wait to get it back. So each table gets
all its rows at once, and the counts are summed before.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, cast

from ..sql import MAX_AGENTS, OTHER_AGENTS, by_step, report_rows
from ..values import HOUR, Arrival, Counted

__all__ = ["add"]

# A statement has one of these numbers of rows, and rows that are not needed are NULL: few statements stay prepared.
_ROWS_AT_ONCE = (1, 4, 16, 32, 64, 128, 256)


def add(db: sqlite3.Connection, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int]) -> bool:
    """Write reports and counts in the connection's transaction. True if a group waits for its verdict."""
    touched = _touch_groups(db, arrivals)
    ids = {key: group.id for key, group in touched.items()}
    _add_reports(db, touched, arrivals)
    hours = [int(arrival.received_at // HOUR) for arrival in arrivals]
    rates = Counter((ids[arrival.cause.key], hour) for arrival, hour in zip(arrivals, hours, strict=True))
    totals = Counter((hour, *touched[arrival.cause.key].totals) for arrival, hour in zip(arrivals, hours, strict=True))
    for table, counts in (("rates", rates), ("totals", by_step(totals)), ("outcomes", outcomes)):
        column = "count" if table == "outcomes" else "reports"
        _run(
            db,
            f"INSERT INTO {table} SELECT * FROM ({{rows}}) WHERE column1 IS NOT NULL "  # noqa: S608
            f"ON CONFLICT DO UPDATE SET {column} = {column} + excluded.{column}",
            [(*counted, number) for counted, number in counts.items()],
        )
    _add_agents(db, Counter((ids[arrival.cause.key], arrival.user_agent) for arrival in arrivals))
    return any(not group.verdict for group in touched.values())


def _run(db: sqlite3.Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> list[tuple[Any, ...]]:
    """Run a statement once for all rows, which replace its ``{rows}``; the rows that it returns."""
    found: list[tuple[Any, ...]] = []
    for start in range(0, len(rows), _ROWS_AT_ONCE[-1]):
        part = rows[start : start + _ROWS_AT_ONCE[-1]]
        number = next(size for size in _ROWS_AT_ONCE if size >= len(part))
        values = [value for row in part for value in row]
        values += [None] * (number * len(part[0]) - len(values))
        found += db.execute(_with_rows(sql, len(part[0]), number), values)
    return found


@cache
def _with_rows(sql: str, columns: int, number: int) -> str:
    row = f"({','.join('?' * columns)})"
    return sql.format(rows=f"VALUES {','.join([row] * number)}")


class _Touched(NamedTuple):
    """A group that got reports: how many came since its sample of bodies began, and the key of its totals."""

    id: int
    sampled: int
    mode: str
    verdict: str
    state: str
    token: str

    @property
    def totals(self) -> tuple[str, str, str, str]:
        return self[2:]


def _touch_groups(db: sqlite3.Connection, arrivals: Sequence[Arrival]) -> dict[str, _Touched]:
    """Update the counts of the groups of these reports; the groups by their keys."""
    together: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        together.setdefault(arrival.cause.key, []).append(arrival)
    counts: list[tuple[str, int, float, float]] = []
    for key, same in together.items():
        times = [arrival.received_at for arrival in same]
        counts.append((key, len(times), min(times), max(times)))
    known = _run(
        db,
        "UPDATE groups SET reports = reports + column2, first_seen = min(first_seen, column3), "
        "last_seen = max(last_seen, column4) FROM ({rows}) WHERE key = column1 "
        "RETURNING key, id, reports - sampled_after, mode, coalesce(verdict, ''), state, token",
        counts,
    )
    # RETURNING has the new counts; the sample needs the counts before this batch.
    touched = {key: _Touched(group, now - len(together[key]), *common) for key, group, now, *common in known}
    for key, *count in counts:
        if key not in touched:
            touched[key] = _add_group(db, together[key][0], count)
    return touched


def _add_group(db: sqlite3.Connection, first: Arrival, count: Sequence[object]) -> _Touched:
    cause = first.cause
    cursor = db.execute(
        "INSERT INTO groups (key, host, noted_host, port, mode, token, source, known_pins, validated_pins, reports, "
        "first_seen, last_seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            cause.key,
            cause.host,
            cause.noted_host,
            cause.port,
            cause.mode,
            first.token,
            first.source,
            json.dumps(cause.known_pins),
            json.dumps(cause.validated_pins),
            *count,
        ),
    )
    identity = cast("int", cursor.lastrowid)
    places = [(pin, identity, "known") for pin in cause.known_pins]
    places += [(pin, identity, "validated") for pin in cause.validated_pins]
    _run(db, "INSERT OR IGNORE INTO pins SELECT * FROM ({rows}) WHERE column1 IS NOT NULL", places)
    return _Touched(identity, 0, cause.mode, "", "open", first.token)


def _add_reports(db: sqlite3.Connection, touched: Mapping[str, _Touched], arrivals: Sequence[Arrival]) -> None:
    # Nobody else can take these ids, since this transaction holds the write lock.
    (last,) = db.execute("SELECT coalesce(max(id), 0) FROM reports").fetchone()
    reports, samples = report_rows(touched, arrivals, range(last + 1, last + 1 + len(arrivals)))
    for table, rows in (("reports", reports), ("samples", samples)):
        _run(db, f"INSERT INTO {table} SELECT * FROM ({{rows}}) WHERE column1 IS NOT NULL", rows)  # noqa: S608


def _add_agents(db: sqlite3.Connection, agents: Mapping[tuple[int, str], int]) -> None:
    known = _run(
        db,
        "UPDATE agents SET reports = reports + column3 FROM ({rows}) "
        "WHERE group_id = column1 AND user_agent = column2 RETURNING group_id, user_agent",
        [(*agent, number) for agent, number in agents.items()],
    )
    for group_id, agent in agents.keys() - set(known):
        (told_apart,) = db.execute("SELECT count(*) FROM agents WHERE group_id = ?", (group_id,)).fetchone()
        db.execute(
            "INSERT INTO agents VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET reports = reports + excluded.reports",
            (group_id, agent if told_apart < MAX_AGENTS else OTHER_AGENTS, agents[group_id, agent]),
        )
