"""What the nodes of a site share, in the SQLite storage."""

from __future__ import annotations

import sqlite3

from ..interface import MAX_SITE_STATE, SiteState

__all__ = ["set_site_state", "site_state"]


def site_state(db: sqlite3.Connection, host: str) -> SiteState | None:
    """What the nodes of a site share."""
    row = db.execute("SELECT host, version, state, changed_at, changed_by FROM site_states WHERE host = ?", (host,))
    found = row.fetchone()
    return None if found is None else SiteState(*found)


def set_site_state(
    db: sqlite3.Connection, host: str, state: str, *, expected: int, by: str, now: float
) -> SiteState | None:
    """Change it where its version is the expected one; None where it is another."""
    if len(state.encode()) > MAX_SITE_STATE:
        raise ValueError(f"the state of a site has at most {MAX_SITE_STATE} bytes")
    before = site_state(db, host)
    if (0 if before is None else before.version) != expected:
        return None
    after = SiteState(host, expected + 1, state, now, by)
    db.execute(
        "INSERT OR REPLACE INTO site_states (host, version, state, changed_at, changed_by) VALUES (?, ?, ?, ?, ?)",
        (host, after.version, state, now, by),
    )
    return after
