"""PinStore: the Known Pinned Hosts of a client, in SQLite (RFC 7469 §2.3.3)."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Self

from platformdirs import user_data_path

from dynpin.clientstore.file import ClockJump, StoreFile
from dynpin.clientstore.schema import IN_MEMORY
from dynpin.clientstore.static import merge, override, preload, static_entry
from dynpin.clientstore.table import (
    EVERYWHERE,
    count_alive,
    counted,
    delete,
    purge,
    put,
    registrable_domain,
    select,
    select_all,
)
from dynpin.clientstore.usage import Usage
from dynpin.clientstore.usage import read as read_uses
from dynpin.errors import InvalidHeader
from dynpin.header import PublicKeyPins
from dynpin.hosts import KnownPinnedHost, OnExpiry, applicable, canonical_host
from dynpin.noting import DEFAULT_MAX_MAX_AGE, Noting, note
from dynpin.pins import Pin
from dynpin.validation import Validation, validate

__all__ = ["PinStore"]

logger = logging.getLogger("dynpin.clientstore")

# A response that only moves the expiry is written when it moves by more than this share of max-age.
_WORTH_WRITING = 0.01


class PinStore(StoreFile):
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
        partition: keeps a world of its own, in a file beside `path`: what is noted in one partition tells nothing in
            another, against the super-cookie of RFC 7469 §5. A browser would take the site of the address bar.
        on_clock_jump: ``"warn"``, or ``"refuse"`` to raise StoreError, and so to refuse every connection, where the
            clock is 30 days past the last time seen and pins have expired by that, until a person decides
            (``dynpin hosts check --accept-clock``).

    Raises:
        StoreError: where the file cannot be opened; the message tells how to recover.
    """

    # The rule that finds the entry for a host: in the lab, the models of other user agents have rules of their own.
    _applicable = staticmethod(applicable)

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        clock: Callable[[], float] = time.time,
        max_max_age: int = DEFAULT_MAX_MAX_AGE,
        max_hosts: int = 1_000_000,
        max_hosts_per_domain: int = 1_000,
        partition: str | None = None,
        on_clock_jump: ClockJump = "warn",
    ) -> None:
        file: Path | str = IN_MEMORY
        if path is None or os.fspath(path) != IN_MEMORY:
            file = user_data_path("dynpin", appauthor=False) / "pins.sqlite" if path is None else Path(path).absolute()
            if partition is not None:
                file = _partition_file(file, partition)
        self.is_default = path is None and partition is None
        self.max_max_age = max_max_age
        self.max_hosts = max_hosts
        self.max_hosts_per_domain = max_hosts_per_domain
        super().__init__(file, clock=clock, on_clock_jump=on_clock_jump)

    @classmethod
    def private(cls, *, clock: Callable[[], float] = time.time, max_max_age: int = DEFAULT_MAX_MAX_AGE) -> Self:
        """A store in memory, which forgets everything when it is closed: what was noted leaves no trace (§5)."""
        return cls(IN_MEMORY, clock=clock, max_max_age=max_max_age)

    # -- reading ------------------------------------------------------------------------------------------------

    def known_host(self, host: str) -> KnownPinnedHost | None:
        """The entry that applies to a host now: its own, else the nearest superdomain's that covers it, or None.

        Raises:
            InvalidHost: for a name that cannot be made canonical.
            StoreError: where the file cannot be read.
        """
        name = canonical_host(host)
        now = self.now()
        return self._applicable(self._entries(name), name, now)

    def entry(self, host: str) -> KnownPinnedHost | None:
        """The host's own entry, alive or expired, or None: for a person who looks, not for Pin Validation.

        Raises:
            InvalidHost: for a name that cannot be made canonical.
            StoreError: where the file cannot be read.
        """
        name = canonical_host(host)
        return next((entry for entry in self._entries(name) if entry.host == name), None)

    def validate(self, host: str, chain: Sequence[Pin], *, certificates: Sequence[bytes] = ()) -> Validation:
        """Pin Validation of a validated chain, leaf first (RFC 7469 §2.6). A mismatch is returned, not raised.

        Args:
            host: the host that is connected to.
            chain: the pins of the chain.
            certificates: its certificates, DER; static entries may name exact ones.

        Raises:
            InvalidHost: for a name that cannot be made canonical.
            StoreError: where the file cannot be read.
        """
        name = canonical_host(host)
        known, now, _ = self.applies(name)
        validation = validate(name, known, chain, certificates=certificates, now=now)
        if known is not None and validation.ok:
            self.count_use(known.host, now)
        return validation

    def applies(self, name: str) -> tuple[KnownPinnedHost | None, float, int]:
        """What :meth:`known_host` gives for a canonical name, at which time, and of which :meth:`generation`.

        Raises:
            StoreError: where the file cannot be read.
        """
        # Before the look-up: a write in between must not be taken for one that the look-up has seen.
        generation, now = self.generation(), self.now()
        return self._applicable(self._entries(name), name, now), now, generation

    def hosts(self, *, include_expired: bool = False) -> list[KnownPinnedHost]:
        """Every Known Pinned Host by name, alive ones alone unless told otherwise."""
        now = self.now()
        with self.reading() as connection:
            return [entry for entry in select_all(connection) if include_expired or not entry.is_released(now)]

    def usage(self) -> dict[str, Usage]:
        """How often each host's pins have let a connection pass, by host; those never used are left out."""
        self.write_uses()
        with self.reading() as connection:
            return read_uses(connection)

    def __len__(self) -> int:
        with self.reading() as connection:
            return count_alive(connection, self.now())

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
            StoreError: where the file cannot be written, unless it is read-only: then the outcome is ``"ignored"``.
        """
        name = canonical_host(host)
        header = _first_header(value)
        now = self.now()
        generation = self.generation()  # before the look-up
        entries = self._entries(name)
        known = self._applicable(entries, name, now)
        noting = note(name, known, header, chain, now, max_max_age=self.max_max_age)
        if noting.outcome == "ignored":
            return noting
        if not _worth_writing(known, noting.known_host):
            self.settle()  # another process may have noted it a moment ago
            return noting
        if self.read_only:
            reason = f"{name} was not {noting.outcome}: the pin store {self.path} is read-only"
            logger.warning("%s", reason)
            return Noting("ignored", reason, "2.5")
        with self.writing() as connection:
            if self.generation() != generation:
                # Decided again under the write lock: another process, or thread, has written since.
                entries = select(connection, name)
                known = self._applicable(entries, name, now)
                noting = note(name, known, header, chain, now, max_max_age=self.max_max_age)
            if noting.known_host is not None:
                is_new = all(entry.host != name for entry in entries)
                if is_new and (full := self._full(connection, name, now)) is not None:
                    return full
                put(connection, noting.known_host, is_new=is_new)
            if noting.outcome == "removed":
                delete(connection, name)
        return noting

    def pin(
        self,
        host: str,
        pins: Iterable[Pin] = (),
        *,
        certificates: Iterable[bytes] = (),
        include_subdomains: bool = False,
        report_uri: str | None = None,
        expires_at: float | None = None,
        on_expiry: OnExpiry = "release",
    ) -> KnownPinnedHost:
        """Keep a static pin: preloaded, not learnt from a response (RFC 7469 §2.7). It replaces the host's entry.

        A static pin stands until it expires or is forgotten; headers neither change nor remove it.

        Args:
            host: the name to pin; an IP address cannot be.
            pins: the pins. A Backup Pin among them is what keeps a key change from locking you out.
            certificates: SHA-256 digests of exact certificates, any of which is as good as a pin. The next renewal
                breaks them, and a warning is logged: a pin survives a renewal that keeps the key.
            include_subdomains: whether every subdomain is covered too.
            report_uri: where violations are reported.
            expires_at: seconds since the epoch, UTC; None never expires.
            on_expiry: ``"release"`` the host when the pins have expired, as Android does; or ``"refuse"`` it.

        Raises:
            ValueError: for an IP address, or with neither a pin nor a certificate.
            InvalidHost: for a name that cannot be made canonical.
            StoreError: where the file cannot be written.
        """
        entry = static_entry(
            host,
            pins,
            certificates=certificates,
            include_subdomains=include_subdomains,
            report_uri=report_uri,
            noted_at=self.clock(),
            expires_at=expires_at,
            on_expiry=on_expiry,
        )
        with self.writing() as connection:
            put(connection, entry)
            override(connection, entry.host, False)
        return entry

    def preload(self, entries: Iterable[KnownPinnedHost], origin: str) -> int:
        """Have the store hold exactly these static pins of one origin: those that a program ships, at each start.

        They replace what was noted from headers. What the user pinned by hand stands, and what he has forgotten is
        not brought back (RFC 7469 §2.7). Entries of this origin that are not among them are removed. Nothing is
        written where nothing has changed.

        Returns:
            how many of them are in the store.

        Raises:
            StoreError: where the file cannot be written.
        """
        return preload(self, entries, origin)

    def merge(self, entries: Iterable[KnownPinnedHost]) -> list[KnownPinnedHost]:
        """Take in entries that a person imports: static ones as :meth:`pin` does, noted ones where they are newer.

        A noted entry gives way to a living static one, and to one that was noted later; its max-age is capped as
        that of a header is. The bounds on the number of hosts do not hold for what a person imports.

        Returns:
            the entries that were taken in.

        Raises:
            StoreError: where the file cannot be written.
        """
        return merge(self, entries)

    def forget(self, host: str) -> bool:
        """Remove a host's own entry, alive or expired; True if there was one that was alive (RFC 7469 §2.7).

        Raises:
            InvalidHost: for a name that cannot be made canonical.
            StoreError: where the file cannot be written.
        """
        name = canonical_host(host)
        now = self.clock()
        with self.writing() as connection:
            own = next((entry for entry in select(connection, name) if entry.host == name), None)
            delete(connection, name)
            if own is not None and own.origin is not None:
                override(connection, name, True)
        return own is not None and not own.is_released(now)

    def accept_clock(self) -> None:
        """Take the present time for right, after a jump that ``on_clock_jump="refuse"`` has refused."""
        with self.writing():
            self._seen.at = self.clock()

    def _full(self, connection: sqlite3.Connection, host: str, now: float) -> Noting | None:
        """The refusal of a host that is new to a store that holds its limit, or None.

        Firefox evicted by a score, so that a page which named a thousand hosts pushed the real pins out. Here no pin
        that is alive is ever evicted: what has expired makes room, and then it is the new host that is refused.
        """
        domain = registrable_domain(host)
        limits = {domain: self.max_hosts_per_domain, EVERYWHERE: self.max_hosts}
        hosts = counted(connection, *limits)
        for scope, limit in limits.items():
            if hosts[scope] >= limit:
                purge(connection, scope, now)
                hosts = counted(connection, *limits)
                if hosts[scope] >= limit:
                    where = f"under {scope}" if scope else "in all"
                    reason = f"{host} was not noted: the store holds its limit of {limit} hosts {where}"
                    return Noting("ignored", f"{reason}, and evicts none of them", "2.3.3")
        return None


def _partition_file(path: Path, partition: str) -> Path:
    # Any text may name a partition, so its hash names the file; the text is kept inside by nobody, on purpose.
    digest = hashlib.sha256(partition.encode()).hexdigest()[:32]
    return path.with_name(f"{path.stem}.{digest}{path.suffix}")


def _first_header(value: str | Sequence[str]) -> PublicKeyPins | InvalidHeader | None:
    # RFC 7469 §2.3.1: of several fields only the first is processed.
    first = value if isinstance(value, str) else next(iter(value), None)
    return None if first is None else _parsed(first)


# A site sends the same text with every response.
@lru_cache(maxsize=256)
def _parsed(value: str) -> PublicKeyPins | InvalidHeader:
    try:
        return PublicKeyPins.parse(value)
    except InvalidHeader as error:
        return error.with_traceback(None)


def _worth_writing(known: KnownPinnedHost | None, new: KnownPinnedHost | None) -> bool:
    """Whether the disk must change: always, but for an expiry that only moves on a little.

    A busy client does not write on every response, and what is on the disk never expires later than the truth.
    """
    if known is None or new is None or known.expires_at is None or new.expires_at is None:
        return True
    if replace(known, noted_at=new.noted_at, expires_at=new.expires_at) != new:
        return True
    moved = new.expires_at - known.expires_at
    return not 0 <= moved <= _WORTH_WRITING * (new.expires_at - new.noted_at)
