"""The totals: reports of each hour and day by mode, verdict, state and token of the groups; no page counts reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, select

from ..values import STEPS
from . import schema
from .engine import upsert

__all__ = ["COMMON", "by_step", "leave", "moving"]

_groups, _rates = schema.groups.c, schema.rates.c
# The columns that a row of totals has of its groups.
COMMON = ("mode", "verdict", "state", "token")
_PLACE = (_groups.id, _groups.mode, func.coalesce(_groups.verdict, ""), _groups.state, _groups.token)
Place = tuple[Any, ...]


def by_step(hourly: Mapping[Place, int]) -> Counter[Place]:
    """Counts of reports, whose keys begin with an hour, as rows of the totals: by hour and by day."""
    counts: Counter[Place] = Counter()
    for (hour, *place), reports in hourly.items():
        for step in STEPS:
            counts[(step, hour - hour % step, *place)] += reports
    return counts


@contextmanager
def moving(db: Connection, which: ColumnElement[bool]) -> Generator[Sequence[int]]:
    """Change the groups that match a condition: when the block ends, their reports move to the right totals.

    Gives the ids of the groups. They are locked until the transaction ends: nobody else changes them or adds reports.
    """
    before = _places(db, which)
    yield list(before)
    after = _places(db, _groups.id.in_(before))
    _move(db, {group: (place, after[group]) for group, place in before.items() if place != after[group]})


def leave(db: Connection, which: ColumnElement[bool]) -> Sequence[int]:
    """Subtract the reports of groups that the caller deletes next; the ids of these groups."""
    before = _places(db, which)
    _move(db, {group: (place, None) for group, place in before.items()})
    return list(before)


def _places(db: Connection, which: ColumnElement[bool]) -> dict[int, Place]:
    # Locked in the same order as in a batch, so that there is no deadlock. SQLite has one writer anyway.
    rows = db.execute(select(*_PLACE).where(which).order_by(_groups.key).with_for_update())
    return {group: tuple(place) for group, *place in rows}


def _move(db: Connection, moved: Mapping[int, tuple[Place, Place | None]]) -> None:
    together: dict[tuple[Place, Place | None], list[int]] = {}
    for group, move in moved.items():
        together.setdefault(move, []).append(group)
    changes: Counter[Place] = Counter()
    for (before, after), groups in together.items():
        hours = select(_rates.hour, func.sum(_rates.reports)).where(_rates.group_id.in_(groups)).group_by(_rates.hour)
        for hour, reports in db.execute(hours):
            changes[(hour, *before)] -= int(reports)
            if after is not None:
                changes[(hour, *after)] += int(reports)
    rows = [
        {"step": step, "hour": hour, **dict(zip(COMMON, place, strict=True)), "reports": number}
        for (step, hour, *place), number in by_step(changes).items()
    ]
    upsert(db, schema.totals, rows, add="reports")
    # A total that is none is a row no more. These rows are locked, so no batch adds to them meanwhile.
    fewer = [{f"of_{name}": value for name, value in row.items()} for row in rows if row["reports"] <= 0]
    if fewer:
        keys = [column == bindparam(f"of_{column.name}") for column in schema.totals.primary_key]
        db.execute(delete(schema.totals).where(*keys, schema.totals.c.reports == 0), fewer)
