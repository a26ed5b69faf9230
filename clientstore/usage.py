"""How often each pin was used: counted in memory and written in batches, for a person to read."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass

__all__ = ["BATCH", "MOST", "Usage", "Uses"]

# How many uses are collected before they are written: a handshake must not wait for the disk.
BATCH = 1_000
# How many are kept in memory while they cannot be written; then they are forgotten.
MOST = 10 * BATCH


@dataclass(frozen=True, slots=True)
class Usage:
    """How often a host's pins have let a connection pass, and when last; a process that was killed forgets a few."""

    count: int
    last_at: float


class Uses(list[tuple[str, float]]):
    """The uses that are not written yet, each a host and a time. Any thread may append, with no lock."""

    def write(self, connection: sqlite3.Connection) -> int:
        """Write what was collected, for the hosts that are still there; how much of it, for `forget`."""
        written = self[:]
        if written:
            last_at = dict(written)
            connection.executemany(
                "INSERT INTO uses SELECT host, ?, ? FROM hosts WHERE host = ? ON CONFLICT (host) DO UPDATE SET"
                " count = count + excluded.count, last_at = max(last_at, excluded.last_at)",
                [(count, last_at[host], host) for host, count in Counter(host for host, _ in written).items()],
            )
        return len(written)

    def forget(self, written: int) -> None:
        """Let go of what was written."""
        del self[:written]


def read(connection: sqlite3.Connection) -> dict[str, Usage]:
    """The uses that were written, by host."""
    return {host: Usage(count, last_at) for host, count, last_at in connection.execute("SELECT * FROM uses")}
