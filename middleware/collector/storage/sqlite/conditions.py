"""A filter as SQL: every value is a parameter, every name comes from this page."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..filters import Filter, seconds

__all__ = ["Where", "group_conditions"]


class Where(NamedTuple):
    """A condition on the table of groups, and its parameters."""

    sql: str
    parameters: list[object]

    def and_(self, sql: str, *parameters: object) -> Where:
        """The same, narrowed by one more condition."""
        return Where(f"{self.sql} AND {sql}", [*self.parameters, *parameters])


def group_conditions(wanted: Filter, now: float) -> Where:
    """The condition on a row of groups; times hold against when the group was last and first seen."""
    where = Where("1", [])
    for field, condition_of in _CONDITIONS.items():
        for negated in (False, True):
            values = [term.value for term in wanted.terms if term.field == field and term.negated == negated]
            if values:
                some = [condition_of(value) for value in values]
                sql = " OR ".join(condition.sql for condition in some)
                parameters = [parameter for condition in some for parameter in condition.parameters]
                where = where.and_(f"NOT ({sql})" if negated else f"({sql})", *parameters)
    if wanted.since:
        where = where.and_("groups.last_seen >= ?", seconds(wanted.since, now))
    if wanted.until:
        where = where.and_("groups.first_seen < ?", seconds(wanted.until, now))
    return where


def _host(column: str) -> Callable[[str], Where]:
    def condition(value: str) -> Where:
        if value.startswith("*."):
            suffix = value[1:].lower()
            return Where(f"substr(groups.{column}, ?) = ?", [-len(suffix), suffix])
        return Where(f"groups.{column} = ?", [value.lower()])

    return condition


def _site(value: str) -> Where:
    return Where("(groups.host = ? OR substr(groups.host, ?) = ?)", [value, -len(value) - 1, f".{value}"])


def _column(column: str) -> Callable[[str], Where]:
    return lambda value: Where(f"groups.{column} IS ?", [value])


def _pin(value: str) -> Where:
    # IN over the index of pins is one look-up; a search in the groups' own JSON would read them all.
    return Where("groups.id IN (SELECT group_id FROM pins WHERE pin = ?)", [value.replace(" ", "+")])


_CONDITIONS: dict[str, Callable[[str], Where]] = {
    "host": _host("host"),
    "noted_host": _host("noted_host"),
    "mode": _column("mode"),
    # The totals have an empty text where a group has no verdict.
    "verdict": lambda value: (
        Where("coalesce(groups.verdict, '') = ''", []) if value == "none" else _column("verdict")(value)
    ),
    "state": _column("state"),
    "pin": _pin,
    "issuer": _column("issuer"),
    "token": _column("token"),
    "group": _column("key"),
    # What a token may read about, never a filter of people.
    "site": _site,
}
