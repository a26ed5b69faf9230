"""The last time that a store has seen: what a clock that jumps is held against (RFC 7469 §2.3.3)."""

from __future__ import annotations

import sqlite3

from dynpin.clientstore.explain import duration
from dynpin.report import rfc3339

__all__ = ["JUMP", "TICK", "LastSeen"]

# Less than this is no news; more than that forward is a jump, or a store that nobody has used for long.
TICK = 3_600.0
JUMP = 30 * 86_400.0


class LastSeen:
    """When the store was last used, as its file has it and as this process has seen it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        row = connection.execute("SELECT value FROM facts WHERE name = 'seen_at'").fetchone()
        self.kept_at: float | None = None if row is None else float(row[0])
        self.at: float | None = self.kept_at

    def jump(self, connection: sqlite3.Connection, now: float) -> str | None:
        """What a person must be told about the clock, or None. Nothing is forgotten: expired rows stay in the file."""
        if self.at is None:
            return None
        moved = now - self.at
        if moved < -86_400.0:
            return (
                f"the clock reads {rfc3339(now)}, {duration(-moved)} before the last time seen: pins live longer than "
                "they should until it is right again"
            )
        if moved <= JUMP:
            return None
        (expired,) = connection.execute(
            "SELECT count(*) FROM hosts WHERE expires_at >= ? AND expires_at < ?", (self.at, now)
        ).fetchone()
        if not expired:
            return None
        hosts = "1 host" if expired == 1 else f"{expired} hosts"
        return (
            f"the clock reads {rfc3339(now)}, {duration(moved)} after the last time seen, and the pins of {hosts} have "
            "expired meanwhile. If the clock is wrong, set it right and they hold again: dynpin hosts list --all "
            "shows them"
        )

    def keep(self, connection: sqlite3.Connection) -> None:
        """Write it into the file, inside a transaction, where it has moved."""
        if self.at is not None and (self.kept_at is None or abs(self.at - self.kept_at) >= TICK):
            connection.execute("INSERT OR REPLACE INTO facts VALUES ('seen_at', ?)", (self.at,))
            self.kept_at = self.at
