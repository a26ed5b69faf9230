"""The table of Known Pinned Hosts: how an entry becomes a row and back, and the SQL on it."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

from dynpin.hosts import KnownPinnedHost, OnExpiry, superdomains
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


class HostRow(NamedTuple):
    """A row of the table ``hosts``: the fields are its columns (:data:`.schema.SCHEMA` says what each holds)."""

    host: str
    pins: bytes
    certificates: bytes
    include_subdomains: int
    report_uri: str | None
    noted_at: float
    expires_at: float | None
    source: str
    on_expiry: OnExpiry
    origin: str | None
    recovery_root: bytes | None
    recovery_uri: str | None
    recovery_until: float | None
    list_version: int | None
    offered_root: bytes | None
    offered_uri: str | None
    offered_at: float | None
    reversed: str
    digest: bytes = b""


COLUMNS = ", ".join(HostRow._fields)
MARKS = ",".join("?" * len(HostRow._fields))
_HOST = HostRow._fields.index("host")
# What KnownPinnedHost.is_released denies; its parameter is the time.
ALIVE = (
    "(expires_at IS NULL OR expires_at >= ? OR on_expiry = 'refuse') AND (length(pins) > 0 OR length(certificates) > 0)"
)
_PUT = f"INSERT OR REPLACE INTO hosts ({COLUMNS}) VALUES ({MARKS})"  # noqa: S608 - constants

_NEXT = f"SELECT {COLUMNS} FROM hosts WHERE host > ? ORDER BY host LIMIT 1000"  # noqa: S608 - a constant

_TextT = TypeVar("_TextT", bound=str)
Row = tuple[Any, ...]
# Runs one SELECT and returns all rows: Database.select, or `selecting` inside a transaction.
Select = Callable[[str, tuple[object, ...]], list[Row]]


def row_of(entry: KnownPinnedHost) -> HostRow:
    """The row of an entry."""
    noted = entry.recovery
    standing = None if noted is None else noted.standing
    offered = None if noted is None else noted.offered
    row = HostRow(
        host=entry.host,
        pins=b"".join([pin.digest for pin in entry.pins]),
        certificates=b"".join(entry.certificates),
        include_subdomains=int(entry.include_subdomains),
        report_uri=None if entry.report_uri is None else _text(entry.report_uri),
        noted_at=_seconds(entry.noted_at),
        expires_at=_time(entry.expires_at),
        source=_text(entry.source),
        on_expiry=_text(entry.on_expiry),
        origin=None if entry.origin is None else _text(entry.origin),
        recovery_root=None if standing is None else standing.root,
        recovery_uri=None if standing is None else standing.uri,
        recovery_until=None if noted is None else _time(noted.until),
        list_version=None if noted is None else noted.list_version,
        offered_root=None if offered is None else offered.root,
        offered_uri=None if offered is None else offered.uri,
        offered_at=None if noted is None else _time(noted.offered_at),
        reversed=reversed_name(entry.host),
    )
    return HostRow(*row[:-1], digest=_digest(row))


def entry_of(columns: Row) -> KnownPinnedHost:
    """The entry of a row, as a SELECT of :data:`COLUMNS` gives it.

    Raises:
        DamagedRow: if the row is not the one that was written. A damaged row is never treated as a host without pins.
            (A row that is missing altogether cannot be detected.)
    """
    row = HostRow._make(columns)
    if row.digest != _digest(row):
        raise DamagedRow(row.host)
    return KnownPinnedHost(
        host=row.host,
        pins=tuple([Pin(pin) for pin in _parts(row.pins)]),
        include_subdomains=bool(row.include_subdomains),
        report_uri=row.report_uri,
        noted_at=row.noted_at,
        expires_at=row.expires_at,
        source=row.source,
        certificates=tuple(_parts(row.certificates)),
        on_expiry=row.on_expiry,
        origin=row.origin,
        recovery=_recovery_of(row),
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
            host = row[_HOST]
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


def _recovery_of(row: HostRow) -> NotedRecovery | None:
    if row.list_version is None:
        return None
    return NotedRecovery(
        standing=_named_of(row.recovery_root, row.recovery_uri),
        until=row.recovery_until,
        list_version=row.list_version,
        offered=_named_of(row.offered_root, row.offered_uri),
        offered_at=row.offered_at,
    )


def _named_of(root: bytes | None, uri: str | None) -> Recovery | None:
    return None if root is None or uri is None else Recovery(root, uri)


def _text(value: _TextT) -> _TextT:
    """The plain text of a str of any class, a StrEnum's for one: it is what SQLite keeps, and what the digest is of."""
    return cast("_TextT", str.__str__(value))


def _time(value: float | None) -> float | None:
    return None if value is None else _seconds(value)


def _seconds(value: float) -> float:
    return float(value) + 0.0  # -0.0 becomes the plain zero that SQLite keeps: the digest has the sign


def _digest(row: HostRow) -> bytes:
    # Of all columns but the last, itself. Not repr(): which characters that writes as they are differs by Python.
    return hashlib.blake2b(ascii(row[:-1]).encode(), digest_size=16).digest()


def _parts(blob: bytes) -> list[bytes]:
    return [blob[at : at + 32] for at in range(0, len(blob), 32)]
