"""aiohttp: a connector that enforces pins and responses that note them, WebSockets included, on asyncio and uvloop."""

from __future__ import annotations

import asyncio
import socket
import ssl
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, Unpack, cast

import aiohttp

from dynpin.errors import PinValidationError, UnenforceableContext
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME

from .enforcement import ObjectGuard, peer_of, pin_violation, request_site
from .names import Names, host_of_field, is_for
from .options import Lease, PinOptions, hardener, split_options
from .responses import note_response_async
from .store import PinStore

if TYPE_CHECKING:
    from aiohttp.abc import AbstractCookieJar, AbstractResolver
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace
    from aiohttp.typedefs import LooseCookies, LooseHeaders, StrOrURL

    _Connector = aiohttp.TCPConnector
else:
    _Connector = object

__all__ = [
    "ConnectorOptions",
    "PinnedConnector",
    "PinnedConnectorMixin",
    "SessionOptions",
    "noting_response_class",
    "pinned_session",
]

_HTTPS_PORT = 443


class ConnectorOptions(PinOptions, total=False):
    """The options of :class:`aiohttp.TCPConnector`, and :class:`~dynpin.clientstore.PinOptions`."""

    resolver: AbstractResolver | None
    use_dns_cache: bool
    ttl_dns_cache: int | None
    dns_cache_max_size: int
    family: socket.AddressFamily
    local_addr: tuple[str, int] | None
    keepalive_timeout: float | None
    force_close: bool
    limit: int
    limit_per_host: int
    enable_cleanup_closed: bool
    loop: asyncio.AbstractEventLoop | None
    timeout_ceil_threshold: float
    happy_eyeballs_delay: float | None
    interleave: int | None
    socket_factory: Callable[..., socket.socket] | None


class SessionOptions(PinOptions, total=False):
    """The options of :class:`aiohttp.ClientSession`, and :class:`~dynpin.clientstore.PinOptions`."""

    base_url: StrOrURL | None
    cookies: LooseCookies | None
    headers: LooseHeaders | None
    proxy: StrOrURL | None
    proxy_auth: aiohttp.BasicAuth | None
    skip_auto_headers: Iterable[str] | None
    auth: aiohttp.BasicAuth | None
    json_serialize: Callable[[Any], str]
    json_serialize_bytes: Callable[[Any], bytes] | None
    request_class: type[aiohttp.ClientRequest]
    ws_response_class: type[aiohttp.ClientWebSocketResponse]
    version: aiohttp.HttpVersion
    cookie_jar: AbstractCookieJar | None
    connector_owner: bool
    raise_for_status: bool | Callable[[aiohttp.ClientResponse], Awaitable[None]]
    timeout: aiohttp.ClientTimeout
    auto_decompress: bool
    trust_env: bool
    requote_redirect_url: bool
    trace_configs: list[aiohttp.TraceConfig] | None
    read_bufsize: int
    max_line_size: int
    max_field_size: int
    max_headers: int
    fallback_charset_resolver: Callable[[aiohttp.ClientResponse, bytes], str]
    middlewares: Sequence[aiohttp.ClientMiddlewareType]


class PinnedConnectorMixin(_Connector):
    """Makes any kind of :class:`aiohttp.TCPConnector` refuse wrong keys before it sends a request.

    Put it first among the bases: ``class Connector(PinnedConnectorMixin, aiohttp_socks.ProxyConnector): ...``. A
    request's own ``ssl=`` does not avoid the pins. A context is hardened too. With ``ssl=False`` or an
    :class:`aiohttp.Fingerprint` aiohttp verifies nothing, so Known Pinned Hosts are refused, proxies included. If a
    request names a Known Pinned Host by its URL, ``server_hostname`` or Host field, and TLS verifies another name, the
    request is refused too.

    Args:
        args: the connector's own arguments.
        store: the Known Pinned Hosts; None for the user's own store.
        ssl: a context of your own, which is hardened; None for :func:`ssl.create_default_context`.
        options: :class:`~dynpin.clientstore.PinOptions`, and the connector's own options. Each ``ssl.SSLContext`` among
            them is hardened, for example that for a SOCKS proxy behind TLS.

    Raises:
        UnenforceableContext: if a context cannot be enforced.
    """

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: ANN401 - of other bases
        super().__init_subclass__(**options)
        if aiohttp.TCPConnector not in cls.__mro__:
            raise UnenforceableContext(
                f"{cls.__name__} is not an aiohttp.TCPConnector, and aiohttp speaks TLS over no other connector"
            )
        if cls.__mro__.index(PinnedConnectorMixin) > cls.__mro__.index(aiohttp.TCPConnector):
            raise UnenforceableContext(
                f"{cls.__name__} would connect without checking the pins: put PinnedConnectorMixin first among its "
                "bases"
            )

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - those of the connector
        store: PinStore | None = None,
        ssl: ssl.SSLContext | None = None,
        **options: Any,  # noqa: ANN401 - those of the connector
    ) -> None:
        self._pin_owns_store = store is None
        self._pin_lease = Lease(store, self)
        self.pin_store = self._pin_lease.store
        pin_options = split_options(options)
        self._pin_harden = hardener(self.pin_store, pin_options)
        self._pin_names = Names(self.pin_store, pin_options)
        self._pin_enforced: weakref.WeakSet[object] = weakref.WeakSet()
        self._pin_context = _default_context() if ssl is None else ssl
        for context in (self._pin_context, *filter(_is_context, options.values())):
            self._pin_enforce(context)
        super().__init__(*args, ssl=self._pin_context, **options)  # pyright: ignore[reportUnknownMemberType] - an address

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Like aiohttp's, checked against the pins. A report of a failure contains the port of the request."""
        # A class of the user's own may still change the Host field when it sends. Its session may be his own too.
        held = cast("_HeldRequest", req)
        held.__class__ = _held_class(cast("Any", type(req)))
        token = request_site.set((req.host, req.port or _HTTPS_PORT))
        try:
            self._pin_prepare(req)
            connection = await super().connect(req, traces, timeout)
        except PinValidationError as violation:  # from a connector that does not wrap it in aiohttp's own errors
            _refuse(req, violation)
        except aiohttp.ClientConnectionError as error:
            behind = pin_violation(error)
            if behind is None or isinstance(error, aiohttp.ClientConnectorCertificateError):
                raise
            # asyncio before Python 3.13 fails on an aborted TLS inside TLS, and aiohttp reports that failure instead.
            _refuse(req, behind)
        finally:
            request_site.reset(token)
        try:
            self._pin_check(req, connection)
        except PinValidationError as violation:
            connection.release()  # it is sound for requests to the name that TLS verified
            _refuse(req, violation)
        except UnenforceableContext:
            connection.close()
            raise
        held.pin_connector, held.pin_held = self, frozenset(_asked(req))
        return connection

    def pin_hold(self, req: _HeldRequest, connection: Connection) -> None:
        """Check the names that the request got after :meth:`connect`.

        Raises:
            ClientConnectorCertificateError: if one of them is pinned and is not the one that TLS verified.
        """
        names = set(_asked(req)) - req.pin_held
        tls = None if connection.transport is None else connection.transport.get_extra_info("ssl_object")
        try:
            self._pin_names.hold(names, tls.server_hostname if isinstance(tls, ObjectGuard) else None)
        except PinValidationError as violation:
            if connection.transport is not None:
                # The user's `send` may have written; aiohttp's own close would wait for the peer's, which an event
                # loop that ends does not.
                connection.transport.abort()
            _refuse(req, violation)

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Like aiohttp's. Closing the last client also closes the user's own store."""
        await super().close(abort_ssl=abort_ssl)
        if self._pin_owns_store:
            await asyncio.to_thread(self._pin_lease.end)  # may wait for the disk

    def _pin_enforce(self, context: ssl.SSLContext) -> None:
        if context not in self._pin_enforced:
            self._pin_harden(context)
            self._pin_enforced.add(context)

    def _pin_verifies(self, req: aiohttp.ClientRequest) -> bool:
        """Whether aiohttp will use a hardened context for this request. Otherwise it verifies nothing."""
        context = self._pin_context if req.ssl is True else req.ssl
        if not _is_context(context):
            return False
        self._pin_enforce(cast("ssl.SSLContext", context))
        return True

    def _pin_prepare(self, req: aiohttp.ClientRequest) -> None:
        """Run before anything is sent: harden the request's own context, or check which hosts would be unverified."""
        if not self._pin_verifies(req):
            # aiohttp uses one unverified context for the whole process, which dynpin must not change. It also uses it
            # for an https proxy, even for an http:// URL.
            proxy = [] if req.proxy is None or req.proxy.scheme != "https" else [req.proxy.raw_host or ""]
            self._pin_names.hold([*_asked(req), *proxy], None)

    def _pin_check(self, req: aiohttp.ClientRequest, connection: Connection) -> None:
        """Run before the request is sent: check for which name the connection, perhaps from the pool, is verified."""
        # A connection without a transport was just lost, and aiohttp sends nothing over it.
        if not req.is_ssl() or not self._pin_verifies(req) or connection.transport is None:
            return
        tls = connection.transport.get_extra_info("ssl_object")
        if not isinstance(tls, ObjectGuard):
            raise UnenforceableContext(
                f"{type(self).__name__} connects to {req.host} without checking the pins: it does not use the context "
                "that it gets as ssl="
            )
        self._pin_names.hold(_asked(req), tls.server_hostname)


class PinnedConnector(PinnedConnectorMixin, aiohttp.TCPConnector):
    """A :class:`aiohttp.TCPConnector` with pins; for any other kind see :class:`PinnedConnectorMixin`.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        ssl: a context of your own, which is hardened; None for :func:`ssl.create_default_context`.
        options: :class:`~dynpin.clientstore.PinOptions`, and all other options of :class:`aiohttp.TCPConnector`.
    """

    def __init__(
        self,
        store: PinStore | None = None,
        *,
        ssl: ssl.SSLContext | None = None,
        **options: Unpack[ConnectorOptions],
    ) -> None:
        super().__init__(store=store, ssl=ssl, **options)


class _HeldRequest(aiohttp.ClientRequest):
    """Goes behind the class of a request, at its connector's latest.

    Attributes:
        pin_connector: the connector that has made its connection.
        pin_held: the names that were compared with the one that TLS verified.
    """

    pin_connector: PinnedConnectorMixin | None = None
    pin_held: frozenset[str] = frozenset()

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Like aiohttp's, which writes the request; its names are checked against the pins once more."""
        if self.pin_connector is not None:
            self.pin_connector.pin_hold(self, conn)
        elif self.is_ssl():
            raise UnenforceableContext(
                f"the connection to {self.host} was made without checking the pins: the session has another connector "
                "than the one that it was made with"
            )
        return await super().send(conn)


class _NotingResponse(aiohttp.ClientResponse):
    """Notes pins as soon as the head arrives: the connection of a response with a small body is soon gone."""

    pin_store: PinStore

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Like aiohttp's, and the response's pins are noted."""
        transport = connection.transport
        peer = peer_of(None if transport is None else transport.get_extra_info("ssl_object"))
        response = await super().start(connection)
        host = self.url.raw_host or ""
        # A proxy's answer to CONNECT does not come from the site, nor does the answer for a Host field of another name.
        if (
            self.url.scheme in ("https", "wss")
            and self.method != "CONNECT"
            and all(is_for(host, field) for field in self.request_info.headers.getall("Host", []))
        ):
            await note_response_async(
                self.pin_store,
                host,
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


@lru_cache(maxsize=32)
def _held_class(made: type[aiohttp.ClientRequest]) -> type[_HeldRequest]:
    if made is aiohttp.ClientRequest:
        return _HeldRequest
    if issubclass(made, _HeldRequest):
        return made
    return type(made.__name__, (made, _HeldRequest), {})  # pyright: ignore[reportGeneralTypeIssues] - a subclass


def pinned_session(
    store: PinStore | None = None,
    *,
    ssl: ssl.SSLContext | None = None,
    connector: aiohttp.BaseConnector | None = None,
    response_class: type[aiohttp.ClientResponse] = aiohttp.ClientResponse,
    **options: Unpack[SessionOptions],
) -> aiohttp.ClientSession:
    """A :class:`aiohttp.ClientSession` that notes pins from responses, and refuses wrong keys before it sends a byte.

    A refusal is an :class:`aiohttp.ClientConnectorCertificateError`; :func:`dynpin.clientstore.pin_violation` finds
    the :class:`~dynpin.PinValidationError` in it. (This is a function, since aiohttp advises against subclasses of its
    session.)

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        ssl: a context of your own, which is hardened; None for :func:`ssl.create_default_context`.
        connector: a :class:`PinnedConnector`, or a connector of another kind with :class:`PinnedConnectorMixin`. It
            replaces `store`, `ssl` and the options of :class:`~dynpin.clientstore.PinOptions`.
        response_class: a class of your own; its responses then note pins.
        options: :class:`~dynpin.clientstore.PinOptions`, and all other options of :class:`aiohttp.ClientSession`.

    Raises:
        UnenforceableContext: for any other connector, which would connect without checking the pins.
        TypeError: for a connector together with the arguments that it replaces.
    """
    own = cast("dict[str, Any]", options)
    pin_options = split_options(own)
    if connector is None:
        connector = PinnedConnector(store, ssl=ssl, **pin_options)
    elif not isinstance(connector, PinnedConnectorMixin):
        kind = type(connector).__name__
        raise UnenforceableContext(
            f"a {kind} connects without checking the pins; give a dynpin.clientstore.aiohttp.PinnedConnector, or a "
            f"connector of your own kind: class Pinned{kind}(PinnedConnectorMixin, {kind})"
        )
    elif store is not None or ssl is not None or pin_options:
        raise TypeError("a connector has its own store and options: give them to PinnedConnector(...), not here too")
    return aiohttp.ClientSession(
        connector=connector,
        request_class=_held_class(own.pop("request_class", aiohttp.ClientRequest)),
        response_class=noting_response_class(connector.pin_store, response_class),
        **own,
    )


def _is_context(value: object) -> bool:
    # The same test as in aiohttp: after truststore.inject_into_ssl() it does not accept an older context, and would
    # verify nothing.
    return isinstance(value, ssl.SSLContext)


def _asked(req: aiohttp.ClientRequest) -> list[str]:
    """The names of the hosts that a request over TLS addresses; none for an http:// URL."""
    if not req.is_ssl():
        return []
    # The library sends each Host field that a middleware has added.
    return [req.host, *map(host_of_field, req.headers.getall("Host", [])), req.server_hostname or ""]


def _refuse(req: aiohttp.ClientRequest, violation: PinValidationError) -> NoReturn:
    raise aiohttp.ClientConnectorCertificateError(req.connection_key, violation) from violation


def _default_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    # aiohttp speaks only HTTP/1.1, and its own default context says so too.
    context.set_alpn_protocols(("http/1.1",))
    return context
