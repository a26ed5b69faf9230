"""Static pins and imported ones: how they meet what was noted from headers (RFC 7469 §2.7).

The rule: a host has one entry. A living static entry stands, and headers neither change nor remove it; once it has
expired and was set to release, the next Valid Pinning Header takes its place. What a person pins or imports by hand
replaces what is there; what a program preloads does so too, but for hosts that the user has pinned by hand or
forgotten.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from dynpin.clientstore.table import delete, hosts_of, put, select
from dynpin.hosts import KnownPinnedHost, OnExpiry, canonical_host, is_ip_literal
from dynpin.pins import Pin

__all__ = ["merge", "override", "preload", "static_entry"]

logger = logging.getLogger("dynpin.clientstore")


class _Store(Protocol):
    max_max_age: int

    def clock(self) -> float: ...
    def reading(self) -> AbstractContextManager[sqlite3.Connection]: ...
    def writing(self) -> AbstractContextManager[sqlite3.Connection]: ...


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
        ValueError: for an IP address, with neither a pin nor a certificate, or for a digest that is none.
        InvalidHost: for a name that cannot be made canonical.
    """
    name = canonical_host(host)
    kept, exact = tuple(dict.fromkeys(pins)), tuple(dict.fromkeys(certificates))
    if is_ip_literal(name):
        raise ValueError(f"{name} is an IP address: only host names are pinned (RFC 7469 §2.3.3)")
    if not kept and not exact:
        raise ValueError(f"a static pin for {name} needs at least one pin")
    if any(len(digest) != 32 for digest in exact):
        raise ValueError(f"a certificate of {name} is named by the 32 bytes of its SHA-256, not by its text")
    if on_expiry not in ("release", "refuse"):
        raise ValueError(f'on_expiry of {name} is "release" or "refuse", not {on_expiry!r}')
    if exact:
        logger.warning(
            "%s is pinned to an exact certificate: its next renewal breaks the pin, even with the same key; "
            "`dynpin pin` gives the pin of its key, which survives",
            name,
        )
    return KnownPinnedHost(
        name, kept, include_subdomains, report_uri, noted_at, expires_at, "static", exact, on_expiry, origin
    )


def preload(store: _Store, entries: Iterable[KnownPinnedHost], origin: str) -> int:
    """See :meth:`dynpin.clientstore.PinStore.preload`."""
    wanted = {entry.host: replace(entry, origin=origin, source="static") for entry in entries}
    with store.reading() as connection:
        changes, gone = _preloading(connection, wanted, origin)
    if changes or gone:
        with store.writing() as connection:
            changes, gone = _preloading(connection, wanted, origin)  # again: another process may have written
            for entry in changes:
                put(connection, entry)
            for host in gone:
                delete(connection, host)
    with store.reading() as connection:
        return len(hosts_of(connection, origin))


def _preloading(
    connection: sqlite3.Connection, wanted: dict[str, KnownPinnedHost], origin: str
) -> tuple[list[KnownPinnedHost], list[str]]:
    """What must be put, and which hosts deleted, for the store to hold what is wanted."""
    changes: list[KnownPinnedHost] = []
    for entry in wanted.values():
        own = _own(connection, entry.host)
        if own is not None and own.source == "static" and own.origin is None:
            continue  # pinned by hand
        if own is not None and replace(own, noted_at=entry.noted_at) == entry:
            continue
        if connection.execute("SELECT 1 FROM overrides WHERE host = ?", (entry.host,)).fetchone() is None:
            changes.append(entry)
    return changes, [host for host in hosts_of(connection, origin) if host not in wanted]


def merge(store: _Store, entries: Iterable[KnownPinnedHost]) -> list[KnownPinnedHost]:
    """See :meth:`dynpin.clientstore.PinStore.merge`."""
    now = store.clock()
    taken: list[KnownPinnedHost] = []
    with store.writing() as connection:
        for entry in entries:
            new = entry if entry.source == "static" else _capped(entry, now, store.max_max_age)
            own = _own(connection, new.host)
            stands = own is not None and not own.is_released(now)
            if new.source != "static" and (
                new.is_expired(now)
                or (stands and own is not None and (own.source == "static" or own.noted_at >= new.noted_at))
            ):
                continue
            put(connection, new)
            override(connection, new.host, False)
            taken.append(new)
    return taken


def override(connection: sqlite3.Connection, host: str, forgotten: bool) -> None:
    """Remember, or forget, that the user wants no preloaded pins for a host."""
    if forgotten:
        connection.execute("INSERT OR IGNORE INTO overrides VALUES (?)", (host,))
    else:
        connection.execute("DELETE FROM overrides WHERE host = ?", (host,))


def _own(connection: sqlite3.Connection, host: str) -> KnownPinnedHost | None:
    return next((entry for entry in select(connection, host) if entry.host == host), None)


def _capped(entry: KnownPinnedHost, now: float, max_max_age: int) -> KnownPinnedHost:
    # Another client may have noted a year; the cap is this store's (§2.3.3, §4.1).
    noted_at = min(entry.noted_at, now)
    latest = noted_at + max_max_age
    return replace(
        entry, noted_at=noted_at, expires_at=latest if entry.expires_at is None else min(entry.expires_at, latest)
    )
