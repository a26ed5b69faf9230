"""Write a batch of reports to PostgreSQL: one statement for each table, for any number of reports.

Statements that do not need each other's results are sent together (a pipeline), to wait for the server less often.
Several nodes write the same rows. All lock them in the order of their keys, so that there is no deadlock.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import lru_cache
from typing import Any, LiteralString, NamedTuple

import psycopg

from ..sql import MAX_AGENTS, OTHER_AGENTS, by_step, report_rows
from ..values import HOUR, Arrival, Counted

__all__ = ["add"]

Connection = psycopg.Connection[Any]
Row = tuple[Any, ...]


_BATCH = "INSERT INTO batches VALUES (%b, %b) ON CONFLICT DO NOTHING"
# The rows are passed as one list for each column, all of the same length: one statement, which stays prepared. The
# lists are binary (%b): for text (%s) psycopg searches each value for characters to quote.
_GROUPS = """
INSERT INTO groups AS known (key, host, noted_host, port, mode, token, source, known_pins, validated_pins, reports,
                             first_seen, last_seen)
SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::int[], %b::text[], %b::text[], %b::text[], %b::text[],
                     %b::text[], %b::bigint[], %b::float8[], %b::float8[])
ON CONFLICT (key) DO UPDATE SET reports = known.reports + excluded.reports,
    first_seen = least(known.first_seen, excluded.first_seen), last_seen = greatest(known.last_seen, excluded.last_seen)
RETURNING key, id, reports, sampled_after, mode, coalesce(verdict, ''), state, token
"""
_PINS = """
INSERT INTO pins SELECT * FROM unnest(%b::text[], %b::bigint[], %b::text[]) ON CONFLICT DO NOTHING
"""
_IDS = "SELECT nextval('reports_id_seq') FROM generate_series(1, %b)"
_REPORTS = """
COPY reports (id, group_id, received_at, observed_at, expires_at, token, source, user_agent, flags)
FROM STDIN (FORMAT BINARY)
"""
_REPORT_TYPES = ("int8", "int8", "float8", "float8", "float8", "text", "text", "text", "text")
_SAMPLES = "COPY samples (report_id, group_id, body) FROM STDIN (FORMAT BINARY)"
_SAMPLE_TYPES = ("int8", "int8", "text")
_RATES = """
INSERT INTO rates SELECT * FROM unnest(%b::bigint[], %b::bigint[], %b::bigint[])
ON CONFLICT (group_id, hour) DO UPDATE SET reports = rates.reports + excluded.reports
"""
_TOTALS = """
INSERT INTO totals
SELECT * FROM unnest(%b::bigint[], %b::bigint[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bigint[])
ON CONFLICT (step, hour, mode, verdict, state, token) DO UPDATE SET reports = totals.reports + excluded.reports
"""
_OUTCOMES = """
INSERT INTO outcomes SELECT * FROM unnest(%b::bigint[], %b::text[], %b::text[], %b::text[], %b::bigint[])
ON CONFLICT (hour, token, outcome, reason) DO UPDATE SET count = outcomes.count + excluded.count
"""
_KNOWN_AGENTS = """
UPDATE agents SET reports = agents.reports + new.reports
FROM unnest(%b::bigint[], %b::text[], %b::bigint[]) AS new (group_id, user_agent, reports)
WHERE agents.group_id = new.group_id AND agents.user_agent = new.user_agent
RETURNING agents.group_id, agents.user_agent
"""
_COUNT_AGENTS = "SELECT group_id, count(*) FROM agents WHERE group_id = ANY(%b) GROUP BY group_id"
_NEW_AGENTS = """
INSERT INTO agents SELECT * FROM unnest(%b::bigint[], %b::text[], %b::bigint[])
ON CONFLICT (group_id, user_agent) DO UPDATE SET reports = agents.reports + excluded.reports
"""


class _Touched(NamedTuple):
    """A group that got reports: how many came since its sample of bodies began, and the key of its totals."""

    id: int
    sampled: int
    is_new: bool
    totals: tuple[str, str, str, str]


def add(db: Connection, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int], batch: bytes, now: float) -> bool:
    """Write reports and counts in the connection's transaction. True if a group waits for its verdict."""
    together: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        together.setdefault(arrival.cause.key, []).append(arrival)
    # The results of a pipeline are there at its end.
    with db.pipeline():
        # A second attempt with the same batch waits here until the first has ended, and then finds the batch stored.
        begun = db.execute(_BATCH, (batch, now))
        counted = _run(db, _GROUPS, _group_rows(together))
        ids = db.execute(_IDS, (len(arrivals),))
    if not begun.rowcount:
        db.rollback()  # the statements after it have counted the reports a second time
        return False
    touched = _touched(counted, together)
    reports, samples = report_rows(touched, arrivals, [identity for (identity,) in ids])
    _copy(db, _REPORTS, _REPORT_TYPES, reports)
    _copy(db, _SAMPLES, _SAMPLE_TYPES, samples)
    rates: Counter[Row] = Counter()
    totals: Counter[Row] = Counter()
    agents: Counter[Row] = Counter()
    for arrival in arrivals:
        group, hour = touched[arrival.cause.key], int(arrival.received_at // HOUR)
        rates[group.id, hour] += 1
        totals[hour, *group.totals] += 1
        agents[group.id, arrival.user_agent] += 1
    with db.pipeline():
        _run(db, _PINS, _places(touched, together))
        known = _run(db, _KNOWN_AGENTS, _rows(agents))
        _run(db, _RATES, _rows(rates))
        _run(db, _TOTALS, _rows(by_step(totals)))
        _run(db, _OUTCOMES, _rows(outcomes))
    _add_agents(db, agents, set(known))
    return any(not group.totals[1] for group in touched.values())


def _rows(counts: Mapping[Any, int]) -> list[Row]:
    return [(*counted, number) for counted, number in counts.items()]


def _run(db: Connection, sql: LiteralString, rows: Sequence[Row]) -> Iterable[Row]:
    """Run a statement once for all rows, with a list for each column, in the order of their keys; its result."""
    # The order must be the same as in upsert(), which the worker uses. Both sort in Python, not in the database.
    return db.execute(sql, [list(column) for column in zip(*sorted(rows), strict=True)]) if rows else ()


def _group_rows(together: Mapping[str, Sequence[Arrival]]) -> list[Row]:
    """The groups of these reports, by their keys, as rows for the statement that inserts or updates them."""
    rows: list[Row] = []
    for key, same in together.items():
        cause, first = same[0].cause, same[0]
        times = [arrival.received_at for arrival in same]
        pins = _listed(cause.known_pins), _listed(cause.validated_pins)
        common = cause.host, cause.noted_host, cause.port, cause.mode, first.token, first.source
        rows.append((key, *common, *pins, len(same), min(times), max(times)))
    return rows


# The same causes come in each batch.
_listed = lru_cache(maxsize=1024)(json.dumps)


def _touched(counted: Iterable[Row], together: Mapping[str, Sequence[Arrival]]) -> dict[str, _Touched]:
    """The groups of these reports by their keys."""
    touched: dict[str, _Touched] = {}
    for key, group, reports, sampled_after, *totals in counted:
        before = reports - len(together[key])
        touched[key] = _Touched(group, before - sampled_after, before == 0, tuple(totals))
    return touched


def _places(touched: Mapping[str, _Touched], together: Mapping[str, Sequence[Arrival]]) -> list[Row]:
    """The pins of new groups, and the place of each in its group."""
    places: list[Row] = []
    for key, group in touched.items():
        if group.is_new:
            cause = together[key][0].cause
            places += [(pin, group.id, "known") for pin in cause.known_pins]
            places += [(pin, group.id, "validated") for pin in cause.validated_pins]
    return places


def _copy(db: Connection, sql: LiteralString, types: Sequence[str], rows: Sequence[Row]) -> None:
    # Binary: neither psycopg nor the server searches each body for characters to escape.
    if rows:
        with db.cursor() as cursor, cursor.copy(sql) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)


def _add_agents(db: Connection, agents: Mapping[Row, int], known: Set[Row]) -> None:
    """Add the user agents that are new in their groups."""
    new = agents.keys() - known
    if not new:
        return
    counts: Counter[int] = Counter(dict(db.execute(_COUNT_AGENTS, ([group for group, _ in new],)).fetchall()))
    added: Counter[Row] = Counter()
    for group, agent in sorted(new):
        is_told_apart = counts[group] < MAX_AGENTS
        counts[group] += is_told_apart
        added[group, agent if is_told_apart else OTHER_AGENTS] += agents[group, agent]
    _run(db, _NEW_AGENTS, _rows(added))
