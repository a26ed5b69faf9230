"""How often each pin was used: counted in memory and written in batches, for a person to read."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

__all__ = ["Usage", "Uses"]

# How many uses are collected before they are written: a handshake must not wait for the disk.
_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Usage:
    """How often a host's pins have let a connection pass, and when last; a process that was killed forgets a few."""

    count: int
    last_at: float


class Uses:
    """The uses that are not written yet; the caller holds the store's lock."""

    def __init__(self) -> None:
        self._uses: dict[str, tuple[int, float]] = {}
        self._collected = 0

    def add(self, host: str, now: float) -> bool:
        """Count one use; True when it is time to write."""
        count, _ = self._uses.get(host, (0, 0.0))
        self._uses[host] = (count + 1, now)
        self._collected += 1
        return self._collected >= _BATCH

    def __len__(self) -> int:
        return self._collected

    def write(self, connection: sqlite3.Connection) -> None:
        """Write what was collected, for the hosts that are still there."""
        connection.executemany(
            "INSERT INTO uses SELECT host, ?, ? FROM hosts WHERE host = ? ON CONFLICT (host) DO UPDATE SET"
            " count = count + excluded.count, last_at = max(last_at, excluded.last_at)",
            [(count, last_at, host) for host, (count, last_at) in self._uses.items()],
        )

    def clear(self) -> None:
        """Begin anew: what was collected is written, or cannot be."""
        self._uses.clear()
        self._collected = 0


def read(connection: sqlite3.Connection) -> dict[str, Usage]:
    """The uses that were written, by host."""
    return {host: Usage(count, last_at) for host, count, last_at in connection.execute("SELECT * FROM uses")}
