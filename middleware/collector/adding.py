"""How a batch of reports is written to the SQLite storage: few statements, however many reports it has.

Between two statements the thread that writes waits for the one that reads reports (Python runs one at a time); so a
table gets all its rows by a handful of statements, and the counts are added up before.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple, cast

from dynpin.middleware.collector.storage import HOUR, Arrival, Counted

__all__ = ["add"]

# So many user agents of one group are told apart; a sender that varies its own fills no table.
_MAX_AGENTS = 20
_OTHER_AGENTS = "(others)"
# A statement for each of so many rows: few enough to be kept prepared, and a batch of any size needs few of them.
_ROWS_AT_ONCE = (256, 64, 16, 4, 1)


def add(db: sqlite3.Connection, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int]) -> bool:
    """Write reports and counts, in the transaction that the connection is in; whether a group waits for its verdict."""
    together: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        together.setdefault(arrival.key, []).append(arrival)
    touched = {key: _touch_group(db, same) for key, same in together.items()}
    ids = {key: group.id for key, group in touched.items()}
    _add_reports(db, ids, arrivals)
    _add_rates(db, ids, arrivals)
    _add_totals(db, touched, arrivals)
    db.executemany(
        "INSERT INTO outcomes VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
        [(*counted, number) for counted, number in outcomes.items()],
    )
    return any(not group.verdict for group in touched.values())


@cache
def _insertion(table: str, columns: int, rows: int) -> str:
    row = f"({','.join('?' * columns)})"
    return f"INSERT INTO {table} VALUES {','.join([row] * rows)}"  # noqa: S608 - names from this page


def _insert(db: sqlite3.Connection, table: str, columns: int, values: list[object]) -> None:
    """Insert rows, whose values follow one another."""
    start = 0
    for rows in _ROWS_AT_ONCE:
        length = rows * columns
        while len(values) - start >= length:
            db.execute(_insertion(table, columns, rows), values[start : start + length])
            start += length


class _Touched(NamedTuple):
    """A group that got reports: what its totals go by."""

    id: int
    mode: str
    verdict: str
    state: str
    token: str


def _touch_group(db: sqlite3.Connection, arrivals: Sequence[Arrival]) -> _Touched:
    """The group of these reports, which all have one key; its counts are brought up to date."""
    arrival, times = arrivals[0], [arrival.received_at for arrival in arrivals]
    row = db.execute(
        "UPDATE groups SET reports = reports + ?, first_seen = min(first_seen, ?), last_seen = max(last_seen, ?) "
        "WHERE key = ? RETURNING id, mode, coalesce(verdict, ''), state, token",
        (len(times), min(times), max(times), arrival.key),
    ).fetchone()
    if row is not None:
        return _Touched(*row)
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
    return _Touched(identity, arrival.mode, "", "open", arrival.token)


def _add_reports(db: sqlite3.Connection, ids: Mapping[str, int], arrivals: Sequence[Arrival]) -> None:
    # The write lock is held, so that nobody else takes these ids.
    (last,) = db.execute("SELECT coalesce(max(id), 0) FROM reports").fetchone()
    reports: list[object] = []
    samples: list[object] = []
    for number, arrival in enumerate(arrivals, start=last + 1):
        report = arrival.report
        reports += (
            number,
            ids[arrival.key],
            arrival.received_at,
            report.date_time,
            report.effective_expiration_date,
            arrival.token,
            arrival.source,
            arrival.user_agent,
            " ".join(report.flags),
        )
        samples += (number, arrival.body)
    _insert(db, "reports", 9, reports)
    _insert(db, "samples", 2, samples)


def _add_rates(db: sqlite3.Connection, ids: Mapping[str, int], arrivals: Sequence[Arrival]) -> None:
    hours = [int(arrival.received_at // HOUR) for arrival in arrivals]
    rates = Counter((ids[arrival.key], hour) for arrival, hour in zip(arrivals, hours, strict=True))
    agents = Counter((ids[arrival.key], arrival.user_agent) for arrival in arrivals)
    db.executemany(
        "INSERT INTO rates VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET reports = reports + excluded.reports",
        [(*key, number) for key, number in rates.items()],
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


def _add_totals(db: sqlite3.Connection, touched: Mapping[str, _Touched], arrivals: Sequence[Arrival]) -> None:
    totals = Counter((int(arrival.received_at // HOUR), *touched[arrival.key][1:]) for arrival in arrivals)
    db.executemany(
        "INSERT INTO totals VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET reports = reports + excluded.reports",
        [(*key, number) for key, number in totals.items()],
    )
