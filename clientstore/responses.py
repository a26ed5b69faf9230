"""What every adapter does with a response: note its Public-Key-Pins, evaluate its Public-Key-Pins-Report-Only.

An adapter finds the host of the URL, the header fields and the TLS connection of a response; the rest is here.
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
    """What the pins of a response are noted in; :class:`dynpin.clientstore.PinStore` is one."""

    @property
    def clock(self) -> Callable[[], float]:
        """Gives seconds since the epoch, UTC."""
        ...

    def note(self, host: str, value: Sequence[str], chain: Sequence[Pin], certificates: Sequence[bytes] = ()) -> Noting:
        """Take in the Public-Key-Pins fields of one response."""
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

    Call it for the final response of an https request alone: never for what a proxy said to CONNECT, for an
    informational response (103), or for an http:// URL that a proxy forwarded. What goes wrong here never breaks the
    response, which is sound: it is logged, and the Noting says why.

    Args:
        store: the Known Pinned Hosts.
        url_host: the host of the URL that was asked for.
        connection: the enforced TLS socket or object that the response came over; or what :func:`peer_of` gave for it,
            where it is closed by now. Anything else means that the connection was not enforced: nothing is noted.
        fields: every Public-Key-Pins field of the response, in order, as they came: never joined by a comma.
        report_only_fields: every Public-Key-Pins-Report-Only field, in order.
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
    """:func:`note_response` for an event loop: what must be written is written in a thread, and awaited.

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
    """What the connection has proved about the host of the URL; or why nothing may be noted."""
    peer = connection if isinstance(connection, Peer) else peer_of(connection)
    try:
        host = canonical_host(url_host)
    except InvalidHost as error:
        return Noting("ignored", str(error), "2.3.3")
    # Libraries let the name of TLS differ from the URL's; ssl and idna disagree on some names too. TLS has verified
    # its own name, so nothing can be said about another.
    if peer is None or peer.host != host:
        seen = "was not enforced" if peer is None else f"was verified as {peer.host}"
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
    except Exception:  # a reporter of the user's own may raise anything, and the response is sound
        logger.exception("the report-only policy of %s could not be evaluated", peer.host)


def _evaluate(store: Notes, peer: Peer, field: str, port: int | None, *, may_wait: bool) -> None:
    """RFC 7469 §2.3.2: a report-only policy is checked against the connection it came on, reported, never cached."""
    try:
        header = PublicKeyPins.parse(field, report_only=True)
    except InvalidHeader:
        return
    if header.report_uri is None or peer.reporter is None or not header.pins or not peer.pins:
        return
    now = store.clock()
    # Useful at the time of receipt only (§2.3.3), so it "expires" now, as Chromium's reports said too.
    policy = KnownPinnedHost(peer.host, header.pins, header.include_subdomains, header.report_uri, now, now)
    if validate(peer.host, policy, peer.pins).ok:
        return
    report = build_report(
        host=peer.host, port=port, known_host=policy, served=peer.served(), validated=peer.validated, now=now
    )
    soon = None if may_wait else getattr(peer.reporter, "add_soon", None)
    (soon or peer.reporter.add)(report, header.report_uri)
