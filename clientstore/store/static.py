"""Static pins and imported ones, and how they relate to pins noted from headers (RFC 7469 §2.7).

The rule: a host has one entry. Headers neither change nor remove a living static entry. Once it has expired and was set
to release, the next Valid Pinning Header replaces it. What a person pins or imports by hand replaces the host's entry.
So does what a program preloads, except for hosts that the user has pinned by hand or forgotten.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from dynpin.hosts import KnownPinnedHost, OnExpiry, canonical_host, is_ip_literal
from dynpin.noting import keep_root
from dynpin.pins import Pin

from .advice import DamagedRow
from .database import Database
from .memory import MemoryDatabase
from .numbers import time_of
from .table import ALIVE, COLUMNS, MARKS, Select, delete, entry_of, put, row_of, selecting

__all__ = ["merge", "preload", "preload_within", "static_entry"]

logger = logging.getLogger("dynpin.clientstore")

# How many entries one transaction merges: it holds the write lock for some hundredths of a second.
_BATCH = 5_000
_PRELOADED = "SELECT host FROM hosts WHERE source = 'static' AND origin = ?"


def static_entry(
    host: str,
    pins: Iterable[Pin],
    *,
    certificates: Iterable[bytes] = (),
    include_subdomains: bool = False,
    report_uri: str | None = None,
    noted_at: float,
    expires_at: float | None = None,
    on_expiry: OnExpiry = "release",
    origin: str | None = None,
) -> KnownPinnedHost:
    """A static entry, checked; see :meth:`dynpin.clientstore.PinStore.pin`.

    Raises:
        ValueError: for an IP address or a wildcard, without a pin or a certificate, or for a digest that is not one.
        InvalidHost: for a name that has no canonical form.
    """
    name = canonical_host(host)
    kept, exact = tuple(dict.fromkeys(pins)), tuple(dict.fromkeys(certificates))
    _refuse_what_is_no_host(name)
    if not kept and not exact:
        raise ValueError(f"a static pin for {name} needs at least one pin")
    if not all(isinstance(digest, bytes) and len(digest) == 32 for digest in exact):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"a certificate of {name} is named by the 32 bytes of its SHA-256, not by its text")
    ends_at = None if expires_at is None else time_of(expires_at, f"expires_at of {name}")
    if not all(isinstance(pin, Pin) for pin in kept):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"a pin of {name} is not a Pin: make one with Pin.from_base64()")
    if include_subdomains not in (False, True):
        raise ValueError(f"include_subdomains of {name} is True or False, not {include_subdomains!r}")
    if on_expiry not in ("release", "refuse"):
        raise ValueError(f'on_expiry of {name} is "release" or "refuse", not {on_expiry!r}')
    if report_uri is not None and not isinstance(report_uri, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"the report-uri of {name} is {report_uri!r}, not a text")
    if exact:
        logger.warning(
            "%s is pinned to an exact certificate: its next renewal breaks the pin, even with the same key; "
            "`dynpin pin` gives the pin of its key, which survives",
            name,
        )
    return KnownPinnedHost(
        name, kept, include_subdomains, report_uri, noted_at, ends_at, "static", exact, on_expiry, origin
    )


def _refuse_what_is_no_host(name: str) -> None:
    """Refuse a name with which no connection is compared: its pins would never be enforced.

    Raises:
        ValueError: for an IP address or a wildcard.
    """
    if is_ip_literal(name):
        raise ValueError(f"{name} is an IP address: only host names are pinned (RFC 7469 §2.3.3)")
    if "*" in name:
        raise ValueError(
            f"{name} is the name of no host, so its pins would never be enforced: pin each host by its name, or a "
            "domain together with its subdomains"
        )


def preload(database: Database | MemoryDatabase, entries: Iterable[KnownPinnedHost], origin: str) -> int:
    """See :meth:`dynpin.clientstore.PinStore.preload`."""
    wanted = [replace(_checked(entry), origin=origin, source="static") for entry in entries]
    changes, gone = _preloading(database.select, {entry.host: entry for entry in wanted}, origin)
    if changes or gone:
        # Compares again: another process may have written.
        database.write(lambda connection: preload_within(connection, wanted, origin))
    return len(database.select(_PRELOADED, (origin,)))


def preload_within(connection: sqlite3.Connection, entries: Iterable[KnownPinnedHost], origin: str) -> None:
    """:func:`preload` inside a transaction. All entries are static and of this origin."""
    changes, gone = _preloading(selecting(connection), {entry.host: entry for entry in entries}, origin)
    put(connection, changes)
    for host in gone:
        delete(connection, host)


def _preloading(
    select: Select, wanted: dict[str, KnownPinnedHost], origin: str
) -> tuple[list[KnownPinnedHost], list[str]]:
    """The entries to write and the hosts to delete, so that the store holds what is wanted."""
    changes: list[KnownPinnedHost] = []
    for entry in wanted.values():
        rows = select(f"SELECT {COLUMNS} FROM hosts WHERE host = ?", (entry.host,))  # noqa: S608
        own = entry_of(rows[0]) if rows else None
        if own is not None and own.source == "static" and own.origin is None:
            continue  # pinned by hand
        if own is not None and replace(own, noted_at=entry.noted_at) == entry:
            continue
        if not select("SELECT 1 FROM overrides WHERE host = ?", (entry.host,)):
            changes.append(entry)
    there = [host for (host,) in select(_PRELOADED, (origin,))]
    return changes, [host for host in there if host not in wanted]


def merge(
    database: Database | MemoryDatabase,
    entries: Iterable[KnownPinnedHost],
    *,
    now: float,
    max_max_age: int,
    progress: Callable[[int], None] | None = None,
) -> int:
    """See :meth:`dynpin.clientstore.PinStore.merge`."""
    # A table in a temporary file on the disk, so that nothing is written if an entry in the middle is bad.
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as aside:
        aside.execute("PRAGMA journal_mode=OFF")
        aside.execute(f"CREATE TABLE incoming ({COLUMNS})")
        aside.execute("BEGIN")
        aside.executemany(
            f"INSERT INTO incoming VALUES ({MARKS})",  # noqa: S608
            (row_of(_capped(_checked(entry), now, max_max_age)) for entry in entries),
        )
        aside.execute("COMMIT")
        taken = done = 0
        # By name, so that each batch changes few pages of the store. If a host has two entries, the static one counts,
        # else the one that was noted last.
        cursor = aside.execute("SELECT * FROM incoming ORDER BY host, source = 'static', noted_at, rowid")
        while rows := cursor.fetchmany(_BATCH):
            taken += database.write(partial(_merge_batch, rows=rows, now=now))
            done += len(rows)
            if progress is not None:
                progress(done)
    return taken


def _merge_batch(connection: sqlite3.Connection, rows: list[tuple[Any, ...]], now: float) -> int:
    connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS incoming ({COLUMNS}, PRIMARY KEY (host)) WITHOUT ROWID")
    connection.execute("DELETE FROM temp.incoming")
    connection.executemany(f"INSERT OR REPLACE INTO temp.incoming VALUES ({MARKS})", rows)  # noqa: S608
    connection.execute("DELETE FROM temp.incoming WHERE source <> 'static' AND expires_at < ?", (now,))
    # A noted entry does not replace a living static one, or a living one that was noted later.
    connection.execute(
        "DELETE FROM temp.incoming WHERE source <> 'static' AND EXISTS (SELECT 1 FROM main.hosts AS own"  # noqa: S608
        f" WHERE own.host = incoming.host AND {ALIVE} AND (source = 'static' OR noted_at >= incoming.noted_at))",
        (now,),
    )
    _keep_roots(connection, now)
    # As after a header, an older request for a signed list no longer counts.
    for table in ("overrides", "asked"):
        connection.execute(f"DELETE FROM {table} WHERE host IN (SELECT host FROM temp.incoming)")  # noqa: S608
    return connection.execute(
        f"INSERT OR REPLACE INTO main.hosts ({COLUMNS}) SELECT {COLUMNS} FROM temp.incoming"  # noqa: S608
    ).rowcount


def _keep_roots(connection: sqlite3.Connection, now: float) -> None:
    """Noted entries keep the root of recovery of the entry that they replace: most files have none."""
    rows = connection.execute(
        "SELECT host FROM temp.incoming AS incoming JOIN main.hosts AS own USING (host)"
        " WHERE incoming.source <> 'static' AND own.recovery_root IS NOT NULL"
    ).fetchall()
    for host in rows:
        with contextlib.suppress(DamagedRow):  # the entry replaces the damaged one
            own, entry = (
                entry_of(connection.execute(f"SELECT {COLUMNS} FROM {table} WHERE host = ?", host).fetchone())  # noqa: S608
                for table in ("main.hosts", "temp.incoming")
            )
            row = row_of(keep_root(entry, own, now))
            connection.execute(f"INSERT OR REPLACE INTO temp.incoming VALUES ({MARKS})", row)  # noqa: S608


def _checked(entry: KnownPinnedHost) -> KnownPinnedHost:
    """The entry, if the store can hold it and read it again.

    Raises:
        ValueError: if not.
    """
    _refuse_what_is_no_host(entry.host)
    times = [entry.noted_at] if entry.expires_at is None else [entry.noted_at, entry.expires_at]
    for moment in times:
        time_of(moment, f"a time of {entry.host}")
    sound = (  # do not rely on the declared types
        canonical_host(entry.host) == entry.host
        and type(entry.source) is str
        and entry.source in ("header", "static")
        and str(entry.on_expiry) in ("release", "refuse")
        and entry.include_subdomains in (False, True)
        and bool(entry.pins or entry.certificates)
        and all(isinstance(pin, Pin) for pin in entry.pins)  # pyright: ignore[reportUnnecessaryIsInstance]
        and all(isinstance(digest, bytes) and len(digest) == 32 for digest in entry.certificates)  # pyright: ignore[reportUnnecessaryIsInstance]
    )
    if not sound:
        raise ValueError(f"{entry!r} is not an entry that a store can hold")
    return entry


def _capped(entry: KnownPinnedHost, now: float, max_max_age: int) -> KnownPinnedHost:
    # Another client may have noted a year; this store has its own cap (§2.3.3, §4.1).
    if entry.source == "static":
        return entry
    noted_at = min(entry.noted_at, now)
    latest = noted_at + max_max_age
    expires_at = latest if entry.expires_at is None else min(entry.expires_at, latest)
    if (noted_at, expires_at) == (entry.noted_at, entry.expires_at):
        return entry
    return replace(entry, noted_at=noted_at, expires_at=expires_at)
