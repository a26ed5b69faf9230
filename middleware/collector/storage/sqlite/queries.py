"""What is read from the SQLite storage: each function is one question, and each question has an index."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from typing import cast

from ...stored_json import kept
from ..filters import BadFilter, Filter, Term, seconds
from ..interface import Column, Group, Page, Rise, StoredReport
from .conditions import Where, group_conditions
from .schema import BODY

__all__ = [
    "activity",
    "group",
    "groups",
    "reports",
    "rising",
    "tally",
    "texts",
    "unannounced",
    "untriaged",
]

# Up to so many groups the newest reports of each are merged; beyond, so many match that a scan by time soon has enough.
_MERGED_GROUPS = 200
# When the last entry of a page came, as Python writes it, and its number.
_CURSOR = re.compile(r"[0-9]{1,12}\.[0-9]{1,12}_[0-9]{1,18}")


def reports(db: sqlite3.Connection, wanted: Filter, now: float, cursor: str | None, limit: int) -> Page[StoredReport]:
    """The reports that a filter wants, newest first."""
    where = _report_times(wanted, now, cursor)
    order = "ORDER BY reports.received_at DESC, reports.id DESC LIMIT ?"
    if wanted.terms:
        of_groups = group_conditions(Filter(wanted.terms), now)
        matching = db.execute(
            f"SELECT id FROM groups WHERE {of_groups.sql} LIMIT ?",  # noqa: S608 - from conditions.py
            [*of_groups.parameters, _MERGED_GROUPS + 1],
        ).fetchall()
        if len(matching) <= _MERGED_GROUPS:
            return _merged(db, [row["id"] for row in matching], where, limit)
        where = where.and_(of_groups.sql, *of_groups.parameters)
    rows = db.execute(
        f"SELECT {_REPORT_COLUMNS} FROM reports CROSS JOIN groups ON groups.id = reports.group_id "  # noqa: S608
        f"{_THEIR_BODIES} WHERE {where.sql} {order}",
        [*where.parameters, limit + 1],
    ).fetchall()
    return _report_page(rows, limit)


def _report_times(wanted: Filter, now: float, cursor: str | None) -> Where:
    where = Where("1", [])
    for edge, comparison in ((wanted.since, ">="), (wanted.until, "<")):
        if edge:
            where = where.and_(f"reports.received_at {comparison} ?", seconds(edge, now))
    return where.and_("(reports.received_at, reports.id) < (?, ?)", *_position(cursor)) if cursor else where


def _merged(db: sqlite3.Connection, ids: list[int], where: Where, limit: int) -> Page[StoredReport]:
    newest: list[tuple[float, int]] = []
    for group_id in ids:
        newest += [
            (row["received_at"], row["id"])
            for row in db.execute(
                f"SELECT received_at, id FROM reports WHERE group_id = ? AND {where.sql} "  # noqa: S608
                "ORDER BY received_at DESC, id DESC LIMIT ?",
                [group_id, *where.parameters, limit + 1],
            )
        ]
    chosen = [identity for _, identity in sorted(newest, reverse=True)[: limit + 1]]
    if not chosen:
        return Page()
    rows = db.execute(
        f"SELECT {_REPORT_COLUMNS} FROM reports JOIN groups ON groups.id = reports.group_id "  # noqa: S608
        f"{_THEIR_BODIES} WHERE reports.id IN ({','.join('?' * len(chosen))})",
        chosen,
    ).fetchall()
    rows.sort(key=lambda row: (row["received_at"], row["id"]), reverse=True)
    return _report_page(rows, limit)


def _report_page(rows: list[sqlite3.Row], limit: int) -> Page[StoredReport]:
    entries = [_stored_report(row) for row in rows[:limit]]
    last = entries[-1] if len(rows) > limit else None
    return Page(entries, None if last is None else f"{last.received_at!r}_{last.id}")


def groups(
    db: sqlite3.Connection, wanted: Filter, now: float, cursor: str | None, limit: int, *, newest: bool
) -> Page[Group]:
    """The groups that a filter wants: the last seen first, or those first seen last."""
    column = "first_seen" if newest else "last_seen"
    where = group_conditions(wanted, now)
    if cursor:
        where = where.and_(f"(groups.{column}, groups.id) < (?, ?)", *_position(cursor))
    rows = db.execute(
        f"SELECT {_GROUP_COLUMNS} FROM groups WHERE {where.sql} "  # noqa: S608 - from conditions.py
        f"ORDER BY groups.{column} DESC, groups.id DESC LIMIT ?",
        [*where.parameters, limit + 1],
    ).fetchall()
    entries = [_group(row) for row in rows[:limit]]
    last = entries[-1] if len(rows) > limit else None
    if last is None:
        return Page(entries)
    return Page(entries, f"{last.first_seen if newest else last.last_seen!r}_{last.id}")


def _position(cursor: str) -> tuple[float, int]:
    if not _CURSOR.fullmatch(cursor):
        raise BadFilter("the cursor is not one that this collector gave")
    moment, _, identity = cursor.partition("_")
    return float(moment), int(identity)


def group(db: sqlite3.Connection, key: str) -> Group | None:
    """One group by its key."""
    row = db.execute(f"SELECT {_GROUP_COLUMNS} FROM groups WHERE key = ?", (key,)).fetchone()  # noqa: S608
    return None if row is None else _group(row)


def activity(db: sqlite3.Connection, wanted: Filter, now: float, since: int, until: int) -> list[tuple[int, str, int]]:
    """Hour, mode and number of reports."""
    common = tuple(term for term in wanted.terms if term.field in _IN_TOTALS)
    others = tuple(term for term in wanted.terms if term.field not in _IN_TOTALS)
    hours = (since, until)
    if any(not term.negated for term in others):
        return _sum(_of_groups(db, group_conditions(Filter(wanted.terms), now), hours))
    counts = _of_totals(db, group_conditions(Filter(common), now), hours)
    if others:
        # All but a few: what is excluded is found by an index, what is left may be every group there is.
        sql, parameters = _any_of(others, now)
        excluded = group_conditions(Filter(common), now).and_(sql, *parameters)
        counts += [(hour, mode, -number) for hour, mode, number in _of_groups(db, excluded, hours)]
    return _sum(counts)


def _any_of(terms: tuple[Term, ...], now: float) -> tuple[str, list[object]]:
    """The condition on groups that have what one of these terms names, and its parameters: a search for each."""
    each = [group_conditions(Filter((Term(term.field, term.value),)), now) for term in terms]
    found = " UNION ".join(f"SELECT id FROM groups WHERE {where.sql}" for where in each)  # noqa: S608
    return f"groups.id IN ({found})", [parameter for where in each for parameter in where.parameters]


# What the totals know of their reports' groups.
_IN_TOTALS = ("mode", "verdict", "state", "token")


def _of_totals(db: sqlite3.Connection, where: Where, hours: tuple[int, int]) -> list[tuple[int, str, int]]:
    rows = db.execute(
        f"SELECT hour, mode, sum(reports) AS reports FROM totals AS groups WHERE {where.sql} "  # noqa: S608
        "AND hour >= ? AND hour < ? GROUP BY hour, mode",
        [*where.parameters, *hours],
    )
    return [(row["hour"], row["mode"], row["reports"]) for row in rows]


def _of_groups(db: sqlite3.Connection, where: Where, hours: tuple[int, int]) -> list[tuple[int, str, int]]:
    # CROSS JOIN: the groups first, then the hours of each, never all groups of each hour.
    rows = db.execute(
        "SELECT rates.hour, groups.mode, sum(rates.reports) AS reports FROM groups CROSS JOIN rates "  # noqa: S608
        f"ON groups.id = rates.group_id WHERE {where.sql} AND rates.hour >= ? AND rates.hour < ? "
        "GROUP BY rates.hour, groups.mode",
        [*where.parameters, *hours],
    )
    return [(row["hour"], row["mode"], row["reports"]) for row in rows]


def _sum(counts: list[tuple[int, str, int]]) -> list[tuple[int, str, int]]:
    summed: Counter[tuple[int, str]] = Counter()
    for hour, mode, number in counts:
        summed[(hour, mode)] += number
    return [(hour, mode, number) for (hour, mode), number in sorted(summed.items()) if number]


def tally(db: sqlite3.Connection, wanted: Filter, now: float, column: Column, limit: int) -> list[tuple[str, int, int]]:
    """Value, number of groups and number of reports, by a column of the groups."""
    where = group_conditions(wanted, now)
    # The + keeps SQLite from reading every row of the groups in the order of another index, to spare itself a sort.
    rows = db.execute(
        f"SELECT {column} AS value, count(*) AS number, sum(reports) AS reports FROM groups "  # noqa: S608 - a Literal
        f"WHERE {where.sql} GROUP BY +{column} ORDER BY reports DESC LIMIT ?",
        [*where.parameters, limit],
    )
    return [(row["value"] or "", row["number"], row["reports"]) for row in rows]


def untriaged(db: sqlite3.Connection, limit: int, judged_with: str) -> list[tuple[Group, str, float]]:
    """Groups without a verdict, then those whose verdict was found with other keys; each with its newest body."""
    for condition, parameters in (
        ("groups.verdict IS NULL", ()),
        # Two ranges, which an index finds; != would read every group.
        ("(groups.judged_with < ? OR groups.judged_with > ?)", (judged_with, judged_with)),
    ):
        rows = db.execute(
            f"SELECT {_GROUP_COLUMNS}, {BODY} AS body, reports.received_at FROM groups JOIN reports ON reports.id = "  # noqa: S608
            "(SELECT id FROM reports WHERE group_id = groups.id ORDER BY received_at DESC, id DESC LIMIT 1) "
            f"{_THEIR_BODIES} WHERE {condition} AND {BODY} IS NOT NULL LIMIT ?",
            (*parameters, limit),
        ).fetchall()
        if rows:
            return [(_group(row), row["body"], row["received_at"]) for row in rows]
    return []


def unannounced(db: sqlite3.Connection, limit: int) -> list[Group]:
    """Judged, open groups that no alert has told of."""
    rows = db.execute(
        f"SELECT {_GROUP_COLUMNS} FROM groups WHERE alerted_at IS NULL AND verdict IS NOT NULL AND state = 'open' "  # noqa: S608
        "ORDER BY groups.id LIMIT ?",
        (limit,),
    ).fetchall()
    return [_group(row) for row in rows]


def rising(db: sqlite3.Connection, hour: int, factor: float, at_least: int) -> list[Rise]:
    """Groups, but for the muted, that sent so many more reports in an hour than on average in the day before.

    What was resolved and silent for that day counts from its first report on.
    """
    rows = db.execute(
        f"SELECT {_GROUP_COLUMNS}, groups.alerted_at, rates.reports AS now, "  # noqa: S608
        "(SELECT coalesce(sum(earlier.reports), 0) / 24.0 FROM rates AS earlier WHERE earlier.group_id = groups.id "
        "AND earlier.hour >= ? AND earlier.hour < ?) AS before "
        "FROM rates JOIN groups ON groups.id = rates.group_id "
        "WHERE rates.hour = ? AND (rates.reports >= ? OR (groups.state = 'resolved' AND before = 0)) "
        "AND groups.state != 'muted' AND now >= before * ?",
        (hour - 24, hour, hour, at_least, factor),
    ).fetchall()
    return [Rise(_group(row), row["now"], row["before"], row["alerted_at"]) for row in rows]


_GROUP_COLUMNS = (
    "groups.id AS group_id, groups.key, groups.host, groups.noted_host, groups.port, groups.mode, groups.token, "
    "groups.known_pins, groups.validated_pins, groups.first_seen, groups.last_seen, groups.reports, groups.issuer, "
    "groups.verdict, groups.severity, groups.state, "
    "(SELECT diagnosis FROM diagnoses WHERE diagnoses.group_id = groups.id) AS diagnosis"
)
_REPORT_COLUMNS = (
    "reports.id, reports.received_at, reports.observed_at, reports.expires_at, reports.source, reports.user_agent, "
    f"reports.flags, reports.token AS report_token, {BODY} AS body, {_GROUP_COLUMNS}"
)
_THEIR_BODIES = "LEFT JOIN samples ON samples.report_id = reports.id LEFT JOIN texts ON texts.id = samples.text_id"


def _group(row: sqlite3.Row) -> Group:
    return Group(
        id=row["group_id"],
        key=row["key"],
        host=row["host"],
        noted_host=row["noted_host"],
        port=row["port"],
        mode=row["mode"],
        token=row["token"],
        known_pins=texts(row["known_pins"]),
        validated_pins=texts(row["validated_pins"]),
        first_seen=row["first_seen"],
        last_seen=row["last_seen"],
        reports=row["reports"],
        issuer=row["issuer"],
        verdict=row["verdict"],
        severity=row["severity"],
        diagnosis=row["diagnosis"],
        state=row["state"],
    )


def texts(column: str) -> tuple[str, ...]:
    """The texts of a list that is kept as JSON; none where it is damaged."""
    found = kept(column)
    return tuple(map(str, cast("list[object]", found))) if isinstance(found, list) else ()


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
