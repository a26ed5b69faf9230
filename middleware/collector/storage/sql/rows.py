"""From rows of the database to the values of the interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, select

from ...stored_json import kept
from ..values import Group, StoredReport
from . import schema

__all__ = ["GROUP_COLUMNS", "REPORT_COLUMNS", "group_of", "report_of", "texts"]

_groups, _reports = schema.groups.c, schema.reports.c

# In the order of the fields of Group.
GROUP_COLUMNS: tuple[ColumnElement[Any], ...] = (
    _groups.id,
    _groups.key,
    _groups.host,
    _groups.noted_host,
    _groups.port,
    _groups.mode,
    _groups.token,
    _groups.known_pins,
    _groups.validated_pins,
    _groups.first_seen,
    _groups.last_seen,
    _groups.reports,
    _groups.issuer,
    _groups.verdict,
    _groups.severity,
    select(schema.diagnoses.c.diagnosis)
    .where(schema.diagnoses.c.group_id == _groups.id)
    .correlate(schema.groups)
    .scalar_subquery()
    .label("diagnosis"),
    _groups.state,
)
# In the order of the fields of StoredReport, except for its group, whose columns come last.
REPORT_COLUMNS: tuple[ColumnElement[Any], ...] = (
    _reports.id.label("report_id"),
    _reports.received_at,
    _reports.observed_at,
    _reports.expires_at,
    _reports.token.label("report_token"),
    _reports.source,
    _reports.user_agent,
    _reports.flags,
    select(schema.samples.c.body)
    .where(schema.samples.c.report_id == _reports.id)
    .correlate(schema.reports)
    .scalar_subquery()
    .label("body"),
    *GROUP_COLUMNS,
)
_OF_REPORT = len(REPORT_COLUMNS) - len(GROUP_COLUMNS)


def group_of(row: Sequence[Any]) -> Group:
    """A group from its columns; further columns are ignored."""
    values = list(row[: len(GROUP_COLUMNS)])
    values[7:9] = texts(values[7]), texts(values[8])
    return Group(*values)


def report_of(row: Sequence[Any]) -> StoredReport:
    """A report from its columns."""
    identity, received, observed, expires, token, source, agent, flags, body = row[:_OF_REPORT]
    group = group_of(row[_OF_REPORT:])
    return StoredReport(identity, group, received, observed, expires, token, source, agent, tuple(flags.split()), body)


def texts(column: str) -> tuple[str, ...]:
    """The texts of a list that is stored as JSON; empty if it is damaged."""
    found = kept(column)
    return tuple(map(str, cast("list[object]", found))) if isinstance(found, list) else ()
