"""The last time at which the store was used: a clock that jumps is detected by it (RFC 7469 §2.3.3)."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Literal

from dynpin.counts import counted
from dynpin.durations import duration
from dynpin.errors import StoreError
from dynpin.report import FIRST_SECOND, LAST_SECOND, rfc3339

from .advice import check_command
from .database import Database
from .memory import MemoryDatabase

__all__ = ["ClockJump", "LastSeen", "describe_jump", "read_seen_at"]

logger = logging.getLogger("dynpin.clientstore")

ClockJump = Literal["warn", "refuse"]

# In seconds. A smaller difference is ignored. A larger one is a jump, or a store that nobody has used for long.
_TICK = 3_600.0
_JUMP = 30 * 86_400.0


class LastSeen:
    """When the store was last used, according to its file and to this process.

    Args:
        database: the store's database.
        on_jump: what to do at a jump: "warn" or "refuse".

    Raises:
        ValueError: for another word.
    """

    def __init__(self, database: Database | MemoryDatabase, on_jump: ClockJump) -> None:
        if on_jump not in ("warn", "refuse"):  # a misspelt word must not mean the opposite
            raise ValueError(f'on_clock_jump is "warn" or "refuse", not {on_jump!r}')
        self._database = database
        self._on_jump = on_jump
        self._at: float | None = read_seen_at(database)

    def look(self, now: float, *, wait: bool = False) -> None:
        """Check whether the clock has jumped. Without a jump this is one comparison.

        Args:
            now: seconds since the epoch, UTC.
            wait: whether to wait until the time is written, which happens once an hour.

        Raises:
            StoreError: if a jump has made pins expire and the store is set to refuse that.
        """
        seen_at = self._at
        if seen_at is not None and 0.0 <= now - seen_at < _TICK:
            return
        jump = None if seen_at is None else describe_jump(self._database, seen_at, now)
        if jump is not None and self._accepted(now):
            jump = None
        if jump is not None:
            if self._on_jump == "refuse" and seen_at is not None and now > seen_at:
                raise StoreError(f"{jump}. If it is right:  {_acceptance(self._database.path)}")
            logger.warning("%s", jump)
        self._at = now
        # A reader does not write a jump down: the next process must be able to refuse it.
        if jump is not None or self._database.read_only:
            return
        if not wait:
            self._database.write_later(self._keep)
            return
        try:
            self._database.write(self._keep)
        except StoreError as error:
            logger.info("the time could not be written down: %s", error)

    def _accepted(self, now: float) -> bool:
        """Whether a person has accepted this time in another process since."""
        kept = read_seen_at(self._database)
        return kept is not None and 0.0 <= now - kept < _JUMP

    def accept(self, now: float) -> None:
        """Accept `now` as the right time."""
        self._at = now
        self._database.write(self._keep)

    def _keep(self, connection: sqlite3.Connection) -> None:
        """Write the time, inside a transaction."""
        connection.execute(
            "INSERT OR REPLACE INTO facts VALUES ('seen_at', ?)", (None if self._at is None else float(self._at),)
        )


def read_seen_at(database: Database | MemoryDatabase) -> float | None:
    """When the store was last used, from its file: seconds since the epoch, UTC, to the hour."""
    rows = database.select("SELECT value FROM facts WHERE name = 'seen_at'")
    value = rows[0][0] if rows else None
    # Any other value is damage, and no reason to refuse.
    return value if isinstance(value, float) and FIRST_SECOND <= value <= LAST_SECOND else None


def describe_jump(database: Database | MemoryDatabase, seen_at: float, now: float) -> str | None:
    """What to tell a person about the clock, or None. Nothing is lost: expired rows stay in the file."""
    moved = now - seen_at
    if moved < -86_400.0:
        return (
            f"the clock reads {rfc3339(now)}, {duration(-moved)} before the last time seen: pins live longer than "
            "they should until the clock is right again"
        )
    if moved <= _JUMP:
        return None
    ((expired,),) = database.select(
        "SELECT count(*) FROM hosts WHERE expires_at >= ? AND expires_at < ?", (seen_at, now)
    )
    if not expired:
        return None
    hosts = counted(expired, "host")
    return (
        f"the clock reads {rfc3339(now)}, {duration(moved)} after the last time seen, and the pins of {hosts} have "
        "expired in between. If the clock is wrong, set it right and they hold again: dynpin hosts list --all "
        "shows them"
    )


def _acceptance(path: Path | None) -> str:
    return check_command(path, "--accept-clock")
