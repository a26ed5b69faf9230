"""What people and programs decide: the states of groups and sites, the tokens of report-uris, and who did what."""

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
    "site_state",
    "tokens",
]

# Failed sign-ins are a stranger's to write, so that they have a bound of their own and push nothing else out.
_MAX_FAILURES = 10_000
_FAILED = "sign-in-failed"
_audit = schema.audit.c
_sites = schema.site_states.c
_tokens = schema.tokens.c


def set_state(unit: Unit, key: str, state: State, by: AuditEntry | None = None) -> bool:
    """Open, mute or resolve a group, and keep who did it; False where there is none."""
    with moving(unit.db, schema.groups.c.key == key) as found:
        unit.db.execute(update(schema.groups).where(schema.groups.c.key == key).values(state=state, state_at=unit.now))
    if found and by is not None:
        record(unit, by)
    return bool(found)


def record(unit: Unit, entry: AuditEntry) -> None:
    """Keep what somebody did."""
    unit.db.execute(schema.audit.insert().values(entry._asdict()))
    if entry.action == _FAILED:
        failures = select(_audit.id).where(_audit.action == _FAILED).order_by(_audit.id.desc())
        oldest = failures.limit(1).offset(_MAX_FAILURES).scalar_subquery()
        unit.db.execute(delete(schema.audit).where(_audit.action == _FAILED, _audit.id <= oldest))


def audit(unit: Unit, subject: str | None = None, limit: int = 100) -> list[AuditEntry]:
    """What was done, the last first; to one subject, or to all."""
    asked = select(_audit.at, _audit.who, _audit.source, _audit.action, _audit.subject)
    if subject is not None:
        asked = asked.where(_audit.subject == subject)
    return [AuditEntry(*row) for row in unit.db.execute(asked.order_by(_audit.id.desc()).limit(limit))]


def site_state(unit: Unit, host: str) -> SiteState | None:
    """What the nodes of a site share; None where they share nothing yet."""
    columns = (_sites.host, _sites.version, _sites.state, _sites.changed_at, _sites.changed_by)
    row = unit.db.execute(select(*columns).where(_sites.host == host)).one_or_none()
    return None if row is None else SiteState(*row)


def set_site_state(unit: Unit, host: str, state: str, *, expected: int, by: str) -> SiteState | None:
    """Change what the nodes of a site share; None where another version than the expected one is there."""
    after = SiteState(host, expected + 1, state, unit.now, by)
    values = {name: getattr(after, name) for name in SiteState.__slots__}
    if expected == 0:
        changed = upsert(unit.db, schema.site_states, [values])
    else:
        seen = (_sites.host == host) & (_sites.version == expected)
        changed = unit.db.execute(update(schema.site_states).where(seen).values(values)).rowcount
    return after if changed > 0 else None


def tokens(unit: Unit) -> list[Token]:
    """Every token, the revoked ones too, oldest first."""
    rows = unit.db.execute(select(schema.tokens).order_by(_tokens.created_at, _tokens.token))
    return [Token(row.token, row.name, texts(row.hosts), row.created_at, row.revoked_at) for row in rows]


def add_token(unit: Unit, token: Token) -> None:
    """Keep a token; one that exists is replaced."""
    values = {
        "token": token.token,
        "name": token.name,
        "hosts": json.dumps(token.hosts),
        "created_at": token.created_at,
        "revoked_at": token.revoked_at,
    }
    upsert(unit.db, schema.tokens, [values], replace=("name", "hosts", "created_at", "revoked_at"))


def revoke_token(unit: Unit, token: str) -> bool:
    """Let a token be used no more; False where there is none that could be."""
    usable = (_tokens.token == token) & _tokens.revoked_at.is_(None)
    return unit.db.execute(update(schema.tokens).where(usable).values(revoked_at=unit.now)).rowcount > 0


def name_tokens(unit: Unit, tokens: Iterable[str], at: float) -> None:
    """Remember that a collector started with these tokens in its settings."""
    upsert(
        unit.db, schema.named_tokens, [{"token": token, "named_at": at} for token in set(tokens)], replace=["named_at"]
    )


def named_tokens(unit: Unit) -> dict[str, float]:
    """Tokens of the settings of collectors, and when one started with them last."""
    rows = unit.db.execute(select(schema.named_tokens).order_by(schema.named_tokens.c.token))
    return {row.token: row.named_at for row in rows}
