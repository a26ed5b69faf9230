"""Sessions of people, and the tokens of programs."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Row, delete, select, update

from ..access import APIToken
from . import schema
from .engine import Unit, upsert

__all__ = [
    "add_api_token",
    "add_session",
    "api_token",
    "api_tokens",
    "end_session",
    "revoke_api_token",
    "secret",
    "session",
    "use_api_token",
]

_tokens = schema.api_tokens.c
_sessions = schema.sessions.c


def add_session(unit: Unit, identity: str, name: str, expires_at: float) -> None:
    """Store a session, and delete the sessions that have ended."""
    unit.db.execute(delete(schema.sessions).where(_sessions.expires_at < unit.now))
    unit.db.execute(schema.sessions.insert().values(id=identity, name=name, expires_at=expires_at))


def session(unit: Unit, identity: str) -> str | None:
    """The name of a session; None if there is none, or it has ended."""
    alive = (_sessions.id == identity) & (_sessions.expires_at >= unit.now)
    return unit.db.scalar(select(_sessions.name).where(alive))


def end_session(unit: Unit, identity: str) -> None:
    """Delete a session."""
    unit.db.execute(delete(schema.sessions).where(_sessions.id == identity))


def add_api_token(unit: Unit, token: APIToken) -> bool:
    """Store a token of the API. False if a token of this name is still valid."""
    values = {
        "name": token.name,
        "digest": token.digest,
        "scopes": json.dumps(token.scopes),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "used_at": token.used_at,
        "revoked_at": token.revoked_at,
    }
    # Insert first, then read: if two processes add one name at once, the second sees the row of the first.
    if upsert(unit.db, schema.api_tokens, [values]):
        return True
    row = unit.db.execute(select(schema.api_tokens).where(_tokens.name == token.name).with_for_update()).one()
    if not _api_token(row).ended(token.created_at):
        return False
    unit.db.execute(update(schema.api_tokens).where(_tokens.name == token.name).values(values))
    return True


def api_token(unit: Unit, digest: str) -> APIToken | None:
    """The token of the API with this hash, even if it has ended."""
    row = unit.db.execute(select(schema.api_tokens).where(_tokens.digest == digest)).one_or_none()
    return None if row is None else _api_token(row)


def api_tokens(unit: Unit) -> list[APIToken]:
    """Every token of the API, oldest first, even if it has ended."""
    rows = unit.db.execute(select(schema.api_tokens).order_by(_tokens.created_at, _tokens.name))
    return list(map(_api_token, rows))


def use_api_token(unit: Unit, digest: str, at: float) -> None:
    """Store when a token of the API was last used."""
    unit.db.execute(update(schema.api_tokens).where(_tokens.digest == digest).values(used_at=at))


def revoke_api_token(unit: Unit, name: str) -> bool:
    """Revoke a token of the API. False if there is no such token, or it was revoked before."""
    usable = (_tokens.name == name) & _tokens.revoked_at.is_(None)
    return unit.db.execute(update(schema.api_tokens).where(usable).values(revoked_at=unit.now)).rowcount > 0


def _api_token(row: Row[Any]) -> APIToken:
    return APIToken(
        row.name,
        row.digest,
        tuple(json.loads(row.scopes)),
        row.created_at,
        row.expires_at,
        row.used_at,
        row.revoked_at,
    )


def secret(unit: Unit) -> str:
    """The random text that this storage got with its tables."""
    return str(unit.db.scalars(select(schema.settings.c.value).where(schema.settings.c.name == "secret")).one())
