"""The common work on a response in every adapter: note its Public-Key-Pins, evaluate its Public-Key-Pins-Report-Only.

An adapter finds the host of the URL, the header fields and the TLS connection of a response. This module does the rest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from dynpin.errors import InvalidHeader, InvalidHost, StoreError
from dynpin.header import PublicKeyPins
from dynpin.hosts import KnownPinnedHost, canonical_host
from dynpin.noting import Noting
from dynpin.pins import Pin
from dynpin.report import build_report
from dynpin.validation import validate

from .enforcement import Peer, peer_of
from .store import PinStore

__all__ = ["note_response", "note_response_async"]

logger = logging.getLogger("dynpin.clientstore")


class Notes(Protocol):
    """The object that the pins of a response are noted in; :class:`dynpin.clientstore.PinStore` is one."""

    @property
    def clock(self) -> Callable[[], float]:
        """Returns seconds since the epoch, UTC."""
        ...

    def note(self, host: str, value: Sequence[str], chain: Sequence[Pin], certificates: Sequence[bytes] = ()) -> Noting:
        """Process the Public-Key-Pins fields of one response."""
        ...


class RunInThread(Protocol):
    """Runs a function in a thread of its own: :func:`asyncio.to_thread`, or anyio's ``to_thread.run_sync``."""

    def __call__(self, function: Callable[[], Noting], /) -> Awaitable[Noting]:
        """The awaitable result of the function."""
        ...


def note_response(
    store: Notes,
    url_host: str,
    connection: object,
    fields: Sequence[str],
    report_only_fields: Sequence[str] = (),
    *,
    port: int | None = None,
) -> Noting:
    """Note the Public-Key-Pins of one https response, and evaluate its Public-Key-Pins-Report-Only.

    Call it only for the final response of an https request: never for a proxy's answer to CONNECT, for an informational
    response (103), or for an http:// URL that a proxy forwarded. A failure here never breaks the response: it is
    logged, and the Noting gives the reason.

    Args:
        store: the Known Pinned Hosts.
        url_host: the host of the requested URL.
        connection: the enforced TLS socket or object of the response; or the result of :func:`peer_of` for it, if it
            may be closed by now. For anything else the connection was not enforced, and nothing is noted.
        fields: all Public-Key-Pins fields of the response, in order, as received: never joined by a comma.
        report_only_fields: all Public-Key-Pins-Report-Only fields, in order.
        port: the port of the URL, for the report of a report-only policy that would have failed.

    Returns:
        the outcome with its reason (RFC 7469 §2.5).
    """
    peer = _peer_for(url_host, connection)
    if isinstance(peer, Noting):
        return peer
    host = peer.host
    try:
        noting = store.note(host, fields, peer.pins, peer.validated)
    except StoreError as error:
        noting = _failed(host, error)
    _finish(store, peer, noting, report_only_fields, port)
    return noting


async def note_response_async(
    store: PinStore,
    url_host: str,
    connection: object,
    fields: Sequence[str],
    report_only_fields: Sequence[str] = (),
    *,
    port: int | None = None,
    in_thread: RunInThread = asyncio.to_thread,
) -> Noting:
    """:func:`note_response` for an event loop: writes happen in a thread, and are awaited.

    Args:
        store: see :func:`note_response`, as for the five below.
        url_host: the host of the URL.
        connection: the TLS connection, or its Peer.
        fields: the Public-Key-Pins fields.
        report_only_fields: the Public-Key-Pins-Report-Only fields.
        port: the port of the URL.
        in_thread: runs a function in a thread; the default is asyncio's.
    """
    peer = _peer_for(url_host, connection)
    if isinstance(peer, Noting):
        return peer
    host = peer.host
    try:
        noting, must_write = store.preview(host, fields, peer.pins, peer.validated)
        if must_write:
            noting = await in_thread(lambda: store.note(host, fields, peer.pins, peer.validated))
    except StoreError as error:
        noting = _failed(host, error)
    _finish(store, peer, noting, report_only_fields, port, may_wait=False)
    return noting


def _peer_for(url_host: str, connection: object) -> Peer | Noting:
    """The peer, if the connection has proved the host of the URL; else the reason why nothing may be noted."""
    peer = connection if isinstance(connection, Peer) else peer_of(connection)
    try:
        host = canonical_host(url_host)
    except InvalidHost as error:
        return Noting("ignored", str(error), "2.3.3")
    # A library may use another name for TLS than the URL's, and ssl and idna disagree on some names. TLS has verified
    # only its own name, so this connection proves nothing about another one.
    if peer is None or peer.host != host:
        kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
        unknown = f"was not enforced: {kind} is not the ssl.SSLSocket or ssl.SSLObject of an enforced context"
        seen = unknown if peer is None else f"was verified as {peer.host}"
        return Noting("ignored", f"the TLS connection for {host} {seen}", "2.5")
    return peer


def _failed(host: str, error: StoreError) -> Noting:
    logger.warning("the pins of %s could not be noted: %s", host, error)
    return Noting("ignored", str(error), "2.5")


def _finish(
    store: Notes,
    peer: Peer,
    noting: Noting,
    report_only_fields: Sequence[str],
    port: int | None,
    *,
    may_wait: bool = True,
) -> None:
    logger.debug("%s: %s", noting.outcome, noting.reason, extra={"host": peer.host})
    if not report_only_fields:
        return
    try:
        _evaluate(store, peer, report_only_fields[0], port, may_wait=may_wait)
    except Exception:  # a reporter of the user's own may raise anything, and the response must not break
        logger.exception("the report-only policy of %s could not be evaluated", peer.host)


def _evaluate(store: Notes, peer: Peer, field: str, port: int | None, *, may_wait: bool) -> None:
    """Check a report-only policy against its own connection, report a failure, and store nothing (RFC 7469 §2.3.2)."""
    try:
        header = PublicKeyPins.parse(field, report_only=True)
    except InvalidHeader:
        return
    if header.report_uri is None or peer.reporter is None or not header.pins or not peer.pins:
        return
    now = store.clock()
    # It is used only at the time of receipt (§2.3.3), so it "expires" now, as in Chromium's reports.
    policy = KnownPinnedHost(peer.host, header.pins, header.include_subdomains, header.report_uri, now, now)
    if validate(peer.host, policy, peer.pins).ok:
        return
    report = build_report(
        host=peer.host, port=port, known_host=policy, served=peer.served(), validated=peer.validated, now=now
    )
    soon = None if may_wait else getattr(peer.reporter, "add_soon", None)
    (soon or peer.reporter.add)(report, header.report_uri)
