"""The changes to a host's entry inside one transaction, while no other process can write."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from dynpin.errors import InvalidHeader
from dynpin.header import PublicKeyPins
from dynpin.hosts import KnownPinnedHost, applicable
from dynpin.noting import Noting, note
from dynpin.pins import Pin

from .bounds import Bounds
from .lists import drop_outdated
from .table import ALIVE, delete, entry_of, host_and_superdomains, put

__all__ = ["forget_entry", "note_header", "own_entry"]


def own_entry(entries: Iterable[KnownPinnedHost], name: str) -> KnownPinnedHost | None:
    """The host's own entry among these, alive or not."""
    return next((entry for entry in entries if entry.host == name), None)


def note_header(
    connection: sqlite3.Connection,
    name: str,
    header: PublicKeyPins | InvalidHeader | None,
    chain: Sequence[Pin],
    *,
    now: float,
    certificates: Sequence[bytes],
    max_max_age: int,
    bounds: Bounds,
) -> Noting:
    """Decide again under the write lock, since another process may have written; then write (RFC 7469 §2.5)."""
    sql, names = host_and_superdomains(name)
    entries = [entry_of(row) for row in connection.execute(sql, names).fetchall()]
    known, former = applicable(entries, name, now), own_entry(entries, name)
    noting = note(name, known, header, chain, now, certificates=certificates, max_max_age=max_max_age, former=former)
    entry = noting.known_host or noting.remains
    if entry is not None:
        refusal = bounds.refusal(connection, name, now) if former is None else None
        if refusal is not None:
            return Noting("ignored", str(refusal), "2.3.3")
        # This connection was not refused: an older request of the host for its list does not concern this header.
        drop_outdated(connection, now)
        connection.execute("DELETE FROM asked WHERE host = ?", (name,))
        put(connection, [entry])
    return noting


def forget_entry(connection: sqlite3.Connection, host: str, now: float) -> bool:
    """Remove a host's own entry and its recovery data; True if it was alive (RFC 7469 §2.7)."""
    rows = connection.execute(f"SELECT origin, {ALIVE} FROM hosts WHERE host = ?", (now, host)).fetchall()  # noqa: S608
    delete(connection, host)
    drop_outdated(connection, now)
    if rows and rows[0][0] is not None:
        connection.execute("INSERT OR IGNORE INTO overrides VALUES (?)", (host,))
    return bool(rows and rows[0][1])
