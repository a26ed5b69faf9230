"""Signed lists in the store: which ones to fetch and when, and what a list changes, in one transaction.

The rule: a list changes exactly the hosts that have noted its root and were refused, each version of the list once. So
a list that is older than a header locks out no host that its header serves well. It replaces their pins and never
extends the time of their last header. A list that a program follows changes all hosts that have noted its root. It
counts as preloaded by that program (:mod:`.static`): it replaces what was noted, but not what the user has pinned by
hand or forgotten. It never changes static pins.
"""

from __future__ import annotations

import json
import logging
import random
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dynpin.counts import counted
from dynpin.hosts import KnownPinnedHost
from dynpin.noting import DEFAULT_MAX_MAX_AGE
from dynpin.pin_list import PIN_LIST, PinList
from dynpin.recovery import NotedRecovery, Recovery
from dynpin.report import FIRST_SECOND, LAST_SECOND

from .static import preload_within
from .table import COLUMNS, Select, entry_of, put, selecting

if TYPE_CHECKING:
    from ..recovery import Verified

__all__ = [
    "Look",
    "ask",
    "claim",
    "drop_outdated",
    "list_expires_at",
    "looks",
    "next_look_at",
    "record",
    "register",
    "trusted_files",
]

logger = logging.getLogger("dynpin.clientstore")

_HOUR, _DAY = 3_600.0, 86_400.0
# The shortest time between two looks at a list. After a look without success it is repeated at growing intervals.
_SOONEST = 30.0
# How long a look may take, in seconds: the first one, and any later one. The time doubles after each failure.
_FIRST_LOOK, _LONGEST_LOOK = 5.0, 30.0
# How much longer until another process may take the list over.
_TAKEN_OVER = 5.0
# A time further away than any wait was set by a wrong clock.
_FAR = 2 * _DAY
# A file that TUF's client has verified before it was stored.
_EXPIRING = ("timestamp.json", "snapshot.json", "targets.json")
# Whether a row has what each field of a Look needs. The file may be damaged, and one row must stop no other. A URI that
# is not ASCII, or has a NUL behind which SQLite does not look, may be no text at all, and then no key finds the row.
_IS_SOUND = (
    "(typeof(root) = 'blob' AND typeof(uri) = 'text' AND uri NOT GLOB '*[^!-~]*'"
    " AND length(uri) = length(CAST(uri AS BLOB)) AND typeof(is_followed) = 'integer' AND typeof(attempts) = 'integer'"
    f" AND (looked_at IS NULL OR looked_at BETWEEN {FIRST_SECOND} AND {LAST_SECOND})"
    f" AND (next_look_at IS NULL OR next_look_at BETWEEN {FIRST_SECOND} AND {LAST_SECOND})"
    " AND typeof(outcome) IN ('text', 'null'))"
)
_SELECT = (
    "SELECT root, uri, is_followed, attempts, looked_at, next_look_at, outcome FROM looks"  # noqa: S608 - a constant
    f" WHERE {_IS_SOUND}"
)


@dataclass(frozen=True, slots=True)
class Look:
    """One list. Times are seconds since the epoch, UTC.

    Attributes:
        recovery: its root, and where it is.
        is_followed: whether a program follows it; then it is fetched daily.
        attempts: how many looks have changed nothing since one changed pins.
        looked_at: when it was last fetched, or None.
        next_look_at: when it is fetched next; None until the next refusal.
        outcome: the result of the last look, in words, or None.
    """

    recovery: Recovery
    is_followed: bool
    attempts: int
    looked_at: float | None
    next_look_at: float | None
    outcome: str | None

    @property
    def seconds(self) -> float:
        """How long the next look may take. Short at first, so that a list that hangs does not delay others for long."""
        return min(_FIRST_LOOK * 2.0 ** min(self.attempts, 10), _LONGEST_LOOK)


def looks(select: Select) -> list[Look]:
    """All lists that were ever asked for."""
    return [look for row in select(f"{_SELECT} ORDER BY uri, root", ()) if (look := _look(row)) is not None]


def _look(row: tuple[Any, ...]) -> Look | None:
    """The list of a row; None if the row is damaged."""
    root, uri, is_followed, attempts, *rest = row
    try:
        return Look(Recovery(root, uri), bool(is_followed), min(int(attempts), 1_000), *rest)
    except (TypeError, ValueError):
        return None


def ask(connection: sqlite3.Connection, entries: Iterable[KnownPinnedHost], now: float) -> None:
    """Record that connections to these hosts were refused, and that the lists of their roots may have new pins."""
    drop_outdated(connection, now)
    for entry in entries:
        if entry.recovery is None or entry.recovery.standing is None:
            continue
        root, uri = entry.recovery.standing.root, entry.recovery.standing.uri
        connection.execute(
            "INSERT INTO looks VALUES (?, ?, 0, 0, NULL, ?, NULL, NULL) ON CONFLICT (root, uri) DO UPDATE SET"
            " attempts = CASE WHEN EXISTS (SELECT 1 FROM asked WHERE (root, uri) = (looks.root, looks.uri))"
            " THEN attempts ELSE 0 END, next_look_at ="
            " min(ifnull(next_look_at, 1e18), CASE WHEN looked_at BETWEEN ? AND ? THEN looked_at + ? ELSE ? END)",
            (root, uri, now, now - _SOONEST, now, _SOONEST, now),
        )
        connection.execute("INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?)", (entry.host, root, uri, now))


def register(connection: sqlite3.Connection, recovery: Recovery, name: str, data: bytes, now: float) -> None:
    """Fetch a list daily from now on, with a FIRST_ROOT or a SIGNING_KEY that is trusted."""
    connection.execute("INSERT OR IGNORE INTO trusted VALUES (?, ?, ?)", (recovery.root, name, data))
    connection.execute(
        "INSERT INTO looks VALUES (?, ?, 1, 0, NULL, ?, NULL, NULL)"
        " ON CONFLICT (root, uri) DO UPDATE SET is_followed = 1, next_look_at = ifnull(next_look_at, ?)",
        (recovery.root, recovery.uri, now, now),
    )


def next_look_at(select: Select, now: float) -> float | None:
    """When the next list is due, or None. A list in progress is due at the end of its lease."""
    ((at,),) = select(
        "SELECT min(max(next_look_at, CASE WHEN leased_until < ? THEN leased_until ELSE 0 END)) FROM looks"  # noqa: S608
        f" WHERE {_IS_SOUND}",
        (now + _FAR,),
    )
    return None if at is None else float(at)


def claim(connection: sqlite3.Connection, now: float) -> Look | None:
    """Take the next list that is due. No other process takes it while the lease lasts."""
    damaged = connection.execute(f"DELETE FROM looks WHERE NOT {_IS_SOUND}").rowcount  # noqa: S608 - a constant
    due = (
        # Lists without success come last, so that a slow server does not delay other lists for long.
        f"{_SELECT} AND (next_look_at <= ? OR next_look_at > ?)"
        " AND (leased_until IS NULL OR leased_until <= ? OR leased_until > ?) ORDER BY attempts, next_look_at LIMIT 1"
    )
    look: Look | None = None
    while look is None and (row := connection.execute(due, (now, now + _FAR, now, now + _FAR)).fetchone()):
        look = _look(row)
        if look is None:
            changed = connection.execute("DELETE FROM looks WHERE (root, uri) = (?, ?)", row[:2]).rowcount
            damaged += changed
        else:
            changed = connection.execute(
                "UPDATE looks SET leased_until = ? WHERE (root, uri) = (?, ?)",
                (now + look.seconds + _TAKEN_OVER, *row[:2]),
            ).rowcount
        if not changed:  # its key does not lead to it: without this, the list would be fetched without end
            raise sqlite3.DatabaseError("a signed list is not in its place")
    if damaged:
        logger.error(
            "dropped %s: damaged in the store's file. The next refusal asks for it again; a list that you follow needs "
            "`dynpin hosts follow` again",
            counted(damaged, "signed list"),
        )
    return look


def trusted_files(select: Select, root: bytes) -> dict[str, bytes]:
    """The trusted files of a root: those of TUF's client, or a signing key with a date."""
    return dict(select("SELECT name, data FROM trusted WHERE root = ?", (root,)))


def list_expires_at(select: Select, root: bytes) -> float | None:
    """When the trusted list of a root expires, in seconds since the epoch, UTC; None if there is no list.

    After that, no client that fetches the list accepts it until it is signed again.
    """
    files = trusted_files(select, root)
    try:
        ends = [str(json.loads(files[name])["signed"]["expires"]) for name in _EXPIRING]
        return min(datetime.fromisoformat(end).timestamp() for end in ends)
    except (KeyError, TypeError, ValueError):  # there is no list, or a part of it is missing
        return None


def record(
    connection: sqlite3.Connection,
    look: Look,
    seen: Verified | None,
    problem: str | None,
    *,
    before: Mapping[str, bytes],
    now: float,
) -> tuple[str, ...]:
    """Store the result of a look: the files that TUF trusts, the pins, and when to look again.

    Args:
        connection: inside a transaction.
        look: the list.
        seen: what was verified, or None.
        problem: why the list cannot be accepted, or None.
        before: the files that TUF trusted before the look.
        now: seconds since the epoch, UTC.

    Returns:
        the hosts whose pins have changed.
    """
    of_look = (look.recovery.root, look.recovery.uri)
    drop_outdated(connection, now)
    if not connection.execute("SELECT 1 FROM looks WHERE (root, uri) = (?, ?)", of_look).fetchone():
        return ()  # the host that asked was forgotten, and the trusted files with it
    changed: tuple[str, ...] = ()
    if seen is not None and not _trust(connection, look, before, seen):
        return ()  # another process was first, and has stored its result
    if seen is not None and seen.pins is not None:
        changed = tuple(_apply(connection, look, seen.pins, seen.list_version, now))
        # Depends on who follows the list, not on who looks now: this may be a look by hand.
        if look.is_followed:
            changed += _preload(connection, look.recovery, seen.pins, seen.list_version, now)
    if problem is None and seen is not None:
        names = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        which = f"version {seen.list_version} of the list" if seen.dated is None else f"the list of {seen.dated}"
        problem = f"{which} gave {names} other pins" if changed else f"{which} is no news"
    # A host may have asked during the look, or may wait for a later list.
    connection.executemany("DELETE FROM asked WHERE host = ?", [(host,) for host in changed])
    is_over = not connection.execute("SELECT 1 FROM asked WHERE (root, uri) = (?, ?)", of_look).fetchone()
    is_sound = seen is not None and seen.pins is not None
    attempts = 0 if changed or (is_over and is_sound) else look.attempts + 1
    again = now + min(_SOONEST * 2.0 ** min(0 if changed else look.attempts, 10), _HOUR)
    if is_over:
        again = now + (_DAY * random.uniform(0.9, 1.1) if is_sound else _HOUR)  # noqa: S311 - against a crowd at one time
    connection.execute(
        "UPDATE looks SET attempts = ?, looked_at = ?, next_look_at = ?, leased_until = NULL, outcome = ?"
        " WHERE root = ? AND uri = ?",
        (attempts, now, None if is_over and not look.is_followed else again, problem, *of_look),
    )
    return changed


def _trust(connection: sqlite3.Connection, look: Look, before: Mapping[str, bytes], seen: Verified) -> bool:
    """Store TUF's files; False if another process has stored other files since.

    This compares no versions: a thief may have signed the highest version of all. Only TUF knows when a version no
    longer counts, and what it verified follows from what it trusted before.
    """
    root = look.recovery.root
    if trusted_files(selecting(connection), root) != before:
        return False
    # The list can be fetched again after the next refusal. Otherwise a host could fill the disk with it.
    kept = [(root, name, data) for name, data in seen.files.items() if look.is_followed or name != PIN_LIST]
    connection.execute("DELETE FROM trusted WHERE root = ?", (root,))
    connection.executemany("INSERT INTO trusted VALUES (?, ?, ?)", kept)
    return True


def drop_outdated(connection: sqlite3.Connection, now: float) -> None:
    """Delete the requests that no longer count, and the lists that no living host names and nobody follows.

    A request counts for a day, while the root of its host lives. The addresses of the lists go too (RFC 7469 §5).
    """
    lives = "ifnull(recovery_until, ifnull(expires_at, 1e18)) >= ?"
    connection.execute(
        "DELETE FROM asked WHERE asked_at <= ? OR asked_at > ? OR NOT EXISTS"  # noqa: S608 - of this function
        f" (SELECT 1 FROM hosts WHERE host = asked.host AND recovery_root = asked.root AND {lives})",
        (now - _DAY, now, now),
    )
    connection.execute(
        "DELETE FROM looks WHERE NOT is_followed AND NOT EXISTS"  # noqa: S608 - of this function
        f" (SELECT 1 FROM hosts WHERE recovery_root = looks.root AND {lives})",
        (now,),
    )
    connection.execute("DELETE FROM trusted WHERE root NOT IN (SELECT root FROM looks)")


def _apply(connection: sqlite3.Connection, look: Look, pins: PinList, version: int, now: float) -> Iterator[str]:
    """Replace the pins of the hosts that have noted this root, and have asked, by those of the list."""
    root, uri = look.recovery.root, look.recovery.uri
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM hosts WHERE recovery_root = ?"  # noqa: S608 - constants
        " AND (? OR host IN (SELECT host FROM asked WHERE (root, uri) = (?, ?)))",
        (root, look.is_followed, root, uri),
    ).fetchall()
    for entry in map(entry_of, rows):
        listed, noted = pins.hosts.get(entry.host), entry.recovery
        if listed is None or noted is None or entry.source == "static" or entry.is_released(now):
            continue
        if noted.list_version >= version or (entry.root_ends_at is not None and entry.root_ends_at < now):
            continue
        # The times stay: a list never extends those of the last header.
        healed = replace(
            entry,
            pins=listed.pins,
            include_subdomains=listed.include_subdomains and bool(listed.pins),
            recovery=replace(noted, list_version=version),
        )
        put(connection, [healed])
        if (healed.pins, healed.include_subdomains) != (entry.pins, entry.include_subdomains):
            yield entry.host


def _preload(
    connection: sqlite3.Connection, recovery: Recovery, pins: PinList, version: int, now: float
) -> tuple[str, ...]:
    """Pin exactly the hosts of the list. Returns those whose pins have changed or were removed."""
    noted = NotedRecovery(recovery, list_version=version)
    until = now + min(pins.max_age, DEFAULT_MAX_MAX_AGE)
    entries = [
        KnownPinnedHost(
            *(host, listed.pins, listed.include_subdomains, None, now, min(until, listed.ends_at or until), "static"),
            origin=recovery.uri,
            recovery=noted,
        )
        for host, listed in pins.hosts.items()
        if listed.pins
    ]
    select = selecting(connection)
    query = "SELECT host, pins, include_subdomains FROM hosts WHERE source = 'static' AND origin = ?"
    before = set(select(query, (recovery.uri,)))
    preload_within(connection, entries, recovery.uri)
    return tuple(sorted({host for host, *_ in before ^ set(select(query, (recovery.uri,)))}))
