"""The lists of reports and groups, page by page; each query has an index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, and_, select, tuple_

from ..filters import BadFilter, Filter, seconds
from ..values import Group, Page, StoredReport
from . import schema
from .conditions import group_condition
from .engine import Unit
from .joins import first
from .rows import GROUP_COLUMNS, REPORT_COLUMNS, group_of, report_of

__all__ = ["group", "groups", "reports"]

_groups, _reports = schema.groups.c, schema.reports.c
# If no more groups match, merge the newest reports of each. If more match, a scan by time soon finds enough reports.
_MERGED_GROUPS = 200
# The time of the last entry of a page, as Python's repr has it, and its id.
_CURSOR = re.compile(r"[0-9]{1,12}\.[0-9]{1,12}_[0-9]{1,18}")


def reports(unit: Unit, wanted: Filter, *, cursor: str | None = None, limit: int = 50) -> Page[StoredReport]:
    """The reports that match a filter, newest first."""
    when = _report_times(wanted, unit.now, cursor)
    if wanted.terms:
        of_groups = group_condition(Filter(wanted.terms), unit.now)
        some = select(_groups.id, _groups.last_seen).where(of_groups).limit(_MERGED_GROUPS + 1)
        matching = {row.id: row.last_seen for row in unit.db.execute(some)}
        if len(matching) <= _MERGED_GROUPS:
            return _merged(unit, matching, when, limit)
        when = and_(when, of_groups)
    in_time = first(schema.reports, schema.groups, _groups.id == _reports.group_id)
    rows = unit.db.execute(
        select(*REPORT_COLUMNS)
        .select_from(in_time)
        .where(when)
        .order_by(_reports.received_at.desc(), _reports.id.desc())
        .limit(limit + 1)
    ).all()
    return _report_page(rows, limit)


def _report_times(wanted: Filter, now: float, cursor: str | None) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.since:
        conditions.append(_reports.received_at >= seconds(wanted.since, now))
    if wanted.until:
        conditions.append(_reports.received_at < seconds(wanted.until, now))
    if cursor:
        conditions.append(tuple_(_reports.received_at, _reports.id) < tuple_(*_position(cursor)))
    return and_(True, *conditions)


def _merged(unit: Unit, groups: Mapping[int, float], when: ColumnElement[bool], limit: int) -> Page[StoredReport]:
    newest: list[tuple[float, int]] = []
    for group, last_seen in sorted(groups.items(), key=lambda seen: seen[1], reverse=True):
        if len(newest) > limit and last_seen < newest[-1][0]:
            break  # The reports of this group, and of those after it, are older than all of the page.
        of_group = select(_reports.received_at, _reports.id).where(_reports.group_id == group, when)
        in_order = of_group.order_by(_reports.received_at.desc(), _reports.id.desc()).limit(limit + 1)
        newest += [(received_at, identity) for received_at, identity in unit.db.execute(in_order)]
        newest = sorted(newest, reverse=True)[: limit + 1]
    chosen = [identity for _, identity in newest]
    if not chosen:
        return Page()
    joined = schema.reports.join(schema.groups, _groups.id == _reports.group_id)
    found = unit.db.execute(select(*REPORT_COLUMNS).select_from(joined).where(_reports.id.in_(chosen)))
    rows = {row.report_id: row for row in found}
    return _report_page([rows[identity] for identity in chosen if identity in rows], limit)


def _report_page(rows: Any, limit: int) -> Page[StoredReport]:  # noqa: ANN401
    entries = list(map(report_of, rows[:limit]))
    last = entries[-1] if len(rows) > limit else None
    return Page(entries, None if last is None else f"{last.received_at!r}_{last.id}")


def groups(
    unit: Unit, wanted: Filter, *, cursor: str | None = None, limit: int = 50, newest: bool = False
) -> Page[Group]:
    """The groups that match a filter, by `last_seen`, newest first; with `newest` by `first_seen`."""
    column = _groups.first_seen if newest else _groups.last_seen
    condition = group_condition(wanted, unit.now)
    if cursor:
        condition = and_(condition, tuple_(column, _groups.id) < tuple_(*_position(cursor)))
    in_order = select(*GROUP_COLUMNS).where(condition).order_by(column.desc(), _groups.id.desc()).limit(limit + 1)
    rows = unit.db.execute(in_order).all()
    entries = list(map(group_of, rows[:limit]))
    last = entries[-1] if len(rows) > limit else None
    if last is None:
        return Page(entries)
    return Page(entries, f"{last.first_seen if newest else last.last_seen!r}_{last.id}")


def _position(cursor: str) -> tuple[float, int]:
    if not _CURSOR.fullmatch(cursor):
        raise BadFilter("the cursor is not from this collector; begin again without one")
    moment, _, identity = cursor.partition("_")
    return float(moment), int(identity)


def group(unit: Unit, key: str) -> Group | None:
    """One group by its key."""
    row = unit.db.execute(select(*GROUP_COLUMNS).where(_groups.key == key)).one_or_none()
    return None if row is None else group_of(row)
