"""The reports of each hour and day by what their groups have in common: they move with them, and no page counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from ..values import STEPS
from . import schema
from .engine import upsert

__all__ = ["COMMON", "by_step", "leave", "moving"]

_groups, _rates = schema.groups.c, schema.rates.c
# What tells the totals of one time apart: all that they know of their reports' groups.
COMMON = ("mode", "verdict", "state", "token")
_PLACE = (_groups.id, _groups.mode, func.coalesce(_groups.verdict, ""), _groups.state, _groups.token)
Place = tuple[Any, ...]


def by_step(hourly: Mapping[Place, int]) -> Counter[Place]:
    """Reports by hour, and whatever else tells them apart, as the totals have them: each step by its first hour."""
    counts: Counter[Place] = Counter()
    for (hour, *place), reports in hourly.items():
        for step in STEPS:
            counts[(step, hour - hour % step, *place)] += reports
    return counts


@contextmanager
def moving(db: Connection, which: ColumnElement[bool]) -> Generator[Sequence[int]]:
    """While the groups that a condition names are changed: their reports move to where they then belong.

    Gives the numbers of the groups. Nobody else changes them, or adds reports to them, until the transaction ends.
    """
    before = _places(db, which)
    yield list(before)
    after = _places(db, _groups.id.in_(before))
    _move(db, {group: (place, after[group]) for group, place in before.items() if place != after[group]})


def leave(db: Connection, which: ColumnElement[bool]) -> Sequence[int]:
    """Take the reports of groups out, which the caller deletes next; the numbers of these groups."""
    before = _places(db, which)
    _move(db, {group: (place, None) for group, place in before.items()})
    return list(before)


def _places(db: Connection, which: ColumnElement[bool]) -> dict[int, Place]:
    # Locked in the order in which a batch locks them, so that nobody waits in a circle. SQLite has one writer anyway.
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
