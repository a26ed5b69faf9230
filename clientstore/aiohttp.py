"""aiohttp: a connector that enforces and responses that note, WebSockets included, on asyncio and on uvloop."""

from __future__ import annotations

import ssl
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import aiohttp

from dynpin.errors import PinValidationError, UnenforceableContext
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME

from .enforcement import Enforcement, Handshake, PrivateRoots, Reporter, peer_of, request_site
from .options import Lease, hardener
from .reports import ReportMode
from .responses import note_response_async
from .store import PinStore

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

__all__ = ["PinnedConnector", "noting_response_class", "pinned_session"]

_HTTPS_PORT = 443


class PinnedConnector(aiohttp.TCPConnector):
    """A :class:`aiohttp.TCPConnector` that refuses, before a byte is sent, any key but the pinned ones.

    What a request says by ``ssl=`` cannot escape it: a context is hardened too; ``ssl=False`` and
    :class:`aiohttp.Fingerprint`, under which aiohttp verifies nothing, are refused for Known Pinned Hosts.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        ssl: a context of your own, which is hardened; None for :func:`ssl.create_default_context`.
        private_roots: see :func:`dynpin.clientstore.enforce`, as for the three below.
        public_roots: the public roots of ``private_roots="bypass"``, DER.
        on_violation: called with each error before it is raised.
        reporter: what becomes of violation reports.
        options: everything else that :class:`aiohttp.TCPConnector` takes.
    """

    def __init__(
        self,
        store: PinStore | None = None,
        *,
        ssl: ssl.SSLContext | None = None,
        private_roots: PrivateRoots = "enforce",
        public_roots: Iterable[bytes] | None = None,
        on_violation: Callable[[PinValidationError], None] | None = None,
        reporter: Reporter | ReportMode | None = "all",
        **options: Any,  # noqa: ANN401 - those of TCPConnector
    ) -> None:
        self._pin_lease = Lease(store, self)
        self.pin_store = self._pin_lease.store
        self._pin_harden = hardener(
            self.pin_store,
            {
                "private_roots": private_roots,
                "public_roots": public_roots,
                "on_violation": on_violation,
                "reporter": reporter,
            },
        )
        self._pin_enforced: weakref.WeakSet[object] = weakref.WeakSet()
        context = _default_context() if ssl is None else ssl
        self._pin_enforce(context)
        self._pin_unverified = Enforcement(self.pin_store, on_violation=on_violation)
        super().__init__(ssl=context, **options)  # pyright: ignore[reportUnknownMemberType] - a socket address of any kind

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """As aiohttp's, held against the pins; a report of what fails carries the port of the request."""
        if isinstance(req.ssl, ssl.SSLContext):
            self._pin_enforce(req.ssl)
        elif req.is_ssl() and req.ssl is not True:
            self._pin_refuse_unverified(req)
        token = request_site.set((req.host, req.port or _HTTPS_PORT))
        try:
            return await super().connect(req, traces, timeout)
        finally:
            request_site.reset(token)

    def _pin_enforce(self, context: ssl.SSLContext) -> None:
        if context not in self._pin_enforced:
            self._pin_harden(context)
            self._pin_enforced.add(context)

    def _pin_refuse_unverified(self, req: aiohttp.ClientRequest) -> None:
        # aiohttp uses one unverified context for the whole process, which is not ours to harden.
        try:
            name = req.server_hostname or req.host
            self._pin_unverified.check(
                Handshake(
                    asked=name,
                    name=name,
                    strict=False,
                    chain=[],
                    resumed=False,
                    earlier=None,
                    served=tuple,
                    may_wait=False,
                )
            )
        except PinValidationError as error:
            raise aiohttp.ClientConnectorCertificateError(req.connection_key, error) from error


class _NotingResponse(aiohttp.ClientResponse):
    """Notes when its head has come: the connection of a response with a small body is gone soon after."""

    pin_store: PinStore

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """As aiohttp's, and the response's pins are noted."""
        transport = connection.transport
        peer = peer_of(None if transport is None else transport.get_extra_info("ssl_object"))
        response = await super().start(connection)
        # What a proxy says to CONNECT is no word of the site.
        if self.url.scheme in ("https", "wss") and self.method != "CONNECT":
            await note_response_async(
                self.pin_store,
                self.url.raw_host or "",
                peer,
                self.headers.getall(ENFORCE_NAME, []),
                self.headers.getall(REPORT_ONLY_NAME, []),
                port=self.url.port,
            )
        return response


def noting_response_class(
    store: PinStore, base: type[aiohttp.ClientResponse] = aiohttp.ClientResponse
) -> type[aiohttp.ClientResponse]:
    """A ``response_class`` for a session of your own, whose responses are noted in `store`."""
    return type(f"Noting{base.__name__}", (_NotingResponse, base), {"pin_store": store})


def pinned_session(
    store: PinStore | None = None,
    *,
    ssl: ssl.SSLContext | None = None,
    private_roots: PrivateRoots = "enforce",
    public_roots: Iterable[bytes] | None = None,
    on_violation: Callable[[PinValidationError], None] | None = None,
    reporter: Reporter | ReportMode | None = "all",
    connector: aiohttp.BaseConnector | None = None,
    response_class: type[aiohttp.ClientResponse] = aiohttp.ClientResponse,
    **options: Any,  # noqa: ANN401 - those of ClientSession
) -> aiohttp.ClientSession:
    """A :class:`aiohttp.ClientSession` that notes what responses pin and refuses any other key before a byte is sent.

    A refusal is an :class:`aiohttp.ClientConnectorCertificateError`; :func:`dynpin.clientstore.pin_violation` finds
    the :class:`~dynpin.PinValidationError` in it. (A function, since aiohttp discourages subclasses of its session.)

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        ssl: a context of your own, which is hardened; None for :func:`ssl.create_default_context`.
        private_roots: see :func:`dynpin.clientstore.enforce`, as for the three below.
        public_roots: the public roots of ``private_roots="bypass"``, DER.
        on_violation: called with each error before it is raised.
        reporter: what becomes of violation reports.
        connector: a :class:`PinnedConnector` of your own, in place of all of the above.
        response_class: a class of your own, which learns to note.
        options: everything else that :class:`aiohttp.ClientSession` takes.

    Raises:
        UnenforceableContext: with another connector, which would connect past the pins.
        TypeError: with a connector and what stands in its place.
    """
    asked = (store, ssl, private_roots, public_roots, on_violation, reporter)
    if connector is None:
        connector = PinnedConnector(
            store,
            ssl=ssl,
            private_roots=private_roots,
            public_roots=public_roots,
            on_violation=on_violation,
            reporter=reporter,
        )
    elif not isinstance(connector, PinnedConnector):
        raise UnenforceableContext(
            f"a {type(connector).__name__} connects past the pins; give a dynpin.clientstore.aiohttp.PinnedConnector, "
            "which takes the same options"
        )
    elif asked != (None, None, "enforce", None, None, "all"):
        raise TypeError("a connector has its own store and options: give them to PinnedConnector(...), not here too")
    return aiohttp.ClientSession(
        connector=connector, response_class=noting_response_class(connector.pin_store, response_class), **options
    )


def _default_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    # aiohttp speaks HTTP/1.1 alone, and says so in its own default context too.
    context.set_alpn_protocols(("http/1.1",))
    return context
