"""Sessions, tokens of the API, and what people and programs did, in the SQLite storage."""

from __future__ import annotations

import json
import sqlite3

from ..access import APIToken, AuditEntry

__all__ = [
    "add_api_token",
    "add_session",
    "api_token",
    "api_tokens",
    "audit",
    "record",
    "revoke_api_token",
    "session",
]

# Failed sign-ins are a stranger's to write, so that they have a bound of their own and push nothing else out.
_MAX_FAILURES = 10_000
_FAILED = "sign-in-failed"


def add_session(db: sqlite3.Connection, identity: str, name: str, expires_at: float, now: float) -> None:
    """Keep a session, and forget those that ended."""
    db.execute("DELETE FROM sessions WHERE expires_at < ?", (now,))
    db.execute("INSERT INTO sessions (id, name, expires_at) VALUES (?, ?, ?)", (identity, name, expires_at))


def session(db: sqlite3.Connection, identity: str, now: float) -> str | None:
    """The name of a session that has not ended."""
    row = db.execute("SELECT name FROM sessions WHERE id = ? AND expires_at >= ?", (identity, now)).fetchone()
    return None if row is None else str(row["name"])


def add_api_token(db: sqlite3.Connection, token: APIToken) -> bool:
    """Keep a token; False where one of this name may still be used."""
    row = db.execute("SELECT * FROM api_tokens WHERE name = ?", (token.name,)).fetchone()
    if row is not None and not _api_token(row).ended(token.created_at):
        return False
    db.execute(
        "INSERT OR REPLACE INTO api_tokens (name, digest, scopes, created_at, expires_at, used_at, revoked_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (token.name, token.digest, json.dumps(token.scopes), token.created_at, token.expires_at, token.used_at,
         token.revoked_at),
    )  # fmt: skip
    return True


def api_token(db: sqlite3.Connection, digest: str) -> APIToken | None:
    """The token with this hash, ended or not."""
    row = db.execute("SELECT * FROM api_tokens WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else _api_token(row)


def api_tokens(db: sqlite3.Connection) -> list[APIToken]:
    """Every token, oldest first."""
    return [_api_token(row) for row in db.execute("SELECT * FROM api_tokens ORDER BY created_at, name")]


def revoke_api_token(db: sqlite3.Connection, name: str, now: float) -> bool:
    """Let a token be used no more; False where there is none that could be."""
    changed = db.execute("UPDATE api_tokens SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL", (now, name))
    return changed.rowcount > 0


def _api_token(row: sqlite3.Row) -> APIToken:
    return APIToken(
        row["name"], row["digest"], tuple(json.loads(row["scopes"])), row["created_at"], row["expires_at"],
        row["used_at"], row["revoked_at"],
    )  # fmt: skip


def record(db: sqlite3.Connection, entry: AuditEntry) -> None:
    """Keep what somebody did."""
    cursor = db.execute("INSERT INTO audit (at, who, source, action, subject) VALUES (?, ?, ?, ?, ?)", entry)
    if entry.action == _FAILED:
        oldest = db.execute(
            "SELECT id FROM audit WHERE action = ? ORDER BY id DESC LIMIT 1 OFFSET ?", (_FAILED, _MAX_FAILURES)
        ).fetchone()
        if oldest is not None and cursor.lastrowid:
            db.execute("DELETE FROM audit WHERE action = ? AND id <= ?", (_FAILED, oldest["id"]))


def audit(db: sqlite3.Connection, subject: str | None, limit: int) -> list[AuditEntry]:
    """What was done, the last first; to one subject, or to all."""
    condition, parameters = ("subject = ?", [subject]) if subject is not None else ("1", list[str]())
    rows = db.execute(
        f"SELECT at, who, source, action, subject FROM audit WHERE {condition} ORDER BY id DESC LIMIT ?",  # noqa: S608
        [*parameters, limit],
    )
    return [AuditEntry(*row) for row in rows]
