"""The common part of the browser models: dynpin's parse, note and validate, with a browser's rules on top.

A model has three parts: a way to read a header, a store with the browser's own rules for ignoring headers, and an
agent that connects. If a browser is lenient, the model rewrites the text into the form of RFC 7469. So it needs no
second parser. Two things are stricter than in browsers: an unknown directive must match the grammar, and dynpin's own
limits (8 KiB, 64 pins) apply. :mod:`dynpin.lab.claims` has the sources of each model. Comments name the browser's
functions.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import re
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Protocol, Self, TypeVar

from cryptography import x509

from dynpin.clientstore import Peer, Reporter, note_response
from dynpin.clientstore.enforcement import Enforcement, guard
from dynpin.clientstore.store import LookUp, State
from dynpin.errors import InvalidHeader
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME, Directive, Malformed, PublicKeyPins, scan
from dynpin.hosts import KnownPinnedHost, applicable, canonical_host, superdomains
from dynpin.lab.agents.library import HTTPS_PORT, Fields, LibraryAgent
from dynpin.lab.network import loopback_names
from dynpin.noting import Noting, note
from dynpin.pins import Pin
from dynpin.validation import validate

__all__ = ["BrowserAgent", "BrowserStore", "Reader", "around", "loosely", "nearest"]

_QUOTED = r'"(?:\\.|[^"\\])*"'
_EQUALS_OR_QUOTED = re.compile(rf"{_QUOTED}|[\t ]*=[\t ]*")
_EQUALS_OR_ANY_QUOTED = re.compile(rf"{_QUOTED}|'[^']*'|[\t ]*=[\t ]*")


def loosely(value: str, *, single_quotes: bool = False) -> Iterator[tuple[Directive, str]]:
    """The directives of a value, each with its text. White space around "=" is allowed.

    Args:
        value: the value of the field.
        single_quotes: whether 'single quotes' are allowed too; the returned texts have double quotes.

    Raises:
        InvalidHeader: if the value is malformed in another way.
    """
    value = (_EQUALS_OR_ANY_QUOTED if single_quotes else _EQUALS_OR_QUOTED).sub(_as_quoted, value)
    for found in scan(value):
        if isinstance(found, Malformed):
            raise InvalidHeader("syntax", found.message, found.position)
        yield found, value[found.position : found.end]


def _as_quoted(found: re.Match[str]) -> str:
    text = found[0]
    if text.startswith('"'):
        return text
    if text.startswith("'"):
        escaped = text[1:-1].replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return "="


def nearest(entries: Iterable[KnownPinnedHost], host: str, now: float) -> KnownPinnedHost | None:
    """The entry of the nearest name, or None.

    This is the rule of Chromium (GetDynamicPKPState) and of wget2 (wget_hpkp_db_check_pubkey). The RFC's
    :func:`~dynpin.hosts.applicable` goes on to farther names. Here an entry without includeSubDomains hides a farther
    entry that has it, and names below are not pinned.
    """
    alive = {entry.host: entry for entry in entries if not entry.is_expired(now)}
    found = next((alive[name] for name in (host, *superdomains(host)) if name in alive), None)
    return found if found is not None and (found.host == host or found.include_subdomains) else None


def around(entries: Mapping[str, KnownPinnedHost], name: str) -> list[KnownPinnedHost]:
    """The entries of a canonical host and of its superdomains, the nearest first."""
    return [entries[each] for each in (name, *superdomains(name)) if each in entries]


class Reader(Protocol):
    """Parses a field as a browser does; raises InvalidHeader if the browser ignores it."""

    def __call__(self, value: str, *, report_only: bool = False) -> PublicKeyPins:
        """Like :meth:`dynpin.PublicKeyPins.parse`."""
        ...


class BrowserStore(ABC):
    """A browser's memory for pins, with its way to read headers. It has the methods of a store for guards and agents.

    Args:
        clock: returns seconds since the epoch, UTC.

    Attributes:
        read: parses a field.
        static_lapses: how long after the build the built-in pins are enforced, in seconds.
        entries: the noted entries by host, living and expired.
        built_in: the entries that came with the browser, by host. No header changes them.
        path: the place of the pins, for errors.
        is_default: False, since this is not the user's own store.
    """

    read: ClassVar[Reader]
    static_lapses: ClassVar[float]
    path = "the browser's memory"
    is_default = False

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.entries: dict[str, KnownPinnedHost] = {}
        self.built_in: dict[str, KnownPinnedHost] = {}

    @abstractmethod
    def applies(self, name: str, now: float) -> KnownPinnedHost | None:
        """The entry that applies to a canonical host, noted or built in."""

    def noted(self, name: str, now: float) -> KnownPinnedHost | None:
        """The noted entry that applies to a canonical host. A header of the host may change it."""
        return applicable(around(self.entries, name), name, now)

    def ignores(self, name: str, header: PublicKeyPins, chain: Sequence[Pin]) -> Noting | None:
        """Why this browser ignores a header that the RFC would process, or None."""
        return None

    def look(self) -> tuple[State, float]:
        """Like :meth:`PinStore.look`, but always with a new state: each handshake is looked up."""
        return State(), self.clock()

    def look_up(self, name: str) -> LookUp:
        """Like :meth:`PinStore.look_up`, for a handshake."""
        state, now = self.look()
        return LookUp(self.applies(name, now), now, state)

    def known_host(self, host: str) -> KnownPinnedHost | None:
        """Like :meth:`PinStore.known_host`."""
        return self.applies(canonical_host(host), self.clock())

    def hosts(self) -> list[KnownPinnedHost]:
        """Like :meth:`PinStore.hosts`."""
        now = self.clock()
        noted = {host: each for host, each in self.entries.items() if not each.is_expired(now)}
        built_in = {host: each for host, each in self.built_in.items() if not each.is_expired(now)}
        return [each for _, each in sorted((built_in | noted).items())]

    def note(
        self, host: str, value: str | Sequence[str], chain: Sequence[Pin], certificates: Sequence[bytes] = ()
    ) -> Noting:
        """Like :meth:`PinStore.note`, with this browser's rules."""
        name, now = canonical_host(host), self.clock()
        # RFC 7469 §2.3.1: of several fields only the first is processed.
        first = value if isinstance(value, str) else next(iter(value), None)
        header: PublicKeyPins | InvalidHeader | None = None
        if first is not None:
            try:
                header = self.read(first)
            except InvalidHeader as error:
                header = error
        if isinstance(header, PublicKeyPins):
            ignored = self.ignores(name, header, chain)
            if ignored is not None:
                return ignored
        noting = note(name, self.noted(name, now), header, chain, now)
        if noting.outcome == "removed":
            del self.entries[name]
        elif noting.known_host is not None:
            self.entries[name] = noting.known_host
        return noting

    def pin(self, host: str, pins: Sequence[Pin], *, expires_at: float | None = None) -> None:
        """Add built-in pins, from a build of today. They lapse with the build, or at `expires_at` if earlier."""
        name, now = canonical_host(host), self.clock()
        until = min(now + self.static_lapses, expires_at or math.inf)
        self.built_in[name] = KnownPinnedHost(name, tuple(pins), False, None, now, until, "static")

    def forget(self, host: str) -> bool:
        """Like :meth:`PinStore.forget`."""
        entry = self.entries.pop(canonical_host(host), None)
        return entry is not None and not entry.is_expired(self.clock())

    @abstractmethod
    def close(self) -> None:
        """End normally."""

    def crash(self) -> None:
        """End without saving."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


_Store = TypeVar("_Store", bound=BrowserStore)


class BrowserAgent(LibraryAgent[_Store]):
    """A browser. It skips Pin Validation for a chain that ends in a root of its user (RFC 7469 §2.6).

    Chromium: CheckPinsAndMaybeSendReport; Firefox: NSSCertDBTrustDomain::IsChainValid.
    """

    @property
    def reporter(self) -> Reporter | None:
        """The object that takes violation reports; None for a browser that sends none."""
        return None

    def harden(self, context: ssl.SSLContext) -> None:
        """Use dynpin's own guards, with this browser's memory behind them."""
        public = frozenset(self.machine.public_roots)
        guard(context, Enforcement(self.store, private_roots="bypass", public_roots=public, reporter=self.reporter))

    def note(self, host: str, peer: Peer, fields: Fields) -> Noting:
        """Like :meth:`LibraryAgent.note`."""
        report_only: list[str] = []
        for field in fields(REPORT_ONLY_NAME)[:1]:
            try:
                report_only.append(str(self.store.read(field, report_only=True)))
            except InvalidHeader:
                continue
        return note_response(self.store, host, peer, fields(ENFORCE_NAME), report_only, port=HTTPS_PORT)

    def load(self, hosts: Sequence[str]) -> None:
        """Like :meth:`UserAgent.load`. Names of one server and one certificate share a connection, as with HTTP/2.

        RFC 7540 §9.1.1. A name joins only if its own pins allow the chain. Chromium: SpdySession::CanPool; Firefox:
        nsNSSSocketInfo::IsAcceptableForHost.
        """
        self.client()
        with loopback_names(self.machine.network), contextlib.ExitStack() as open_:
            shared: tuple[http.client.HTTPSConnection, Peer, int] | None = None
            for host in hosts:
                port = self.machine.network[host]
                if shared is not None and shared[2] == port and self._may_join(shared[1], host):
                    connection, joined = shared[0], replace(shared[1], host=canonical_host(host))
                else:
                    connection, joined = open_.enter_context(contextlib.closing(self._connection(host))), None
                peer = self._get(connection, host, joined)
                shared = None if peer is None else (connection, peer, port)

    def _may_join(self, peer: Peer, host: str) -> bool:
        leaf = x509.load_der_x509_certificate(peer.validated[0])
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        covered = {host, f"*.{host.partition('.')[2]}"} & set(names.get_values_for_type(x509.DNSName))
        known = self.store.look_up(canonical_host(host)).known_host if self.machine.pins else None
        return bool(covered) and validate(host, known, peer.pins).ok

    def restart(self, *, crashed: bool = False) -> None:
        """Like :meth:`UserAgent.restart`. The built-in pins come with the browser again."""
        if crashed:
            self.store.crash()
        built_in = self.store.built_in
        super().restart(crashed=crashed)
        self.store.built_in = built_in
