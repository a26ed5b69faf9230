"""PinStore: the Known Pinned Hosts of a client, in SQLite (RFC 7469 §2.3.3)."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from platformdirs import user_data_path

from dynpin.clientstore.schema import IN_MEMORY, open_database, store_error, store_errors, transaction
from dynpin.clientstore.table import EVERYWHERE, counted, delete, domain_of_new, purge, put, select, select_all
from dynpin.errors import InvalidHeader, StoreError
from dynpin.header import PublicKeyPins
from dynpin.hosts import KnownPinnedHost, applicable, canonical_host, is_ip_literal
from dynpin.noting import DEFAULT_MAX_MAX_AGE, Noting, note
from dynpin.pins import Pin
from dynpin.validation import Validation, validate

__all__ = ["PinStore"]

_CACHED_NAMES = 4096
# A response that only moves the expiry is written when it moves by more than this share of max-age.
_WORTH_WRITING = 0.01


class PinStore:
    """The Known Pinned Hosts of a client, kept in one SQLite file that threads and processes share safely.

    What :meth:`note` returns as noted, updated or removed is on the disk. Reads are cached and stay right when
    another process writes. A store may be used across :func:`os.fork`.

    Args:
        path: the file; None for ``pins.sqlite`` in the user's data folder. It is made with mode 0600.
        clock: gives seconds since the epoch, UTC.
        max_max_age: the cap on max-age in seconds (RFC 7469 §2.3.3, §4.1).
        max_hosts: how many hosts the store holds at most. A full store refuses new hosts and keeps the old ones.
        max_hosts_per_domain: how many hosts under one registrable domain, so that a hostile site with a thousand
            subdomains fills its own share and nobody else's.

    Raises:
        StoreError: where the file cannot be opened; the message tells how to recover.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        clock: Callable[[], float] = time.time,
        max_max_age: int = DEFAULT_MAX_MAX_AGE,
        max_hosts: int = 1_000_000,
        max_hosts_per_domain: int = 1_000,
    ) -> None:
        self.path: Path | str = (
            user_data_path("dynpin", appauthor=False) / "pins.sqlite" if path is None else Path(path)
        )
        if path is not None and os.fspath(path) == IN_MEMORY:
            self.path = IN_MEMORY
        self.is_default = path is None
        self.clock = clock
        self.max_max_age = max_max_age
        self.max_hosts = max_hosts
        self.max_hosts_per_domain = max_hosts_per_domain
        self._lock = threading.RLock()
        self._cache: dict[str, tuple[KnownPinnedHost, ...]] = {}
        self._data_version = -1
        self._connection: sqlite3.Connection | None = open_database(self.path)
        self._closed = False
        _stores.add(self)

    # -- reading ------------------------------------------------------------------------------------------------

    def known_host(self, host: str) -> KnownPinnedHost | None:
        """The entry that applies to a host now: its own, else the nearest superdomain's that covers it, or None.

        Raises:
            InvalidHost: for a name that cannot be made canonical.
            StoreError: where the file cannot be read.
        """
        name = canonical_host(host)
        return applicable(self._entries(name), name, self.clock())

    def entry(self, host: str) -> KnownPinnedHost | None:
        """The host's own entry, alive or expired, or None: for a person who looks, not for Pin Validation.

        Raises:
            InvalidHost: for a name that cannot be made canonical.
            StoreError: where the file cannot be read.
        """
        name = canonical_host(host)
        return next((entry for entry in self._entries(name) if entry.host == name), None)

    def validate(self, host: str, chain: Sequence[Pin]) -> Validation:
        """Pin Validation of a validated chain, leaf first (RFC 7469 §2.6). A mismatch is returned, not raised.

        Raises:
            InvalidHost: for a name that cannot be made canonical.
            StoreError: where the file cannot be read.
        """
        name = canonical_host(host)
        return validate(name, applicable(self._entries(name), name, self.clock()), chain)

    def hosts(self, *, include_expired: bool = False) -> list[KnownPinnedHost]:
        """Every Known Pinned Host by name, alive ones alone unless told otherwise."""
        now = self.clock()
        with self.reading() as connection:
            entries = select_all(connection)
        return [entry for entry in entries if include_expired or not entry.is_expired(now)]

    def __len__(self) -> int:
        with self.reading() as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM hosts WHERE expires_at IS NULL OR expires_at >= ?", (self.clock(),)
            ).fetchone()
        return int(count)

    def __bool__(self) -> bool:
        # An empty store is a store all the same: `store or PinStore()` must not replace it.
        return True

    # -- writing ------------------------------------------------------------------------------------------------

    def note(self, host: str, value: str | Sequence[str], chain: Sequence[Pin]) -> Noting:
        """Take in the Public-Key-Pins of one response, durably before this returns.

        Args:
            host: the host that responded, as TLS named it.
            value: the header field value; or all field values of the response, of which only the first counts
                (RFC 7469 §2.3.1). Never values joined by a comma: that text is malformed.
            chain: the pins of the validated chain, leaf first; empty where TLS was not free of errors.

        Returns:
            the outcome with its reason; a malformed or invalid header is ``"ignored"`` and changes nothing.

        Raises:
            InvalidHost: for a name that cannot be made canonical.
            StoreError: where the file cannot be written.
        """
        name = canonical_host(host)
        header = _first_header(value)
        now = self.clock()
        known = applicable(self._entries(name), name, now)
        noting = note(name, known, header, chain, now, max_max_age=self.max_max_age)
        if noting.outcome == "ignored" or not _worthwriting(known, noting.known_host):
            return noting
        with self.writing() as connection:
            # Decided again under the write lock: another process may have written since.
            known = applicable(select(connection, name), name, now)
            noting = note(name, known, header, chain, now, max_max_age=self.max_max_age)
            if noting.known_host is not None:
                full = self._full(connection, name, now)
                if full is not None:
                    return full
                put(connection, noting.known_host)
            if noting.outcome == "removed":
                delete(connection, name)
        return noting

    def pin(
        self,
        host: str,
        pins: Iterable[Pin],
        *,
        include_subdomains: bool = False,
        report_uri: str | None = None,
        expires_at: float | None = None,
    ) -> KnownPinnedHost:
        """Keep a static pin: preloaded, not learnt from a response (RFC 7469 §2.7). It replaces the host's entry.

        A static pin stands until it expires or is forgotten; headers neither change nor remove it.

        Args:
            host: the name to pin; an IP address cannot be.
            pins: at least one pin. A Backup Pin among them is what keeps a key change from locking you out.
            include_subdomains: whether every subdomain is covered too.
            report_uri: where violations are reported.
            expires_at: seconds since the epoch, UTC; None never expires.

        Raises:
            ValueError: for an IP address, or without a pin.
            InvalidHost: for a name that cannot be made canonical.
            StoreError: where the file cannot be written.
        """
        name = canonical_host(host)
        kept = tuple(dict.fromkeys(pins))
        if is_ip_literal(name):
            raise ValueError(f"{name} is an IP address: only host names are pinned (RFC 7469 §2.3.3)")
        if not kept:
            raise ValueError(f"a static pin for {name} needs at least one pin")
        entry = KnownPinnedHost(name, kept, include_subdomains, report_uri, self.clock(), expires_at, "static")
        with self.writing() as connection:
            put(connection, entry)
        return entry

    def forget(self, host: str) -> bool:
        """Remove a host's own entry, alive or expired; True if there was one that was alive (RFC 7469 §2.7).

        Raises:
            InvalidHost: for a name that cannot be made canonical.
            StoreError: where the file cannot be written.
        """
        name = canonical_host(host)
        now = self.clock()
        with self.writing() as connection:
            alive = any(entry.host == name and not entry.is_expired(now) for entry in select(connection, name))
            delete(connection, name)
        return alive

    def close(self) -> None:
        """Close the file. Using the store afterwards raises StoreError."""
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- the file -----------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """The connection, held against other threads: for what else of this package keeps tables in the file."""
        with self._lock, store_errors(self.path):
            yield self._open()

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """The connection inside a transaction that holds the file's write lock, committed durably at the end."""
        with self._lock, store_errors(self.path):
            connection = self._open()
            with transaction(connection):
                yield connection
            # data_version tells of the writes of others alone.
            self._cache.clear()

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"the pin store {self.path} is closed; open a new PinStore")
        if self._connection is None:  # after a fork
            self._connection = open_database(self.path)
        return self._connection

    def _entries(self, name: str) -> tuple[KnownPinnedHost, ...]:
        """The entries of a host and its superdomains, from memory while no other connection has written."""
        with self._lock:
            try:
                connection = self._connection or self._open()
                (version,) = connection.execute("PRAGMA data_version").fetchone()
                if version != self._data_version or len(self._cache) >= _CACHED_NAMES:
                    self._cache.clear()
                    self._data_version = version
                entries = self._cache.get(name)
                if entries is None:
                    entries = self._cache[name] = select(connection, name)
            except sqlite3.Error as error:
                raise store_error(self.path, error) from error
            return entries

    def _full(self, connection: sqlite3.Connection, host: str, now: float) -> Noting | None:
        """The refusal of a host that is new to a store that holds its limit, or None.

        Firefox evicted by a score, so that a page which named a thousand hosts pushed the real pins out. Here no pin
        that is alive is ever evicted: what has expired makes room, and then it is the new host that is refused.
        """
        domain = domain_of_new(connection, host)
        if domain is None:
            return None
        for scope, limit in ((domain, self.max_hosts_per_domain), (EVERYWHERE, self.max_hosts)):
            if counted(connection, scope) >= limit:
                purge(connection, scope, now)
                if counted(connection, scope) >= limit:
                    where = f"under {scope}" if scope else "in all"
                    reason = f"{host} was not noted: the store holds its limit of {limit} hosts {where}"
                    return Noting("ignored", f"{reason}, and evicts none of them", "2.3.3")
        return None

    # -- fork ---------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Hold the store still; called by :func:`os.fork`, as are the two below."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Let the store go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Leave the parent its connection, and open another one on the next use."""
        self._lock = threading.RLock()
        self._data_version = -1
        if self.path != IN_MEMORY and self._connection is not None:
            # SQLite's connections must not cross a fork, and closing one in the child would drop the parent's locks:
            # it is left as it is, and the child opens its own.
            _abandoned.append(self._connection)
            self._connection = None


def _first_header(value: str | Sequence[str]) -> PublicKeyPins | InvalidHeader | None:
    # RFC 7469 §2.3.1: of several fields only the first is processed.
    first = value if isinstance(value, str) else next(iter(value), None)
    if first is None:
        return None
    try:
        return PublicKeyPins.parse(first)
    except InvalidHeader as error:
        return error


def _worthwriting(known: KnownPinnedHost | None, new: KnownPinnedHost | None) -> bool:
    """Whether the disk must change: always, but for an expiry that only moves on a little.

    A busy client does not write on every response, and what is on the disk never expires later than the truth.
    """
    if known is None or new is None or known.expires_at is None or new.expires_at is None:
        return True
    if replace(known, noted_at=new.noted_at, expires_at=new.expires_at) != new:
        return True
    moved = new.expires_at - known.expires_at
    return not 0 <= moved <= _WORTH_WRITING * (new.expires_at - new.noted_at)


_stores: weakref.WeakSet[PinStore] = weakref.WeakSet()
_abandoned: list[sqlite3.Connection] = []


def _each_store(act: Callable[[PinStore], None]) -> Callable[[], None]:
    def act_on_each() -> None:
        for store in tuple(_stores):
            act(store)

    return act_on_each


os.register_at_fork(
    before=_each_store(PinStore.before_fork),
    after_in_parent=_each_store(PinStore.after_fork_in_parent),
    after_in_child=_each_store(PinStore.after_fork_in_child),
)
