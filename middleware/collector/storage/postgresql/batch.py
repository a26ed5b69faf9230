"""Write a batch of reports to PostgreSQL: one statement for each table, for any number of reports.

Several nodes write the same rows. All lock them in the order of their keys, so that there is no deadlock.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString, NamedTuple

import psycopg

from ..sql import MAX_AGENTS, OTHER_AGENTS, by_step, is_sampled
from ..values import HOUR, Arrival, Counted

__all__ = ["add"]

Connection = psycopg.Connection[Any]
Row = tuple[Any, ...]


_BATCH = "INSERT INTO batches VALUES (%s, %s) ON CONFLICT DO NOTHING"
# The rows are passed as one list for each column, all of the same length: one statement, which stays prepared.
_GROUPS = """
INSERT INTO groups AS known (key, host, noted_host, port, mode, token, source, known_pins, validated_pins, reports,
                             first_seen, last_seen)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::text[], %s::text[], %s::text[], %s::text[],
                     %s::text[], %s::bigint[], %s::float8[], %s::float8[])
ON CONFLICT (key) DO UPDATE SET reports = known.reports + excluded.reports,
    first_seen = least(known.first_seen, excluded.first_seen), last_seen = greatest(known.last_seen, excluded.last_seen)
RETURNING key, id, reports, sampled_after, mode, coalesce(verdict, ''), state, token
"""
_PINS = """
INSERT INTO pins SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[]) ON CONFLICT DO NOTHING
"""
_IDS = "SELECT nextval(pg_get_serial_sequence('reports', 'id')) FROM generate_series(1, %s)"
_REPORTS = (
    "COPY reports (id, group_id, received_at, observed_at, expires_at, token, source, user_agent, flags) FROM STDIN"
)
_SAMPLES = "COPY samples (report_id, group_id, body) FROM STDIN"
_RATES = """
INSERT INTO rates SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[])
ON CONFLICT (group_id, hour) DO UPDATE SET reports = rates.reports + excluded.reports
"""
_TOTALS = """
INSERT INTO totals
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[])
ON CONFLICT (step, hour, mode, verdict, state, token) DO UPDATE SET reports = totals.reports + excluded.reports
"""
_OUTCOMES = """
INSERT INTO outcomes SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::bigint[])
ON CONFLICT (hour, token, outcome, reason) DO UPDATE SET count = outcomes.count + excluded.count
"""
_KNOWN_AGENTS = """
UPDATE agents SET reports = agents.reports + new.reports
FROM unnest(%s::bigint[], %s::text[], %s::bigint[]) AS new (group_id, user_agent, reports)
WHERE agents.group_id = new.group_id AND agents.user_agent = new.user_agent
RETURNING agents.group_id, agents.user_agent
"""
_COUNT_AGENTS = "SELECT group_id, count(*) FROM agents WHERE group_id = ANY(%s) GROUP BY group_id"
_NEW_AGENTS = """
INSERT INTO agents SELECT * FROM unnest(%s::bigint[], %s::text[], %s::bigint[])
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
    with db.cursor() as cursor:
        # A second attempt with the same batch waits here until the first has ended, and then finds the batch stored.
        if not cursor.execute(_BATCH, (batch, now)).rowcount:
            return False
        touched = _touch_groups(cursor, arrivals)
        _add_reports(cursor, touched, arrivals)
        rates: Counter[Row] = Counter()
        totals: Counter[Row] = Counter()
        agents: Counter[Row] = Counter()
        for arrival in arrivals:
            group, hour = touched[arrival.cause.key], int(arrival.received_at // HOUR)
            rates[group.id, hour] += 1
            totals[hour, *group.totals] += 1
            agents[group.id, arrival.user_agent] += 1
        _add_agents(cursor, agents)
        _run(cursor, _RATES, _rows(rates))
        _run(cursor, _TOTALS, _rows(by_step(totals)))
        _run(cursor, _OUTCOMES, _rows(outcomes))
        return any(not group.totals[1] for group in touched.values())


def _rows(counts: Mapping[Any, int]) -> list[Row]:
    return [(*counted, number) for counted, number in counts.items()]


def _run(cursor: psycopg.Cursor[Any], sql: LiteralString, rows: Sequence[Row]) -> None:
    """Run a statement once for all rows, with a list for each column, in the order of their keys."""
    # The order must be the same as in upsert(), which the worker uses. Both sort in Python, not in the database.
    if rows:
        cursor.execute(sql, [list(column) for column in zip(*sorted(rows), strict=True)])


def _touch_groups(cursor: psycopg.Cursor[Any], arrivals: Sequence[Arrival]) -> dict[str, _Touched]:
    """Update the counts of the groups of these reports; the groups by their keys."""
    together: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        together.setdefault(arrival.cause.key, []).append(arrival)
    rows: list[Row] = []
    for key, same in together.items():
        cause, first = same[0].cause, same[0]
        times = [arrival.received_at for arrival in same]
        pins = json.dumps(cause.known_pins), json.dumps(cause.validated_pins)
        common = cause.host, cause.noted_host, cause.port, cause.mode, first.token, first.source
        rows.append((key, *common, *pins, len(same), min(times), max(times)))
    if not rows:
        return {}
    _run(cursor, _GROUPS, rows)
    touched: dict[str, _Touched] = {}
    for key, group, reports, sampled_after, *totals in cursor:
        before = reports - len(together[key])
        touched[key] = _Touched(group, before - sampled_after, before == 0, tuple(totals))
    places: list[Row] = []
    for key, group in touched.items():
        if group.is_new:
            cause = together[key][0].cause
            places += [(pin, group.id, "known") for pin in cause.known_pins]
            places += [(pin, group.id, "validated") for pin in cause.validated_pins]
    _run(cursor, _PINS, places)
    return touched


def _add_reports(cursor: psycopg.Cursor[Any], touched: Mapping[str, _Touched], arrivals: Sequence[Arrival]) -> None:
    if not arrivals:
        return
    ids = [identity for (identity,) in cursor.execute(_IDS, (len(arrivals),))]
    places = Counter({key: group.sampled for key, group in touched.items()})
    samples: list[Row] = []
    with cursor.copy(_REPORTS) as copy:
        for number, arrival in zip(ids, arrivals, strict=True):
            cause, flags, observed_at, expires_at, token, source, agent, received_at, body = arrival
            group = touched[cause.key].id
            copy.write_row((number, group, received_at, observed_at, expires_at, token, source, agent, " ".join(flags)))
            places[cause.key] += 1
            if is_sampled(places[cause.key]):
                samples.append((number, group, body))
    if samples:
        with cursor.copy(_SAMPLES) as copy:
            for sample in samples:
                copy.write_row(sample)


def _add_agents(cursor: psycopg.Cursor[Any], agents: Mapping[Row, int]) -> None:
    if not agents:
        return
    _run(cursor, _KNOWN_AGENTS, _rows(agents))
    new = agents.keys() - set(cursor.fetchall())
    if not new:
        return
    counts: Counter[int] = Counter(dict(cursor.execute(_COUNT_AGENTS, ([group for group, _ in new],)).fetchall()))
    added: Counter[Row] = Counter()
    for group, agent in sorted(new):
        is_told_apart = counts[group] < MAX_AGENTS
        counts[group] += is_told_apart
        added[group, agent if is_told_apart else OTHER_AGENTS] += agents[group, agent]
    _run(cursor, _NEW_AGENTS, _rows(added))
