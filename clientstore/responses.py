"""What every adapter does: the store it stands on, how it hardens contexts, and what becomes of a response.

An adapter finds the host of the URL, the header fields and the TLS connection of a response; the rest is here.
"""

from __future__ import annotations

import logging
import ssl
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from dynpin.clientstore.enforcement import Peer, PrivateRoots, Reporter
from dynpin.clientstore.reporting import ReportMode
from dynpin.clientstore.store import PinStore
from dynpin.clientstore.tls import enforce
from dynpin.errors import InvalidHeader, InvalidHost, PinValidationError, StoreError
from dynpin.header import PublicKeyPins
from dynpin.hosts import KnownPinnedHost, canonical_host
from dynpin.noting import Noting
from dynpin.report import build_report
from dynpin.validation import validate

__all__ = ["Harden", "hardener", "own_store", "take_in"]

logger = logging.getLogger("dynpin.clientstore")

_Context = TypeVar("_Context", bound=ssl.SSLContext)


class Harden(Protocol):
    """:func:`dynpin.clientstore.enforce` with the options of one client."""

    def __call__(self, context: _Context, /) -> _Context:
        """Harden the context, and return it."""
        ...


def hardener(
    store: PinStore,
    *,
    private_roots: PrivateRoots,
    public_roots: Iterable[bytes] | None,
    on_violation: Callable[[PinValidationError], None] | None,
    reporter: Reporter | ReportMode | None,
) -> Harden:
    """How a client hardens its contexts, each in the same way: it may make one for every connection."""
    return partial(
        enforce,
        store=store,
        private_roots=private_roots,
        # Once: of an iterator the second context would get no root, and so bypass every one.
        public_roots=None if public_roots is None else frozenset(public_roots),
        on_violation=on_violation,
        reporter=reporter,
    )


def own_store(store: PinStore | None, client: object) -> PinStore:
    """The store that a client was given; for None the user's own, which is closed when the client is gone."""
    if store is None:
        store = PinStore()
        weakref.finalize(client, store.close)
    return store


def take_in(
    store: PinStore,
    url_host: str,
    peer: Peer | None,
    fields: Sequence[str],
    report_only_fields: Sequence[str] = (),
    *,
    port: int | None = None,
) -> Noting:
    """Note the Public-Key-Pins of one https response, and evaluate its Public-Key-Pins-Report-Only.

    What goes wrong here never breaks the response, which is sound: it is logged, and the Noting says why.

    Args:
        store: the Known Pinned Hosts.
        url_host: the host of the URL that was asked for.
        peer: what the handshake of the connection proved; None where it was not enforced.
        fields: every Public-Key-Pins field of the response, in order.
        report_only_fields: every Public-Key-Pins-Report-Only field, in order.
        port: the port of the URL, for the report of a report-only policy that would have failed.
    """
    try:
        host = canonical_host(url_host)
    except InvalidHost as error:
        return Noting("ignored", str(error), "2.3.3")
    # Libraries let the name of TLS differ from the URL's; ssl and idna disagree on some names too. What TLS has
    # verified is its own name, so nothing can be said about another.
    if peer is None or peer.host != host:
        seen = "was not enforced" if peer is None else f"was verified as {peer.host}"
        return Noting("ignored", f"the TLS connection for {host} {seen}", "2.5")
    try:
        if report_only_fields:
            _evaluate(store, peer, report_only_fields[0], port)
        noting = store.note(host, fields, peer.pins)
    except StoreError as error:
        logger.warning("the pins of %s could not be noted: %s", host, error)
        return Noting("ignored", str(error), "2.5")
    if noting.outcome != "ignored" or fields:
        logger.debug("%s: %s", noting.outcome, noting.reason, extra={"host": host})
    return noting


def _evaluate(store: PinStore, peer: Peer, field: str, port: int | None) -> None:
    """RFC 7469 §2.3.2: a report-only policy is held against the connection it came on, reported, never cached."""
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
    peer.reporter.add(report, header.report_uri)
