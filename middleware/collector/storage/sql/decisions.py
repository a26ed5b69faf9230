"""Decisions of people and programs: states of groups and sites, tokens of report-uris, and the record of actions."""

from __future__ import annotations

import json
from collections.abc import Iterable

from sqlalchemy import delete, select, update

from ..access import AuditEntry
from ..values import SiteState, State, Token
from . import schema
from .engine import Unit, upsert
from .rows import texts
from .totals import moving

__all__ = [
    "add_token",
    "audit",
    "name_tokens",
    "named_tokens",
    "record",
    "revoke_token",
    "set_site_state",
    "set_state",
    "shared_time",
    "site_state",
    "tokens",
]

# Strangers can write failed sign-ins. They have their own limit, so that they never push out other entries.
_MAX_FAILURES = 10_000
_FAILED = "sign-in-failed"
_audit = schema.audit.c
_sites = schema.site_states.c
_tokens = schema.tokens.c


def set_state(unit: Unit, key: str, state: State, by: AuditEntry | None = None) -> bool:
    """Open, mute or resolve a group, and store who did it. False if there is no such group."""
    with moving(unit.db, schema.groups.c.key == key) as found:
        unit.db.execute(update(schema.groups).where(schema.groups.c.key == key).values(state=state, state_at=unit.now))
    if found and by is not None:
        record(unit, by)
    return bool(found)


def record(unit: Unit, entry: AuditEntry) -> None:
    """Store what somebody did."""
    unit.db.execute(schema.audit.insert().values(entry._asdict()))
    if entry.action == _FAILED:
        failures = select(_audit.id).where(_audit.action == _FAILED).order_by(_audit.id.desc())
        oldest = failures.limit(1).offset(_MAX_FAILURES).scalar_subquery()
        unit.db.execute(delete(schema.audit).where(_audit.action == _FAILED, _audit.id <= oldest))


def audit(unit: Unit, subject: str | None = None, limit: int = 100) -> list[AuditEntry]:
    """What was done, newest first; to one subject, or to all."""
    asked = select(_audit.at, _audit.who, _audit.source, _audit.action, _audit.subject)
    if subject is not None:
        asked = asked.where(_audit.subject == subject)
    return [AuditEntry(*row) for row in unit.db.execute(asked.order_by(_audit.id.desc()).limit(limit))]


def shared_time(unit: Unit) -> float:
    """The time of the clock that all processes of the collector share."""
    return unit.engine.shared_clock(unit.db, unit.now)


def site_state(unit: Unit, host: str) -> SiteState | None:
    """The state that the nodes of a site share; None if they share nothing yet."""
    columns = (_sites.host, _sites.version, _sites.state, _sites.changed_at, _sites.changed_by)
    row = unit.db.execute(select(*columns).where(_sites.host == host)).one_or_none()
    return None if row is None else SiteState(*row)


def set_site_state(unit: Unit, host: str, state: str, *, expected: int, by: str) -> SiteState | None:
    """Change the state that the nodes of a site share; None if the stored version is not the expected one."""
    after = SiteState(host, expected + 1, state, unit.now, by)
    values = {name: getattr(after, name) for name in SiteState.__slots__}
    if expected == 0:
        changed = upsert(unit.db, schema.site_states, [values])
    else:
        seen = (_sites.host == host) & (_sites.version == expected)
        changed = unit.db.execute(update(schema.site_states).where(seen).values(values)).rowcount
    return after if changed > 0 else None


def tokens(unit: Unit) -> list[Token]:
    """Every token, oldest first, even if it was revoked."""
    rows = unit.db.execute(select(schema.tokens).order_by(_tokens.created_at, _tokens.token))
    return [Token(row.token, row.name, texts(row.hosts), row.created_at, row.revoked_at) for row in rows]


def add_token(unit: Unit, token: Token) -> None:
    """Store a token, and replace one that exists."""
    values = {
        "token": token.token,
        "name": token.name,
        "hosts": json.dumps(token.hosts),
        "created_at": token.created_at,
        "revoked_at": token.revoked_at,
    }
    upsert(unit.db, schema.tokens, [values], replace=("name", "hosts", "created_at", "revoked_at"))


def revoke_token(unit: Unit, token: str) -> bool:
    """Revoke a token. False if there is no such token, or it was revoked before."""
    usable = (_tokens.token == token) & _tokens.revoked_at.is_(None)
    return unit.db.execute(update(schema.tokens).where(usable).values(revoked_at=unit.now)).rowcount > 0


def name_tokens(unit: Unit, tokens: Iterable[str], at: float) -> None:
    """Store that a collector started with these tokens in its settings."""
    upsert(
        unit.db, schema.named_tokens, [{"token": token, "named_at": at} for token in set(tokens)], replace=["named_at"]
    )


def named_tokens(unit: Unit) -> dict[str, float]:
    """The tokens in the settings of collectors, and when a collector last started with them."""
    rows = unit.db.execute(select(schema.named_tokens).order_by(schema.named_tokens.c.token))
    return {row.token: row.named_at for row in rows}
