"""Alerts: groups that are new or rise, and the groups that each channel must still be told of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Double, and_, case, cast, delete, func, or_, select, update

from ..values import ChannelNote, Group, PendingAlert, Rise
from . import schema
from .engine import Unit, upsert
from .rows import GROUP_COLUMNS, group_of

__all__ = ["announce", "channels", "keep_channels", "note_channel", "pending_alerts", "rising", "unannounced"]

_groups, _rates, _pending, _channels = schema.groups.c, schema.rates.c, schema.pending_alerts.c, schema.channels.c
# A resolved group that comes back is told again; a muted group is not.
_STANDS = or_(_groups.state == "open", and_(_pending.reports.is_not(None), _groups.state != "muted"))
# A stranger who makes thousands of groups must not delay the alert of an attack by hours.
_ATTACKS_FIRST = case((_groups.severity == "attack", 0), else_=1)
_NOTED = [each.name for each in fields(ChannelNote) if each.name != "waiting"]


def unannounced(unit: Unit, limit: int) -> list[Group]:
    """Open groups with a verdict that no alert has announced."""
    waiting = and_(_groups.alerted_at.is_(None), _groups.verdict.is_not(None), _groups.state == "open")
    rows = unit.db.execute(select(*GROUP_COLUMNS).where(waiting).order_by(_groups.id).limit(limit))
    return list(map(group_of, rows))


def rising(unit: Unit, hour: int, factor: float, at_least: int) -> list[Rise]:
    """Groups with at least `factor` times as many reports in an hour as in an average hour of the day before.

    Muted groups are left out. `at_least` is the fewest reports, but a resolved group that sent nothing in that day
    rises with its first report.
    """
    earlier = schema.rates.alias("earlier")
    of_day = and_(earlier.c.group_id == _rates.group_id, earlier.c.hour >= hour - 24, earlier.c.hour < hour)
    in_all = select(func.coalesce(func.sum(earlier.c.reports), 0)).where(of_day).correlate(schema.rates)
    before = cast(in_all.scalar_subquery(), Double) / 24
    rows = unit.db.execute(
        select(*GROUP_COLUMNS, _groups.alerted_at, _rates.reports.label("now"), before.label("before"))
        .select_from(schema.rates.join(schema.groups, _groups.id == _rates.group_id))
        .where(
            _rates.hour == hour,
            or_(_rates.reports >= at_least, and_(_groups.state == "resolved", before == 0)),
            _groups.state != "muted",
            _rates.reports >= before * factor,
        )
        .order_by(_groups.id)
    )
    return [Rise(group_of(row), row.now, row.before, row.alerted_at) for row in rows]


def announce(unit: Unit, channels: Sequence[str], alerts: Sequence[PendingAlert], at: float) -> None:
    """Store alerts that each of these channels has still to take."""
    told = _groups.id.in_([each.group.id for each in alerts])
    # Locked in the same order as in a batch, so that there is no deadlock. Some groups may be pruned by now.
    found = set(unit.db.scalars(select(_groups.id).where(told).order_by(_groups.key).with_for_update()))
    unit.db.execute(update(schema.groups).where(_groups.id.in_(found)).values(alerted_at=at))
    rows = [
        {"channel": channel, "group_id": each.group.id, "reports": each.reports, "before": each.before}
        for channel in channels
        for each in alerts
        if each.group.id in found
    ]
    upsert(unit.db, schema.pending_alerts, rows)


def pending_alerts(unit: Unit, channel: str, limit: int) -> list[PendingAlert]:
    """Alerts that a channel has still to take; none about groups that somebody has muted or resolved since."""
    rows = unit.db.execute(
        select(*GROUP_COLUMNS, _pending.reports.label("risen"), _pending.before)
        .select_from(schema.pending_alerts.join(schema.groups, _groups.id == _pending.group_id))
        .where(_pending.channel == channel, _STANDS)
        .order_by(_ATTACKS_FIRST, _pending.group_id)
        .limit(limit)
    )
    return [PendingAlert(group_of(row), row.risen, row.before) for row in rows]


def channels(unit: Unit) -> list[ChannelNote]:
    """The state of each channel of alerts, in the order of their names."""
    of_groups = select(func.count()).select_from(
        schema.pending_alerts.join(schema.groups, _groups.id == _pending.group_id)
    )
    waiting = of_groups.where(_pending.channel == _channels.name, _STANDS).correlate(schema.channels)
    columns: list[ColumnElement[Any]] = [*(_channels[name] for name in _NOTED), waiting.scalar_subquery()]
    return [ChannelNote(*row) for row in unit.db.execute(select(*columns).order_by(_channels.name))]


def note_channel(unit: Unit, note: ChannelNote, told: Iterable[Group] = ()) -> None:
    """Store the state of a channel, and that it was told of these groups."""
    row = {name: getattr(note, name) for name in _NOTED}
    upsert(unit.db, schema.channels, [row], replace=[name for name in _NOTED if name != "name"])
    of_these = _pending.group_id.in_([group.id for group in told])
    unit.db.execute(delete(schema.pending_alerts).where(_pending.channel == note.name, of_these))


def keep_channels(unit: Unit, names: Sequence[str]) -> None:
    """Delete all channels but these."""
    unit.db.execute(delete(schema.channels).where(_channels.name.not_in(names)))
    unit.db.execute(delete(schema.pending_alerts).where(_pending.channel.not_in(names)))
    upsert(unit.db, schema.channels, [{"name": name, "sent": ""} for name in names])
