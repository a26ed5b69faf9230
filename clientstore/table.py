"""The table of Known Pinned Hosts: every SQL statement on it, each inside the transaction of its caller."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dynpin.hosts import KnownPinnedHost, OnExpiry, superdomains
from dynpin.pins import Pin

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

__all__ = [
    "EVERYWHERE",
    "count_alive",
    "counted",
    "delete",
    "entry_of",
    "hosts_of",
    "purge",
    "put",
    "recount",
    "registrable_domain",
    "select",
    "select_all",
]

# The scope of a bound that counts every host; any other scope is a registrable domain.
EVERYWHERE = ""

_SELECT = (
    "SELECT host, pins, include_subdomains, report_uri, noted_at, expires_at, source, certificates, on_expiry, origin"
    " FROM hosts"
)
_PURGE_EVERY = 3600.0

_Row = tuple[str, bytes, int, str | None, float, float | None, str, bytes, OnExpiry, str | None]


def select(connection: sqlite3.Connection, host: str) -> tuple[KnownPinnedHost, ...]:
    """The entries of a host and of all its superdomains, in one query."""
    names = (host, *superdomains(host))
    marks = ",".join("?" * len(names))
    return tuple(_entry(row) for row in connection.execute(f"{_SELECT} WHERE host IN ({marks})", names))


def select_all(connection: sqlite3.Connection) -> Iterator[KnownPinnedHost]:
    """Every entry, by name."""
    return map(_entry, connection.execute(f"{_SELECT} ORDER BY host"))


def hosts_of(connection: sqlite3.Connection, origin: str) -> list[str]:
    """The hosts whose entries came from a file."""
    return [host for (host,) in connection.execute("SELECT host FROM hosts WHERE origin = ?", (origin,))]


def put(connection: sqlite3.Connection, entry: KnownPinnedHost, *, is_new: bool | None = None) -> None:
    """Keep exactly this entry for its host, which has a row or is new; where the caller does not know, it is found."""
    if is_new is None:
        is_new = connection.execute("SELECT 1 FROM hosts WHERE host = ?", (entry.host,)).fetchone() is None
    values = (
        b"".join([pin.digest for pin in entry.pins]),
        entry.include_subdomains,
        entry.report_uri,
        entry.noted_at,
        entry.expires_at,
        entry.source,
        b"".join(entry.certificates),
        entry.on_expiry,
        entry.origin,
        entry.host,
    )
    if not is_new:
        connection.execute(
            "UPDATE hosts SET pins = ?, include_subdomains = ?, report_uri = ?, noted_at = ?, expires_at = ?,"
            " source = ?, certificates = ?, on_expiry = ?, origin = ? WHERE host = ?",
            values,
        )
        return
    domain = registrable_domain(entry.host)
    connection.execute(
        "INSERT INTO hosts (pins, include_subdomains, report_uri, noted_at, expires_at, source, certificates,"
        " on_expiry, origin, host, domain) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*values, domain),
    )
    _count(connection, domain, 1)


def delete(connection: sqlite3.Connection, host: str) -> None:
    """Remove a host's own entry, if there is one."""
    row = connection.execute("DELETE FROM hosts WHERE host = ? RETURNING domain", (host,)).fetchone()
    if row is not None:
        _count(connection, row[0], -1)
        connection.execute("DELETE FROM uses WHERE host = ?", (host,))


def counted(connection: sqlite3.Connection, *scopes: str) -> dict[str, int]:
    """How many hosts there are, expired ones included: under registrable domains, or EVERYWHERE."""
    marks = ",".join("?" * len(scopes))
    rows = connection.execute(f"SELECT domain, hosts FROM counts WHERE domain IN ({marks})", scopes)  # noqa: S608
    return {**dict.fromkeys(scopes, 0), **dict(rows.fetchall())}


def purge(connection: sqlite3.Connection, scope: str, now: float) -> None:
    """Remove what has expired, under a registrable domain or EVERYWHERE."""
    if scope != EVERYWHERE:
        gone = connection.execute(
            "DELETE FROM hosts WHERE domain = ? AND expires_at < ? AND on_expiry = 'release'", (scope, now)
        ).rowcount
        _count(connection, scope, -gone)
        return
    # This walks over every host, so a flood may cause it once an hour and no more.
    row = connection.execute("SELECT value FROM facts WHERE name = 'purged_at'").fetchone()
    if row is not None and 0 <= now - float(row[0]) < _PURGE_EVERY:
        return
    connection.execute("INSERT OR REPLACE INTO facts VALUES ('purged_at', ?)", (now,))
    connection.execute("DELETE FROM hosts WHERE expires_at < ? AND on_expiry = 'release'", (now,))
    connection.execute("DELETE FROM uses WHERE host NOT IN (SELECT host FROM hosts)")
    recount(connection)


def recount(connection: sqlite3.Connection) -> None:
    """Count the hosts of every registrable domain anew."""
    connection.execute("DELETE FROM counts")
    connection.execute("INSERT INTO counts SELECT domain, count(*) FROM hosts GROUP BY domain")
    connection.execute("INSERT INTO counts SELECT ?, count(*) FROM hosts", (EVERYWHERE,))


def count_alive(connection: sqlite3.Connection, now: float) -> int:
    """How many hosts have pins that say something at `now`."""
    (count,) = connection.execute(
        "SELECT count(*) FROM hosts WHERE expires_at IS NULL OR expires_at >= ? OR on_expiry = 'refuse'", (now,)
    ).fetchone()
    return int(count)


def entry_of(row: Mapping[str, Any]) -> KnownPinnedHost:  # Any: what SQLite holds
    """The entry of a row of any schema, by the names of its columns."""
    return _entry(
        (
            row["host"],
            row["pins"],
            row["include_subdomains"],
            row["report_uri"],
            row["noted_at"],
            row["expires_at"],
            row["source"],
            row.get("certificates", b""),
            row.get("on_expiry", "release"),
            row.get("origin"),
        )
    )


def _entry(row: _Row) -> KnownPinnedHost:
    host, pins, include_subdomains, report_uri, noted_at, expires_at, source, certificates, on_expiry, origin = row
    return KnownPinnedHost(
        host,
        tuple(Pin(digest) for digest in _digests(pins)),
        bool(include_subdomains),
        report_uri,
        noted_at,
        expires_at,
        source,
        tuple(_digests(certificates)),
        on_expiry,
        origin,
    )


def _digests(blob: bytes) -> list[bytes]:
    return [blob[at : at + 32] for at in range(0, len(blob), 32)]


def _count(connection: sqlite3.Connection, domain: str, change: int) -> None:
    connection.execute(
        # Not by number: Python 3.12.0 to 3.12.3 take ?1 for a name, and warn.
        "INSERT INTO counts VALUES (?, ?), (?, ?) ON CONFLICT (domain) DO UPDATE SET hosts = hosts + excluded.hosts",
        (domain, change, EVERYWHERE, change),
    )


_suffixes: PublicSuffixList | None = None


@lru_cache(maxsize=1024)
def registrable_domain(host: str) -> str:
    """The public suffix of a host and one label more; the host itself where it has none."""
    # Imported when a host is new, since reading the list of public suffixes takes longer than all of a look-up.
    from publicsuffixlist import PublicSuffixList  # noqa: PLC0415

    global _suffixes  # noqa: PLW0603 - read once a process
    if _suffixes is None:
        _suffixes = PublicSuffixList()
    return _suffixes.privatesuffix(host) or host
