"""How long reports are kept, and how what is older leaves without holding up the intake."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, select, update

from dynpin.errors import StoreError

from ..values import HOUR, Pruned, Retention
from . import schema
from .engine import Engine, upsert
from .totals import leave

__all__ = ["prune"]

# So many rows are deleted at once: the intake never waits for longer than that takes.
_CHUNK = 2_000
_FEWEST = 10
_DAY = 86_400
_groups, _reports, _samples = schema.groups.c, schema.reports.c, schema.samples.c


def prune(engine: Engine, retention: Retention, now: float) -> Pruned:
    """Delete what the retention does not keep, oldest first, in small transactions."""
    before = now - retention.days * _DAY
    reports = _delete_reports(engine, _reports.received_at < before)
    groups = _delete_groups(engine, _groups.last_seen < before)
    with engine.clearing() as db:
        for table in (schema.rates, schema.totals):
            db.execute(delete(table).where(table.c.hour < int(before // HOUR)))
        _sum_up_outcomes(db, int(before // HOUR))
    while (number := _too_many(engine, retention.bytes)) > 0:
        with engine.clearing() as db:
            in_time = select(_reports.received_at).order_by(_reports.received_at)
            edge = db.scalar(in_time.limit(1).offset(number))
        dropped = _delete_reports(engine, _reports.received_at < (now + _DAY if edge is None else edge))
        reports += dropped
        if not dropped:
            break
        groups += _delete_groups(engine, ~exists().where(_reports.group_id == _groups.id).correlate(schema.groups))
    with engine.clearing() as db:
        # Where no body is left, a sample is taken anew.
        unsampled = ~exists().where(_samples.group_id == _groups.id).correlate(schema.groups)
        fewer = _groups.sampled_after < _groups.reports
        some = select(_groups.id).where(unsampled, fewer).with_for_update(skip_locked=True)
        db.execute(update(schema.groups).where(_groups.id.in_(some)).values(sampled_after=_groups.reports))
        db.execute(delete(schema.totals).where(schema.totals.c.reports == 0))
        db.execute(delete(schema.sessions).where(schema.sessions.c.expires_at < now))
        db.execute(delete(schema.audit).where(schema.audit.c.at < before))
        db.execute(delete(schema.batches).where(schema.batches.c.stored_at < now - _DAY))
    return Pruned(reports, groups)


def _too_many(engine: Engine, limit: int) -> int:
    """How many reports are to go, about, since there are more bytes than the limit."""
    used = engine.bytes_used()
    if used <= limit:
        return 0
    with engine.reading() as db:
        there = db.scalar(select(func.count()).select_from(schema.reports)) or 0
    return max(_CHUNK, int(there * (used - limit) / used))


def _delete_reports(engine: Engine, condition: ColumnElement[bool]) -> int:
    total, chunk = 0, _CHUNK
    while True:
        try:
            with engine.clearing() as db:
                some = select(_reports.id).where(condition).order_by(_reports.received_at).limit(chunk)
                number = db.execute(delete(schema.reports).where(_reports.id.in_(some))).rowcount
        except StoreError:
            # On a full disk a deletion must fit into the log that is there: fewer rows do.
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
            # Those that a batch writes to just now are left for the next time. The others are locked, and then asked
            # again: PostgreSQL has chosen them as they were when it began, and a report may have come since.
            some = select(_groups.id).where(condition).limit(chunk).with_for_update(skip_locked=True)
            chosen = db.scalars(some).all()
            gone = leave(db, and_(_groups.id.in_(chosen), condition))
            db.execute(delete(schema.groups).where(_groups.id.in_(gone)))
        total += len(gone)
        if len(chosen) < chunk:
            return total


def _sum_up_outcomes(db: Connection, before: int) -> None:
    """Of what was answered before an hour keep the sums, in the hour 0: a counter of Prometheus never goes down."""
    old, names = schema.outcomes.c.hour < before, ("token", "outcome", "reason")
    kinds = [schema.outcomes.c[name] for name in names]
    sums = db.execute(select(*kinds, func.sum(schema.outcomes.c.count)).where(old).group_by(*kinds)).all()
    db.execute(delete(schema.outcomes).where(old))
    rows = [{"hour": 0, **dict(zip(names, kind, strict=True)), "count": int(count)} for *kind, count in sums]
    upsert(db, schema.outcomes, rows, add="count")
