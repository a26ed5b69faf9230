"""Retention: delete old reports without holding up the intake."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, delete, exists, func, select, tuple_, update

from dynpin.errors import StoreError

from ..values import HOUR, Pruned, Retention
from . import schema
from .engine import Engine, upsert
from .totals import leave

__all__ = ["prune"]

# So many rows are deleted at once. The intake waits for one such step at most.
_CHUNK = 2_000
_FEWEST = 10
_DAY = 86_400
_groups, _reports, _samples = schema.groups.c, schema.reports.c, schema.samples.c
_count = schema.outcomes.c["count"]


def prune(engine: Engine, retention: Retention, now: float) -> Pruned:
    """Delete what the retention does not keep, oldest first, in small transactions."""
    before = now - retention.days * _DAY
    reports = _delete(engine, schema.reports, _reports.received_at < before, _reports.received_at)
    groups = _delete_groups(engine, _groups.last_seen < before)
    # Whole days (UTC), so that the total of a day is always the sum of its hours.
    midnight = int(before // _DAY) * _DAY // HOUR
    for table in (schema.rates, schema.totals):
        _delete(engine, table, table.c.hour < midnight)
    _sum_up_outcomes(engine, int(before // HOUR))
    while (number := _too_many(engine, retention.bytes)) > 0:
        with engine.clearing() as db:
            in_time = select(_reports.received_at).order_by(_reports.received_at)
            edge = db.scalar(in_time.limit(1).offset(number))
        until = _reports.received_at < (now + _DAY if edge is None else edge)
        dropped = _delete(engine, schema.reports, until, _reports.received_at)
        reports += dropped
        if not dropped:
            break
        groups += _delete_groups(engine, ~exists().where(_reports.group_id == _groups.id).correlate(schema.groups))
    _sample_anew(engine)
    for table, ended in (
        (schema.sessions, schema.sessions.c.expires_at < now),
        (schema.audit, schema.audit.c.at < before),
        (schema.batches, schema.batches.c.stored_at < now - _DAY),
    ):
        _delete(engine, table, ended)
    return Pruned(reports, groups)


def _too_many(engine: Engine, limit: int) -> int:
    """About how many reports to delete, so that the bytes are below the limit."""
    if engine.bytes_at_most() <= limit or (used := engine.bytes_used()) <= limit:
        return 0
    with engine.reading() as db:
        there = db.scalar(select(func.count()).select_from(schema.reports)) or 0
    return max(_CHUNK, int(there * (used - limit) / used))


def _delete(engine: Engine, table: Table, which: ColumnElement[bool], first: ColumnElement[float] | None = None) -> int:
    """Delete the rows that match a condition, in the order of the column `first`; how many rows were deleted."""
    keys, total, chunk = list(table.primary_key), 0, _CHUNK
    some = select(*keys).where(which)
    if first is not None:
        some = some.order_by(first)
    while True:
        try:
            with engine.clearing() as db:
                # The condition twice: PostgreSQL chooses rows as they are when it begins. If another transaction
                # changes one meanwhile, it waits, and then asks the outer condition again, but not the inner one.
                number = db.execute(delete(table).where(tuple_(*keys).in_(some.limit(chunk)), which)).rowcount
        except StoreError:
            # On a full disk the log cannot grow: try fewer rows.
            if chunk <= _FEWEST:
                raise
            chunk //= 8
            continue
        total += number
        if number < chunk:
            return total


def _delete_groups(engine: Engine, condition: ColumnElement[bool]) -> int:
    total, chunk = 0, _CHUNK // 4
    while True:
        with engine.clearing() as db:
            # Groups that a batch is writing now are left for the next time. The others are locked and then checked
            # again: PostgreSQL chose them from an older snapshot, and a report may have come since.
            some = select(_groups.id).where(condition).limit(chunk).with_for_update(skip_locked=True)
            chosen = db.scalars(some).all()
            gone = leave(db, and_(_groups.id.in_(chosen), condition))
            db.execute(delete(schema.groups).where(_groups.id.in_(gone)))
        total += len(gone)
        if len(chosen) < chunk:
            return total


def _sample_anew(engine: Engine) -> None:
    """If a group has no body left, keep the next bodies as if they were its first."""
    unsampled = ~exists().where(_samples.group_id == _groups.id).correlate(schema.groups)
    which = and_(unsampled, _groups.sampled_after < _groups.reports)
    some = select(_groups.id).where(which).limit(_CHUNK).with_for_update(skip_locked=True)
    change = update(schema.groups).where(_groups.id.in_(some)).values(sampled_after=_groups.reports)
    while True:
        with engine.clearing() as db:
            if db.execute(change).rowcount < _CHUNK:
                return


def _sum_up_outcomes(engine: Engine, before: int) -> None:
    """Add the outcomes before an hour to the hour 0. A Prometheus counter must never go down."""
    outcomes, names = schema.outcomes, ("token", "outcome", "reason")
    keys = list(outcomes.primary_key)
    some = select(*keys).where(outcomes.c.hour > 0, outcomes.c.hour < before).limit(_CHUNK)
    taken = delete(outcomes).where(tuple_(*keys).in_(some)).returning(*(outcomes.c[name] for name in names), _count)
    while True:
        with engine.clearing() as db:
            rows = db.execute(taken).all()
            sums: Counter[tuple[Any, ...]] = Counter()
            for *kind, count in rows:
                sums[tuple(kind)] += count
            kept = [{"hour": 0, **dict(zip(names, kind, strict=True)), "count": n} for kind, n in sums.items()]
            upsert(db, outcomes, kept, add="count")
        if len(rows) < _CHUNK:
            return
