"""What the models of browsers have in common: dynpin's parse, note and validate, and on top of them a browser's rules.

A model is a way to read a header, a store that knows what the browser ignores besides, and an agent that connects.
Where a browser is lenient its text is rewritten as RFC 7469 would have it, so that no second parser is needed. A
directive that nobody knows must match the grammar here all the same, though browsers read past more than that; and
dynpin's own limits (8 KiB, 64 pins) hold.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Protocol

import httpx

from dynpin.clientstore import Peer, Reporter, peer_of
from dynpin.clientstore.responses import take_in
from dynpin.errors import InvalidHeader
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME, Directive, Malformed, PublicKeyPins, scan
from dynpin.hosts import KnownPinnedHost, canonical_host, superdomains
from dynpin.lab.agents.library import LibraryAgent, NotingStore
from dynpin.noting import Noting
from dynpin.pins import Pin

__all__ = ["BrowserAgent", "BrowserStore", "Reader", "loosely", "nearest"]

_HTTPS_PORT = 443
_QUOTED = r'"(?:\\.|[^"\\])*"'
_EQUALS_OR_QUOTED = re.compile(rf"{_QUOTED}|[\t ]*=[\t ]*")
_EQUALS_OR_ANY_QUOTED = re.compile(rf"{_QUOTED}|'[^']*'|[\t ]*=[\t ]*")


def loosely(value: str, *, single_quotes: bool = False) -> Iterator[tuple[Directive, str]]:
    """The directives of a value, each with its text, where white space around "=" is no fault.

    Args:
        value: the value of the field.
        single_quotes: whether 'single quotes' are as good as double ones; the texts have double ones.

    Raises:
        InvalidHeader: where the value is malformed all the same.
    """
    value = (_EQUALS_OR_ANY_QUOTED if single_quotes else _EQUALS_OR_QUOTED).sub(_mended, value)
    for found in scan(value):
        if isinstance(found, Malformed):
            raise InvalidHeader("syntax", found.message, found.position)
        yield found, value[found.position : found.end]


def _mended(found: re.Match[str]) -> str:
    text = found[0]
    if text.startswith('"'):
        return text
    if text.startswith("'"):
        escaped = text[1:-1].replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return "="


def nearest(entries: Iterable[KnownPinnedHost], host: str, now: float) -> KnownPinnedHost | None:
    """The entry that applies by the rule of Chromium and of wget2: that of the nearest name, or none.

    The RFC's :func:`~dynpin.hosts.applicable` goes on to a farther name. Here an entry without includeSubDomains hides
    a farther one with it, and what is below is pinned to nothing.
    """
    alive = {entry.host: entry for entry in entries if not entry.is_expired(now)}
    found = next((alive[name] for name in (host, *superdomains(host)) if name in alive), None)
    return found if found is not None and (found.host == host or found.include_subdomains) else None


class Reader(Protocol):
    """Parses a field as a browser does; InvalidHeader where the browser ignores it."""

    def __call__(self, value: str, *, report_only: bool = False) -> PublicKeyPins:
        """As :meth:`dynpin.PublicKeyPins.parse`."""
        ...


class BrowserStore(NotingStore):
    """A store that reads headers as a browser does.

    Attributes:
        read: parses a field.
    """

    read: ClassVar[Reader]

    def ignores(self, host: str, header: PublicKeyPins, chain: Sequence[Pin]) -> Noting | None:
        """Why this browser ignores what the RFC would act on, or None."""
        return None

    def note(self, host: str, value: str | Sequence[str], chain: Sequence[Pin]) -> Noting:
        """As :meth:`PinStore.note`, by this browser's rules."""
        # RFC 7469 §2.3.1: of several fields only the first is processed.
        first = value if isinstance(value, str) else next(iter(value), None)
        if first is None:
            return super().note(host, value, chain)
        try:
            header = self.read(first)
        except InvalidHeader as error:
            self.noting = Noting("ignored", f"the Public-Key-Pins header of {host} is malformed: {error}", "2.1")
            return self.noting
        self.noting = self.ignores(host, header, chain) or super().note(host, str(header), chain)
        return self.noting


class BrowserAgent(LibraryAgent):
    """A browser: no Pin Validation for a chain that ends in a root that its user installed (RFC 7469 §2.6)."""

    store: BrowserStore

    def connect(self, context: ssl.SSLContext) -> httpx.Client:
        """As :meth:`LibraryAgent.connect`."""
        return self.bypassing_client(context, self.reporter, self._on_response)

    @property
    def reporter(self) -> Reporter | None:
        """What takes violation reports; None for a browser that sends none."""
        return None

    def take_in(self, host: str, peer: Peer, response: httpx.Response) -> None:
        """Note what a response pins."""
        report_only: list[str] = []
        for field in response.headers.get_list(REPORT_ONLY_NAME)[:1]:
            try:
                report_only.append(str(self.store.read(field, report_only=True)))
            except InvalidHeader:
                continue
        take_in(self.store, host, peer, response.headers.get_list(ENFORCE_NAME), report_only, port=_HTTPS_PORT)

    def _on_response(self, response: httpx.Response) -> None:
        stream = response.extensions["network_stream"]
        peer = peer_of(stream.get_extra_info("socket"))
        if peer is not None:  # a report may go by http
            self.take_in(canonical_host(response.request.url.host), peer, response)
