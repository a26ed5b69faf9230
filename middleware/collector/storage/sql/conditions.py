"""A filter as a condition on the groups."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import ColumnElement, FromClause, and_, func, not_, or_, select

from ..filters import Filter, seconds
from . import schema
from .texts import storable

__all__ = ["group_condition", "term_condition"]

Columns = FromClause
Condition = Callable[[FromClause, str], ColumnElement[bool]]


def group_condition(wanted: Filter, now: float, table: FromClause = schema.groups) -> ColumnElement[bool]:
    """The condition on a row of the groups, or of another table that has the filter's columns.

    Times are compared with when a group was last and first seen.
    """
    conditions: list[ColumnElement[bool]] = []
    for field in _CONDITIONS:
        for negated in (False, True):
            values = [term.value for term in wanted.terms if term.field == field and term.negated == negated]
            if values:
                some = or_(*(term_condition(field, value, table) for value in values))
                conditions.append(not_(some) if negated else some)
    if wanted.since:
        conditions.append(table.c.last_seen >= seconds(wanted.since, now))
    if wanted.until:
        conditions.append(table.c.first_seen < seconds(wanted.until, now))
    return and_(True, *conditions)


def term_condition(field: str, value: str, table: FromClause = schema.groups) -> ColumnElement[bool]:
    """The condition of one value of a filter."""
    return _CONDITIONS[field](table, storable(value))


def _ends_with(column: ColumnElement[str], suffix: str) -> ColumnElement[bool]:
    # PostgreSQL estimates from its statistics how many rows are LIKE this, and so chooses a good way to join them.
    return column.endswith(suffix, autoescape=True)


def _host(column: str) -> Condition:
    def condition(table: FromClause, value: str) -> ColumnElement[bool]:
        host = table.c[column]
        return _ends_with(host, value[1:].lower()) if value.startswith("*.") else host == value.lower()

    return condition


def _site(table: FromClause, value: str) -> ColumnElement[bool]:
    return or_(table.c.host == value, _ends_with(table.c.host, f".{value}"))


def _column(column: str) -> Condition:
    return lambda table, value: table.c[column] == value


def _issuer(table: FromClause, value: str) -> ColumnElement[bool]:
    # Never NULL, which would match neither the condition nor its negation.
    return and_(table.c.issuer.is_not(None), table.c.issuer == value)


def _verdict(table: FromClause, value: str) -> ColumnElement[bool]:
    # The totals have an empty text if a group has no verdict.
    if value == "none":
        return func.coalesce(table.c.verdict, "") == ""
    return and_(table.c.verdict.is_not(None), table.c.verdict == value)


def _pin(table: FromClause, value: str) -> ColumnElement[bool]:
    # IN uses the index of pins; a search in the JSON of the groups would read every group.
    return table.c.id.in_(select(schema.pins.c.group_id).where(schema.pins.c.pin == value.replace(" ", "+")))


def _key(table: FromClause, value: str) -> ColumnElement[bool]:
    # By id, which every index has: to count all groups but this one, an index is enough.
    named = schema.groups.alias("named")
    return table.c.id.in_(select(named.c.id).where(named.c.key == value))


_CONDITIONS: dict[str, Condition] = {
    "host": _host("host"),
    "noted_host": _host("noted_host"),
    "mode": _column("mode"),
    "verdict": _verdict,
    "state": _column("state"),
    "pin": _pin,
    "issuer": _issuer,
    "token": _column("token"),
    "group": _key,
    # The scope of a token, never a filter of people.
    "site": _site,
}
