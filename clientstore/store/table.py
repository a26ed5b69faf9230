"""The table of Known Pinned Hosts: how an entry becomes a row and back, and the SQL on it."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from dynpin.hosts import KnownPinnedHost, superdomains
from dynpin.pins import Pin
from dynpin.recovery import NotedRecovery, Recovery

from .advice import DamagedRow

__all__ = [
    "ALIVE",
    "COLUMNS",
    "MARKS",
    "Select",
    "delete",
    "entry_of",
    "host_and_superdomains",
    "put",
    "row_of",
    "rows_by_host",
    "selecting",
]

COLUMNS = (
    "host, pins, certificates, include_subdomains, report_uri, noted_at, expires_at, source, on_expiry, origin,"
    " recovery_root, recovery_uri, recovery_until, list_version, offered_root, offered_uri, offered_at,"
    " reversed, digest"
)
MARKS = ",".join("?" * (COLUMNS.count(",") + 1))
# The opposite of KnownPinnedHost.is_released; the parameter is the time.
ALIVE = (
    "(expires_at IS NULL OR expires_at >= ? OR on_expiry = 'refuse') AND (length(pins) > 0 OR length(certificates) > 0)"
)
_PUT = f"INSERT OR REPLACE INTO hosts ({COLUMNS}) VALUES ({MARKS})"  # noqa: S608 - constants
_NO_RECOVERY = (None,) * 7

_NEXT = f"SELECT {COLUMNS} FROM hosts WHERE host > ? ORDER BY host LIMIT 1000"  # noqa: S608 - a constant

Row = tuple[Any, ...]
# Runs one SELECT and returns all rows: Database.select, or `selecting` inside a transaction.
Select = Callable[[str, tuple[object, ...]], list[Row]]


def row_of(entry: KnownPinnedHost) -> Row:
    """The row of an entry, in the order of :data:`COLUMNS`."""
    row = (
        entry.host,
        b"".join([pin.digest for pin in entry.pins]),
        b"".join(entry.certificates),
        int(entry.include_subdomains),
        _text(entry.report_uri),
        float(entry.noted_at),
        None if entry.expires_at is None else float(entry.expires_at),
        _text(entry.source),
        _text(entry.on_expiry),
        _text(entry.origin),
        *(_NO_RECOVERY if entry.recovery is None else _recovery_row(entry.recovery)),
        reversed_name(entry.host),
    )
    return (*row, _digest(row))


def entry_of(row: Row) -> KnownPinnedHost:
    """The entry of a row.

    Raises:
        DamagedRow: if the row is not the one that was written. A damaged row is never treated as a host without pins.
            (A row that is missing altogether cannot be detected.)
    """
    if row[-1] != _digest(row[:-1]):
        raise DamagedRow(row[0])
    host, pins, certificates, subdomains, report_uri, noted_at, expires_at, source, on_expiry, origin = row[:10]
    recovery = row[10:17]
    return KnownPinnedHost(
        host,
        tuple([Pin(pin) for pin in _parts(pins)]),
        bool(subdomains),
        report_uri,
        noted_at,
        expires_at,
        source,
        tuple(_parts(certificates)),
        on_expiry,
        origin,
        None if recovery == _NO_RECOVERY else _recovery_of(recovery),
    )


def host_and_superdomains(host: str) -> tuple[str, tuple[str, ...]]:
    """A SELECT for the rows of a host and of all its superdomains, with its parameters."""
    names = (host, *superdomains(host))
    return f"SELECT {COLUMNS} FROM hosts WHERE host IN ({','.join('?' * len(names))})", names  # noqa: S608 - only marks


def rows_by_host(select: Select) -> Iterator[Row]:
    """All rows in the order of their hosts, read a thousand at a time.

    Raises:
        sqlite3.DatabaseError: if a host is not greater than the one before. A page of the file is then in the wrong
            place: each of its rows is sound, but reading on from there might never end.
    """
    last = ""
    while rows := select(_NEXT, (last,)):
        for row in rows:
            host = row[0]
            if not isinstance(host, str) or host <= last:
                raise sqlite3.DatabaseError(f"{str(host)[:300]!r} is not in its place among the hosts")
            last = host
            yield row


def selecting(connection: sqlite3.Connection) -> Select:
    """:meth:`Database.select` for the transaction of a connection."""
    return lambda sql, parameters: connection.execute(sql, parameters).fetchall()


def put(connection: sqlite3.Connection, entries: Iterable[KnownPinnedHost]) -> None:
    """Store exactly these entries for their hosts."""
    connection.executemany(_PUT, map(row_of, entries))


def delete(connection: sqlite3.Connection, host: str) -> None:
    """Delete a host's own row, even a damaged one."""
    connection.execute("DELETE FROM hosts WHERE host = ?", (host,))


def reversed_name(host: str) -> str:
    """The labels from right to left, each followed by a dot: a domain is then a prefix of all names below it."""
    return ".".join(reversed(host.split("."))) + "."


def _recovery_row(noted: NotedRecovery) -> Row:
    root, uri = _named_row(noted.standing)
    until = None if noted.until is None else float(noted.until)
    return (root, uri, until, noted.list_version, *_named_row(noted.offered), noted.offered_at)


def _named_row(recovery: Recovery | None) -> tuple[bytes | None, str | None]:
    return (None, None) if recovery is None else (recovery.root, recovery.uri)


def _recovery_of(row: Row) -> NotedRecovery:
    root, uri, until, list_version, offered_root, offered_uri, offered_at = row
    return NotedRecovery(_named_of(root, uri), until, list_version, _named_of(offered_root, offered_uri), offered_at)


def _named_of(root: bytes | None, uri: str | None) -> Recovery | None:
    return None if root is None or uri is None else Recovery(root, uri)


def _text(value: str | None) -> str | None:
    """A plain str from any subclass, such as a StrEnum. SQLite stores the plain text, so the digest covers that too."""
    return None if value is None else str.__str__(value)


def _digest(row: Row) -> bytes:
    # Not repr(): the characters that it escapes differ between versions of Python.
    return hashlib.blake2b(ascii(row).encode(), digest_size=16).digest()


def _parts(blob: bytes) -> list[bytes]:
    return [blob[at : at + 32] for at in range(0, len(blob), 32)]
