"""PinStore: the Known Pinned Hosts of a client (RFC 7469 §2.3.3)."""

from __future__ import annotations

import logging
import os
import sqlite3
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn, Self

from dynpin.header import PublicKeyPins
from dynpin.hosts import KnownPinnedHost, OnExpiry, applicable, canonical_host
from dynpin.noting import DEFAULT_MAX_MAX_AGE, Noting, note
from dynpin.pins import Pin
from dynpin.validation import Validation, validate

from .advice import store_error
from .bounds import Refusal, bounds_of, refusals
from .database import Database
from .last_seen import ClockJump, LastSeen
from .lists import Look, looks
from .looking import follow
from .memory import MemoryDatabase
from .numbers import MOST_SECONDS, checked_clock, whole_number
from .paths import IN_MEMORY, store_path
from .state import LookUp, State
from .static import merge, preload, static_entry
from .table import ALIVE, entry_of, host_and_superdomains, put, rows_by_host
from .transactions import forget_entry, note_header, own_entry
from .worth import first_header, worth_writing

__all__ = ["PinStore"]

logger = logging.getLogger("dynpin.clientstore")

_CACHED_NAMES = 4096


class PinStore:
    """The Known Pinned Hosts of a client, in one SQLite file that threads and processes can share.

    When :meth:`note` returns noted, updated or removed, the change is on the disk, except a move of the expiry by less
    than 1 % of max-age. The next look-up sees other processes' writes. A store can be used across :func:`os.fork`.

    Args:
        path: the file; None for ``$DYNPIN_STORE``, else ``pins.sqlite`` in the user's data folder. It is created with
            mode 0600. A symbolic link is followed once, here.
        clock: returns seconds since the epoch, UTC.
        max_max_age: the cap on max-age in seconds (RFC 7469 §2.3.3, §4.1).
        max_hosts: the most hosts that are noted. A full store refuses new hosts and keeps the old ones.
        max_hosts_per_domain: the most of them below one registrable domain. Below any other name it is a tenth. Half of
            each share is reserved for the hosts one label below, so a hostile host fills only its own share.
        own_domains: domains of your own, below which only `max_hosts` counts.
        partition: keeps these pins apart from all others, in a file of their own beside `path`. Pins of one partition
            reveal nothing in another, against the super-cookie of RFC 7469 §5. A browser would use the site in the
            address bar.
        on_clock_jump: ``"warn"``; or ``"refuse"`` to raise StoreError if the clock is 30 days past the last time seen
            and pins have expired by that, until a person accepts the time (``dynpin hosts check --accept-clock``).

    Attributes:
        path: the file, resolved; ``":memory:"`` for :meth:`private`.
        is_default: whether it is the user's own store.
        clock: the argument, with each time checked: one outside the years 1 to 9999 raises StoreError.
        database: the database behind the store, for the other parts of this package.

    Raises:
        StoreError: if the file cannot be opened; the message says how to recover.
        ValueError: for a limit that is not a whole number, or an option with another value.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        clock: Callable[[], float] = time.time,
        max_max_age: int = DEFAULT_MAX_MAX_AGE,
        max_hosts: int = 1_000_000,
        max_hosts_per_domain: int = 1_000,
        own_domains: Iterable[str] = (),
        partition: str | None = None,
        on_clock_jump: ClockJump = "warn",
    ) -> None:
        file = store_path(path, partition)
        self.path: Path | str = IN_MEMORY if file is None else file
        self.is_default = path is None and partition is None
        self.clock = checked_clock(clock)
        self.max_max_age = whole_number(max_max_age, "max_max_age", 1, MOST_SECONDS)
        self.on_clock_jump: ClockJump = on_clock_jump
        self._bounds = bounds_of(max_hosts, max_hosts_per_domain, own_domains)
        self.database = MemoryDatabase() if file is None else Database(file)
        try:
            self._last_seen = LastSeen(self.database, on_clock_jump)
            self._last_seen.look(self.clock(), wait=True)
            self.database.rest()  # so that a server can fork its workers after this in any way
        except BaseException:
            self.database.close()
            raise

    @classmethod
    def private(cls, *, clock: Callable[[], float] = time.time, max_max_age: int = DEFAULT_MAX_MAX_AGE) -> Self:
        """A store in memory that forgets everything when it is closed: what it noted leaves no trace (§5)."""
        return cls(IN_MEMORY, clock=clock, max_max_age=max_max_age)

    def close(self) -> None:
        """Close the file. Using the store afterwards raises StoreError."""
        self.database.close()

    def rest(self) -> None:
        """Close the file for now; the next use opens it again."""
        self.database.rest()

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"a PinStore cannot be pickled or copied: open PinStore({str(self.path)!r}) where you need it")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- reading ------------------------------------------------------------------------------------------------

    def known_host(self, host: str) -> KnownPinnedHost | None:
        """The entry that applies to a host now: its own, or the nearest superdomain's that covers it, or None.

        Raises:
            InvalidHost: for a name that has no canonical form.
            StoreError: if the file cannot be read.
        """
        return self.look_up(canonical_host(host)).known_host

    def look_up(self, name: str) -> LookUp:
        """The same for a canonical name, with the time and the state of the store for which it holds.

        Raises:
            StoreError: if the file cannot be read.
        """
        state, now = self.look()
        return LookUp(applicable(self._cached_entries(state, name), name, now), now, state)

    def _cached_entries(self, state: State, name: str) -> tuple[KnownPinnedHost, ...]:
        entries: tuple[KnownPinnedHost, ...] | None = state.cached.get(name)
        if entries is None:
            entries = self._entries(name)
            if len(state.cached) >= _CACHED_NAMES:
                state.cached.clear()
            # Read after the state, so it is at least as new.
            state.cached[name] = entries
        return entries

    def look(self) -> tuple[State, float]:
        """The state of the store and the time. A remembered decision is valid while they stay the same.

        Raises:
            StoreError: if the file cannot be read; or if the clock has jumped and ``on_clock_jump`` is ``"refuse"``.
        """
        state = self.database.state()
        self._last_seen.look(now := self.clock())
        return state, now

    def validate(self, host: str, chain: Sequence[Pin], certificates: Sequence[bytes] = ()) -> Validation:
        """Pin Validation of a validated chain, leaf first (RFC 7469 §2.6). A mismatch is returned, not raised.

        Args:
            host: the host of the connection.
            chain: the pins of the chain.
            certificates: its certificates, DER; static entries may name exact ones.

        Raises:
            InvalidHost: for a name that has no canonical form.
            StoreError: if the file cannot be read.
        """
        name = canonical_host(host)
        known, now, _ = self.look_up(name)
        return validate(name, known, chain, certificates=certificates, now=now)

    def entry(self, host: str) -> KnownPinnedHost | None:
        """The host's own entry, alive or expired, or None; for a person to read. Raises as :meth:`known_host`."""
        return own_entry(self._entries(name := canonical_host(host)), name)

    def hosts(self, *, include_expired: bool = False) -> list[KnownPinnedHost]:
        """All Known Pinned Hosts, sorted by name; expired ones only if `include_expired`. Raises StoreError."""
        return list(self.each(include_expired=include_expired))

    def each(self, *, include_expired: bool = False) -> Iterator[KnownPinnedHost]:
        """:meth:`hosts`, read a thousand at a time: for a store that is too large for memory."""
        now = self.clock()
        try:
            for entry in map(entry_of, rows_by_host(self.database.select)):
                if include_expired or not entry.is_released(now):
                    yield entry
        except sqlite3.Error as error:
            raise store_error(self.database.path, error) from None

    def refusals(self) -> list[Refusal]:
        """The limits because of which hosts were not noted, the newest first."""
        return refusals(self.database.select)

    def __len__(self) -> int:
        ((count,),) = self.database.select(f"SELECT count(*) FROM hosts WHERE {ALIVE}", (self.clock(),))  # noqa: S608
        return int(count)

    def __bool__(self) -> bool:
        return True  # for an empty store too: `store or PinStore()` must not replace it

    @property
    def read_only(self) -> bool:
        """Whether the file cannot be written. Then nothing is noted."""
        return self.database.read_only

    # -- writing ------------------------------------------------------------------------------------------------

    def note(
        self, host: str, value: str | Sequence[str], chain: Sequence[Pin], certificates: Sequence[bytes] = ()
    ) -> Noting:
        """Process the Public-Key-Pins of one response. The result is on the disk before this returns.

        Args:
            host: the host that responded, as TLS named it.
            value: the header field value, or all field values of the response. Only the first one counts
                (RFC 7469 §2.3.1). Do not join values by a comma: the result is malformed.
            chain: the pins of the validated chain, leaf first; empty if TLS had errors.
            certificates: the certificates of that chain, DER; a static entry may name exact ones.

        Returns:
            the outcome with its reason; a malformed or invalid header is ``"ignored"`` and changes nothing.

        Raises:
            InvalidHost: for a name that has no canonical form.
            StoreError: if the file cannot be written, unless it is read-only: then the outcome is ``"ignored"``.
        """
        noting, must_write = self.preview(host, value, chain, certificates)
        if not must_write:
            return noting
        name = canonical_host(host)
        if self.read_only:
            reason = f"{name} was not {noting.outcome}: the pin store {self.path} is read-only"
            logger.warning("%s", reason)
            return Noting("ignored", reason, "2.5")
        header = first_header(value)
        noting = self.database.write(
            lambda connection: note_header(
                *(connection, name, header, chain),
                now=self.clock(),
                certificates=certificates,
                max_max_age=self.max_max_age,
                bounds=self._bounds,
            )
        )
        if noting.section == "2.3.3":  # a limit was reached; not logged inside the transaction
            logger.warning("%s", noting.reason)
        if noting.known_host is not None and isinstance(header, PublicKeyPins) and header.recovery_error is not None:
            logger.warning("%s is pinned without recovery: %s", name, header.recovery_error.message)
        return noting

    def preview(
        self, host: str, value: str | Sequence[str], chain: Sequence[Pin], certificates: Sequence[bytes] = ()
    ) -> tuple[Noting, bool]:
        """The result that :meth:`note` would have, and whether it must write. Raises as :meth:`known_host`."""
        name, header = canonical_host(host), first_header(value)
        if header is None:  # the usual case: the host's entry is not needed
            self._last_seen.look(now := self.clock())  # check the clock even so: a connection may last for months
            return note(name, None, None, chain, now), False
        state, now = self.look()
        entries, cap = self._cached_entries(state, name), self.max_max_age
        known, former = applicable(entries, name, now), own_entry(entries, name)
        noting = note(name, known, header, chain, now, certificates=certificates, max_max_age=cap, former=former)
        return noting, noting.outcome != "ignored" and worth_writing(known, noting.known_host)

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
        """Add a static pin: preloaded, not learnt from a response (RFC 7469 §2.7). It replaces the host's entry.

        A static pin stays until it expires or is forgotten. Headers neither change nor remove it.

        Args:
            host: the name to pin; not an IP address, and not a wildcard.
            pins: the pins. Include a Backup Pin, so that a key change does not lock you out.
            certificates: SHA-256 digests of exact certificates; each counts like a pin. The next renewal breaks them,
                so a warning is logged. A pin survives a renewal that keeps the key.
            include_subdomains: whether every subdomain is covered too.
            report_uri: where violations are reported.
            expires_at: seconds since the epoch, UTC; None never expires.
            on_expiry: ``"release"`` the host when the pins have expired, as Android does; or ``"refuse"`` it.

        Raises:
            ValueError: for an IP address or a wildcard, without a pin, or for a time outside the years 1 to 9999.
            InvalidHost: for a name that has no canonical form.
            StoreError: if the file cannot be written.
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

        def job(connection: sqlite3.Connection) -> None:
            put(connection, [entry])
            connection.execute("DELETE FROM overrides WHERE host = ?", (entry.host,))

        self.database.write(job)
        return entry

    def preload(self, entries: Iterable[KnownPinnedHost], origin: str) -> int:
        """Make the store hold exactly these static pins of one origin: those that a program ships, at each start.

        They replace what was noted from headers. They do not replace what the user pinned by hand, and do not bring
        back what the user has forgotten (RFC 7469 §2.7). Other entries of this origin are removed. If nothing has
        changed, nothing is written.

        Returns:
            how many of them are in the store.

        Raises:
            StoreError: if the file cannot be written.
        """
        return preload(self.database, entries, origin)

    def merge(self, entries: Iterable[KnownPinnedHost], *, progress: Callable[[int], None] | None = None) -> int:
        """Import entries: static ones as :meth:`pin` does, noted ones if they are newer than the store's.

        A noted entry does not replace a living static one, or one that was noted later. Its max-age is capped like that
        of a header. The limits on the number of hosts do not apply to an import. Nothing is written before all entries
        were read. Then they are written in batches, so that other processes can write in between. An import that was
        stopped can be run again.

        Args:
            entries: the entries, read once.
            progress: called with the number of entries merged so far.

        Returns:
            how many entries were imported.

        Raises:
            StoreError: if the file cannot be written.
        """
        return merge(self.database, entries, now=self.clock(), max_max_age=self.max_max_age, progress=progress)

    def forget(self, host: str) -> bool:
        """Remove a host's own entry, alive, expired or damaged; True if it was alive (RFC 7469 §2.7).

        Raises:
            InvalidHost: for a name that has no canonical form.
            StoreError: if the file cannot be written.
        """
        return self.database.write(partial(forget_entry, host=canonical_host(host), now=self.clock()))

    def follow(self, uri: str, root: bytes | str | os.PathLike[str], *, context: ssl.SSLContext | None = None) -> Look:
        """Use the pins of a signed list before the first visit. It is fetched now if it is due, and then daily.

        Args:
            uri: the folder where the list is published, or the file.
            root: version 1 of its ``root.json``, as bytes or a file; your program ships it. For a list of ssl-pinning,
                which is one file: the RSA public key that verifies it, in PEM, DER or base64.
            context: its roots verify an https URI; None for the system's.

        Returns:
            the list; ``.outcome`` is the result. After a failure it is tried again, and the pins stay as they were.

        Raises:
            InvalidHeader: for an invalid URI.
            RecoveryError: for a key that cannot sign a list.
            StoreError: if the store's file cannot be written.
        """
        data = root if isinstance(root, bytes) else Path(root).read_bytes()
        return follow(self.database, uri, data, self.clock, context=context)

    def looks(self) -> list[Look]:
        """The signed lists that were asked for, with their outcomes. Raises StoreError."""
        return looks(self.database.select)

    def accept_clock(self) -> None:
        """Accept the present time, after a jump that ``on_clock_jump="refuse"`` has refused."""
        self._last_seen.accept(self.clock())

    def _entries(self, name: str) -> tuple[KnownPinnedHost, ...]:
        rows = self.database.select(*host_and_superdomains(name))
        try:
            return tuple(map(entry_of, rows))
        except sqlite3.Error as error:
            raise store_error(self.database.path, error) from None
