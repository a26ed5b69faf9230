"""http.client and urllib.request: the standard library's connection and handler, noting and enforcing."""

from __future__ import annotations

import http.client
import ssl
import urllib.request
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME

from .enforcement import Peer, peer_of, request_site
from .options import Lease, hardener, split_options
from .responses import note_response
from .store import PinStore

__all__ = ["PinnedHTTPSConnection", "PinnedHTTPSHandler"]


class PinnedHTTPSConnection(http.client.HTTPSConnection):
    """An :class:`http.client.HTTPSConnection` that notes what responses pin and refuses any other key before a byte.

    A refusal is the :class:`~dynpin.PinValidationError` itself.

    Args:
        host: the host to connect to.
        port: its port; None for 443, or for what stands in `host`.
        store: the Known Pinned Hosts; None for the user's own store.
        context: a context of your own, which is hardened; None for :func:`ssl.create_default_context`.
        options: everything else that :class:`http.client.HTTPSConnection` takes.
    """

    # Named so that no private name of the base class is hit.
    _pin_peer: Peer | None = None
    _pin_tunnel: tuple[str, int] | None = None

    def __init__(
        self,
        host: str,
        port: int | None = None,
        *,
        store: PinStore | None = None,
        context: ssl.SSLContext | None = None,
        **options: Any,  # noqa: ANN401 - PinOptions, and the library's own
    ) -> None:
        self._pin_lease = Lease(store, self)
        self.pin_store = self._pin_lease.store
        harden = hardener(self.pin_store, split_options(options))
        super().__init__(
            host, port, context=harden(ssl.create_default_context() if context is None else context), **options
        )

    def set_tunnel(self, host: str, port: int | None = None, headers: Mapping[str, str] | None = None) -> None:
        """As http.client's: behind a proxy the site is the tunnel's end."""
        super().set_tunnel(host, port, dict(headers or {}))
        parts = urlsplit(f"//{host}")
        self._pin_tunnel = parts.hostname or host, port or parts.port or http.client.HTTPS_PORT

    def connect(self) -> None:
        """As http.client's; a report of what fails carries the port of the site, also behind a proxy."""
        self._pin_peer = None
        token = request_site.set(self._pin_site())
        try:
            super().connect()
        finally:
            request_site.reset(token)
        # Kept here: with `Connection: close` the socket is gone when the response is read.
        self._pin_peer = peer_of(self.sock)

    def getresponse(self) -> http.client.HTTPResponse:
        """As http.client's, and the response's pins are noted."""
        response = super().getresponse()
        host, port = self._pin_site()
        note_response(
            self.pin_store,
            host,
            self._pin_peer,
            response.headers.get_all(ENFORCE_NAME, []),
            response.headers.get_all(REPORT_ONLY_NAME, []),
            port=port,
        )
        return response

    def _pin_site(self) -> tuple[str, int]:
        return self._pin_tunnel or (self.host, self.port)


class PinnedHTTPSHandler(urllib.request.HTTPSHandler):
    """A handler for ``urllib.request.build_opener(PinnedHTTPSHandler(store))``, whose opener notes and enforces.

    A refusal is a :class:`urllib.error.URLError` with the :class:`~dynpin.PinValidationError` as its ``reason``.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        context: a context of your own, which is hardened; None for :func:`ssl.create_default_context`.
    """

    def __init__(
        self,
        store: PinStore | None = None,
        *,
        context: ssl.SSLContext | None = None,
        **options: Any,  # noqa: ANN401 - PinOptions, and the library's own
    ) -> None:
        self._pin_lease = Lease(store, self)
        self.pin_store = self._pin_lease.store
        pins = split_options(options)
        if pins.get("public_roots") is not None:
            pins["public_roots"] = frozenset(pins["public_roots"] or ())  # once, since each connection looks at them
        self.pin_context = ssl.create_default_context() if context is None else context
        self._pin_connection = partial(
            PinnedHTTPSConnection,
            store=self.pin_store,
            context=self.pin_context,
            **pins,
        )
        super().__init__(context=self.pin_context)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """As urllib's, over connections that note and enforce."""
        return self.do_open(self._pin_connection, req)
