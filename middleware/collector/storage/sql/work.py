"""The worker's queries: leases, groups to judge and their verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, delete, exists, func, or_, select, update

from ..values import LEASE_S, Group, Triaged
from . import schema
from .engine import Unit, upsert
from .rows import GROUP_COLUMNS, group_of
from .totals import moving

__all__ = [
    "authorities",
    "claim",
    "fact",
    "release",
    "set_fact",
    "set_verdicts",
    "untriaged",
    "write_proof",
]

_groups, _reports, _samples = schema.groups.c, schema.reports.c, schema.samples.c
_rates, _leases, _facts = schema.rates.c, schema.leases.c, schema.facts.c


def untriaged(unit: Unit, limit: int, judged_with: str = "") -> list[tuple[Group, str, float]]:
    """Groups without a verdict, then groups that were judged with other keys; each with its newest body.

    The sources take turns, and each begins with its oldest group. So a flood from one source delays no other.
    """
    for condition in (
        _groups.verdict.is_(None),
        # Two ranges, so that an index is used; != would read every group.
        or_(_groups.judged_with < judged_with, _groups.judged_with > judged_with),
    ):
        turn = func.row_number().over(partition_by=_groups.source, order_by=_groups.id)
        has_body = exists().where(_samples.group_id == _groups.id).correlate(schema.groups)
        chosen = unit.db.scalars(select(_groups.id).where(condition, has_body).order_by(turn, _groups.id).limit(limit))
        order = {group: place for place, group in enumerate(chosen)}
        if order:
            return sorted(_with_bodies(unit, list(order)), key=lambda found: order[found[0].id])
    return []


def _with_bodies(unit: Unit, groups: Sequence[int]) -> list[tuple[Group, str, float]]:
    own = schema.samples.alias("own")
    of_group = select(func.max(own.c.report_id)).where(own.c.group_id == _groups.id)
    newest = of_group.correlate(schema.groups).scalar_subquery()
    rows = unit.db.execute(
        select(*GROUP_COLUMNS, _samples.body, _reports.received_at)
        .select_from(schema.groups)
        .join(schema.samples, _samples.report_id == newest)
        .join(schema.reports, _reports.id == _samples.report_id)
        .where(_groups.id.in_(groups))
    )
    return [(group_of(row), row.body, row.received_at) for row in rows]


def authorities(unit: Unit, pins: Sequence[str]) -> dict[str, str]:
    """The names of the CAs whose keys have these pins, from earlier reports."""
    column = schema.authorities.c
    rows = unit.db.execute(select(column.pin, column.name).where(column.pin.in_(pins)))
    return {row.pin: row.name for row in rows}


def set_verdicts(unit: Unit, judged: Iterable[tuple[Group, Triaged]]) -> None:
    """Store the verdicts that triage found. A group that was pruned in the meantime is ignored."""
    found = {group.id: triaged for group, triaged in judged}
    with moving(unit.db, _groups.id.in_(found)) as ids:
        for group in ids:
            told = found[group]
            verdict = {name: getattr(told, name) for name in ("verdict", "severity", "issuer", "judged_with")}
            unit.db.execute(update(schema.groups).where(_groups.id == group).values(verdict))
    there = [(group, found[group]) for group in ids]
    diagnoses = [{"group_id": group, "diagnosis": told.diagnosis} for group, told in there]
    upsert(unit.db, schema.diagnoses, diagnoses, replace=["diagnosis"])
    pins = [{"pin": pin, "group_id": group, "place": place} for group, told in there for pin, place, _ in told.pins]
    upsert(unit.db, schema.pins, pins)
    named = [
        {"pin": pin, "name": name, "group_id": group}
        for group, told in there
        for pin, _, name in told.pins
        if name is not None
    ]
    upsert(unit.db, schema.authorities, named)


def claim(unit: Unit, work: str, holder: str) -> bool:
    """Take or extend the lease of a kind of work for `LEASE_S` seconds. False if another worker has it."""
    now = unit.engine.shared_clock(unit.db, unit.now)
    lease = {"work": work, "holder": holder, "expires_at": now + LEASE_S}
    if upsert(unit.db, schema.leases, [lease]):
        return True
    # A lease that ends later than LEASE_S from now was written by a clock that was ahead. It counts as free.
    free = or_(_leases.holder == holder, _leases.expires_at <= now, _leases.expires_at > now + LEASE_S)
    return unit.db.execute(update(schema.leases).where(_leases.work == work, free).values(lease)).rowcount > 0


def release(unit: Unit, holder: str) -> None:
    """End all leases of a holder."""
    unit.db.execute(delete(schema.leases).where(_leases.holder == holder))


def fact(unit: Unit, name: str) -> float | None:
    """The number that is stored under a name, or None."""
    return unit.db.scalar(select(_facts.value).where(_facts.name == name))


def set_fact(unit: Unit, name: str, value: float) -> None:
    """Store a number under a name."""
    upsert(unit.db, schema.facts, [{"name": name, "value": value}], replace=["value"])


def write_proof(db: Connection, now: float) -> None:
    """Write a row that nobody reads, to prove that a write succeeds."""
    upsert(db, schema.facts, [{"name": "written_at", "value": now}], replace=["value"])
