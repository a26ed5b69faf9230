"""What the worker asks of the SQLite storage: leases, groups to judge and their verdicts, and what is to be told."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from ..interface import LEASE_S, Group, Triaged

__all__ = ["authorities", "claim", "set_verdicts"]


def claim(db: sqlite3.Connection, work: str, holder: str, now: float) -> bool:
    """Take or prolong a lease, in one statement; False where another has it."""
    # Beyond the longest that a lease lasts it is of a clock that stood ahead, and holds nobody up.
    found = db.execute(
        "INSERT INTO leases (work, holder, expires_at) VALUES (?, ?, ?) ON CONFLICT (work) DO UPDATE "
        "SET holder = excluded.holder, expires_at = excluded.expires_at "
        "WHERE leases.holder = excluded.holder OR leases.expires_at <= ? OR leases.expires_at > ?",
        (work, holder, now + LEASE_S, now, now + LEASE_S),
    )
    return found.rowcount > 0


def set_verdicts(db: sqlite3.Connection, judged: Iterable[tuple[Group, Triaged]]) -> None:
    """Store what triage found."""
    for group, triaged in judged:
        # A group that was pruned meanwhile has none.
        if not db.execute(
            "UPDATE groups SET verdict = ?, severity = ?, issuer = ?, judged_with = ? WHERE id = ?",
            (triaged.verdict, triaged.severity, triaged.issuer, triaged.judged_with, group.id),
        ).rowcount:
            continue
        db.execute("INSERT OR REPLACE INTO diagnoses VALUES (?, ?)", (group.id, triaged.diagnosis))
        db.executemany(
            "INSERT OR IGNORE INTO pins VALUES (?, ?, ?)", [(pin, group.id, place) for pin, place, _ in triaged.pins]
        )
        db.executemany(
            "INSERT OR IGNORE INTO authorities VALUES (?, ?, ?)",
            [(pin, name, group.id) for pin, _, name in triaged.pins if name is not None],
        )


def authorities(db: sqlite3.Connection, pins: Sequence[str]) -> dict[str, str]:
    """The names of CAs whose keys have these pins, as earlier reports showed them."""
    rows = db.execute(
        f"SELECT pin, name FROM authorities WHERE pin IN ({','.join('?' * len(pins))})",  # noqa: S608
        tuple(pins),
    )
    return {row["pin"]: row["name"] for row in rows}
