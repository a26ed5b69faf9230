"""Numbers of reports: by hour, by a column of the groups, by user agent, by the intake's answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select

from ..filters import Filter
from ..values import Column, Group, Step
from . import schema
from .conditions import group_condition, term_condition
from .engine import Unit
from .joins import first
from .totals import COMMON

__all__ = ["accepted", "activity", "agents", "outcomes", "tally"]

_groups, _rates, _totals, _outcomes = schema.groups.c, schema.rates.c, schema.totals.c, schema.outcomes.c
Hours = list[tuple[int, str, int]]


def activity(unit: Unit, wanted: Filter, since: int, until: int, step: Step = 1) -> Hours:
    """Hour, mode and number of reports, by hour or (step 24) by day; hours run from `since` to `until`, without it."""
    common = Filter(tuple(term for term in wanted.terms if term.field in COMMON))
    others = [term for term in wanted.terms if term.field not in COMMON]
    if any(not term.negated for term in others):
        return _summed(_of_groups(unit, group_condition(Filter(wanted.terms), unit.now), since, until, step))
    counts = _of_totals(unit, group_condition(common, unit.now, schema.totals), since, until, step)
    if others:
        # Sum all groups and subtract the excluded ones: an index finds those, and the others may be very many.
        found = or_(*(term_condition(term.field, term.value) for term in others))
        excluded = and_(group_condition(common, unit.now), found)
        counts += [(hour, mode, -number) for hour, mode, number in _of_groups(unit, excluded, since, until, step)]
    return _summed(counts)


def _of_totals(unit: Unit, condition: ColumnElement[bool], since: int, until: int, step: Step) -> Hours:
    return _hours(
        unit.db.execute(
            select(_totals.hour, _totals.mode, func.sum(_totals.reports))
            .where(condition, _totals.step == step, _totals.hour >= since, _totals.hour < until)
            .group_by(_totals.hour, _totals.mode)
        )
    )


def _of_groups(unit: Unit, condition: ColumnElement[bool], since: int, until: int, step: Step) -> Hours:
    hour = (_rates.hour - _rates.hour % step).label("hour") if step > 1 else _rates.hour
    # Read the groups first, then the hours of each; the other order would read all groups of each hour.
    return _hours(
        unit.db.execute(
            select(hour, _groups.mode, func.sum(_rates.reports))
            .select_from(first(schema.groups, schema.rates, _groups.id == _rates.group_id))
            .where(condition, _rates.hour >= since, _rates.hour < until)
            .group_by(hour, _groups.mode)
        )
    )


def _hours(rows: Iterable[Any]) -> Hours:
    # PostgreSQL's sums are of type Decimal.
    return [(hour, mode, int(number)) for hour, mode, number in rows]


def _summed(counts: Hours) -> Hours:
    summed: Counter[tuple[int, str]] = Counter()
    for hour, mode, number in counts:
        summed[hour, mode] += number
    return [(hour, mode, number) for (hour, mode), number in sorted(summed.items()) if number]


def tally(unit: Unit, wanted: Filter, column: Column, limit: int = 10) -> list[tuple[str, int, int]]:
    """Value, groups and reports, for each value of a column of the groups; most reports first, then last seen."""
    # An expression, not the column: else SQLite reads every row in the order of an index, to save a sort.
    value = func.coalesce(_groups[column], "").label("value")
    reports = func.sum(_groups.reports)
    rows = unit.db.execute(
        select(value, func.count(), reports)
        .where(group_condition(wanted, unit.now))
        .group_by(value)
        .order_by(reports.desc(), func.max(_groups.last_seen).desc(), value)
        .limit(limit)
    )
    return [(name, groups, int(number)) for name, groups, number in rows]


def agents(unit: Unit, group: Group) -> list[tuple[str, int]]:
    """The user agents of a group and how many reports each sent, most first."""
    column = schema.agents.c
    asked = select(column.user_agent, column.reports).where(column.group_id == group.id)
    return [(agent, reports) for agent, reports in unit.db.execute(asked.order_by(column.reports.desc()))]


def outcomes(unit: Unit, since: int) -> list[tuple[str, str, int]]:
    """The intake's answers since an hour: outcome, reason and how often, most first."""
    number = func.sum(_outcomes.count)
    kinds = (_outcomes.outcome, _outcomes.reason)
    asked = select(*kinds, number).where(_outcomes.hour >= since).group_by(*kinds).order_by(number.desc(), *kinds)
    return [(outcome, reason, int(total)) for outcome, reason, total in unit.db.execute(asked)]


def accepted(unit: Unit, hour: int) -> dict[str, int]:
    """How many reports all nodes together accepted in an hour (hours since the epoch), by token."""
    asked = select(_outcomes.token, func.sum(_outcomes.count)).where(
        _outcomes.hour == hour, _outcomes.outcome == "accepted"
    )
    return {token: int(number) for token, number in unit.db.execute(asked.group_by(_outcomes.token))}
