"""websockets: connections that enforce pins, and note them from the response to the opening handshake."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast, overload
from urllib.parse import urlsplit

from websockets.asyncio import client as asyncio_client
from websockets.datastructures import Headers
from websockets.sync import client as sync_client
from websockets.uri import WebSocketURI, parse_uri

from dynpin.errors import UnenforceableContext
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME

from .enforcement import ObjectGuard, Peer, SocketGuard, peer_of, pin_violation, request_site
from .names import Names, host_of_field, host_of_url, is_for
from .options import Lease, PinOptions, hardener, split_options
from .responses import note_response, note_response_async
from .store import PinStore

if TYPE_CHECKING:
    from websockets.client import ClientProtocol
    from websockets.datastructures import HeadersLike
    from websockets.extensions.base import ClientExtensionFactory
    from websockets.http11 import Response
    from websockets.proxy import get_proxy, parse_proxy
    from websockets.sync.client import reconnect
    from websockets.sync.utils import Deadline
    from websockets.typing import LoggerLike, Origin, Subprotocol
else:
    try:
        from websockets.proxy import get_proxy, parse_proxy
    except ImportError:  # their place in websockets 15
        from websockets.uri import get_proxy, parse_proxy
    # Since websockets 17.1. Older ones follow no redirect here and do not reconnect.
    reconnect = getattr(sync_client, "reconnect", object)

__all__ = ["ConnectOptions", "SyncConnectOptions", "pinned_connect", "pinned_connect_sync"]

# The method that opens one connection, also after a redirect, and the attribute with its options, by version.
_OPEN, _OPTIONS = (
    ("open_tcp_connection", "create_connection_kwargs")
    if hasattr(asyncio_client.connect, "open_tcp_connection")
    else ("create_connection", "connection_kwargs")
)


class _CommonOptions(PinOptions, total=False):
    origin: Origin | None
    extensions: Sequence[ClientExtensionFactory] | None
    subprotocols: Sequence[Subprotocol] | None
    compression: str | None
    additional_headers: HeadersLike | None
    user_agent_header: str | None
    proxy: str | Literal[True] | None
    proxy_ssl: ssl.SSLContext | None
    proxy_server_hostname: str | None
    process_exception: Callable[[Exception], Exception | None]
    open_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    close_timeout: float | None
    reconnect_delays: Callable[[], Generator[float]]
    max_size: int | tuple[int | None, int | None] | None
    max_queue: int | tuple[int | None, int | None] | None
    logger: LoggerLike | None
    sock: socket.socket | None
    server_hostname: str | None
    unix: bool
    path: str | os.PathLike[str] | None


class ConnectOptions(_CommonOptions, total=False):
    """The options of :class:`websockets.asyncio.client.connect`, and :class:`~dynpin.clientstore.PinOptions`."""

    write_limit: int | tuple[int, int | None]
    host: str | None
    port: int | None
    family: int
    proto: int
    flags: int
    local_addr: tuple[str, int] | None
    happy_eyeballs_delay: float | None
    interleave: int | None
    ssl_handshake_timeout: float | None
    ssl_shutdown_timeout: float | None
    proxy_ssl_handshake_timeout: float | None
    proxy_ssl_shutdown_timeout: float | None


class SyncConnectOptions(_CommonOptions, total=False):
    """The options of :func:`websockets.sync.client.connect`, and :class:`~dynpin.clientstore.PinOptions`."""

    address: tuple[str, int]
    timeout: float | None
    source_address: tuple[str, int] | None


def pinned_connect(
    uri: str,
    store: PinStore | None = None,
    *,
    ssl: ssl.SSLContext | None = None,
    **options: Unpack[ConnectOptions],
) -> asyncio_client.connect:
    """:class:`websockets.asyncio.client.connect` with pins: it checks the connection, and notes the response.

    A refusal is the :class:`~dynpin.PinValidationError` itself. It also ends ``async for``, in which websockets would
    retry for ever, as for every OSError. Each connection is checked again, redirects and reconnections included. The
    TLS of an https proxy is checked against the pins of the proxy's own name.

    Args:
        uri: the URI of the server; for ``ws://`` nothing is enforced.
        store: the Known Pinned Hosts; None for the user's own store.
        ssl: a context of your own, which is hardened; None for :func:`ssl.create_default_context`.
        options: :class:`~dynpin.clientstore.PinOptions`, and all other options of websockets' ``connect`` except
            ``create_connection``.
    """
    own = cast("dict[str, Any]", options)
    return _Connect(uri, _Pins(store, ssl, own), own)


@overload
def pinned_connect_sync(
    uri: str,
    store: PinStore | None = ...,
    *,
    ssl: ssl.SSLContext | None = ...,
    legacy: Literal[True] | None = ...,
    **options: Unpack[SyncConnectOptions],
) -> sync_client.ClientConnection: ...


@overload
def pinned_connect_sync(
    uri: str,
    store: PinStore | None = ...,
    *,
    ssl: ssl.SSLContext | None = ...,
    legacy: Literal[False],
    **options: Unpack[SyncConnectOptions],
) -> reconnect: ...


def pinned_connect_sync(
    uri: str,
    store: PinStore | None = None,
    *,
    ssl: ssl.SSLContext | None = None,
    legacy: bool | None = None,
    **options: Unpack[SyncConnectOptions],
) -> sync_client.ClientConnection | reconnect:
    """:func:`websockets.sync.client.connect` with pins; see :func:`pinned_connect`.

    Args:
        uri: the URI of the server.
        store: the Known Pinned Hosts; None for the user's own store.
        ssl: a context of your own, which is hardened; None for :func:`ssl.create_default_context`.
        legacy: as in websockets 17.1: False for an iterable that reconnects.
        options: :class:`~dynpin.clientstore.PinOptions`, and all other options of websockets' ``connect`` except
            ``create_connection``.
    """
    own = cast("dict[str, Any]", options)
    pins = _Pins(store, ssl, own)
    if not hasattr(sync_client, "reconnect"):
        return _connect_once(uri, pins, own)
    connecter = _Reconnect(uri, pins, own)
    if legacy is False:
        return connecter
    connection = connecter.connect()
    if legacy:
        connection.pending_legacy_warning = False
    return connection


class _Pins:
    """The pins for one call of ``connect``, connection by connection."""

    def __init__(self, store: PinStore | None, context: ssl.SSLContext | None, options: dict[str, Any]) -> None:
        self.lease = Lease(store, self)
        self.store, self.owns_store = self.lease.store, store is None
        pin_options = split_options(options)
        self._harden = hardener(self.store, pin_options)
        self._names = Names(self.store, pin_options)
        self._context, self._proxy_context = context, cast("ssl.SSLContext | None", options.pop("proxy_ssl", None))
        self._own: dict[str, ssl.SSLContext] = {}
        self._proxy_name: str | None = options.get("proxy_server_hostname")
        self._hosts: Sequence[str] = ()
        self._direct = options.get("sock") is not None or bool(options.get("unix"))
        self._host = ""

    def decide(
        self, uri: str, proxy: str | bool | None, fields: Headers
    ) -> tuple[dict[str, ssl.SSLContext], str | None]:
        """Hardened contexts for the next connection, and the proxy that it uses; `fields` are those of its request.

        Raises:
            PinValidationError: if the proxy's name is pinned, and TLS would verify another name.
        """
        parsed = parse_uri(uri)
        # The user's own text: websockets converts international names with IDNA 2003, where faß is fass.
        self._host, self._hosts = host_of_url(uri), fields.get_all("Host")
        contexts: dict[str, ssl.SSLContext] = {}
        if parsed.secure:
            contexts["ssl"] = self._hardened("ssl", self._context)
        elif self._context is not None:
            raise ValueError("ssl argument is incompatible with a ws:// URI")  # websockets' own message
        address = None if self._direct else get_proxy(parsed) if proxy is True else proxy or None
        if address is not None and address.lower().startswith("https:"):
            contexts["proxy_ssl"] = self._hardened("proxy_ssl", self._proxy_context)
            self._names.hold([urlsplit(address).hostname or ""], self._proxy_name or parse_proxy(address).host)
        elif self._proxy_context is not None:
            contexts["proxy_ssl"] = self._proxy_context  # websockets rejects it without an https proxy
        request_site.set((parsed.host, parsed.port))
        return contexts, address

    def _hardened(self, name: str, given: ssl.SSLContext | None) -> ssl.SSLContext:
        if name not in self._own:
            self._own[name] = self._harden(given or ssl.create_default_context())
        return self._own[name]

    def before_request(self, uri: WebSocketURI, tls: object) -> Peer | None:
        """Run after the TLS handshake and before the request: compare the request's names with the one of TLS.

        Returns:
            what TLS has proved about the URI's host, if the response will come from that host.

        Raises:
            PinValidationError: if a name is pinned and is not the one that TLS has verified.
            UnenforceableContext: if the connection is not enforced.
        """
        if not uri.secure:
            return None
        if not isinstance(tls, SocketGuard | ObjectGuard):
            raise UnenforceableContext(f"the connection to {uri.host} is not checked against the pins")
        self._names.hold([self._host, uri.host, *map(host_of_field, self._hosts)], tls.server_hostname)
        return peer_of(tls) if all(is_for(uri.host, host) for host in self._hosts) else None


class _NotingConnection(asyncio_client.ClientConnection):
    def __init__(self, pins: _Pins, *args: Any, **options: Any) -> None:  # noqa: ANN401 - websockets' own
        super().__init__(*args, **options)
        self._pins = pins

    async def handshake(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - websockets' own
        """Like websockets'. The response is noted even if the handshake fails because of it."""
        uri = self.protocol.uri
        peer = self._pins.before_request(uri, self.transport.get_extra_info("ssl_object"))
        try:
            await super().handshake(*args, **options)
        finally:
            if peer is not None and self.response is not None and _is_final(self.response):
                await note_response_async(
                    self._pins.store, uri.host, peer, *_pin_fields(self.response.headers), port=uri.port
                )

    async def close(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - websockets' own
        """Like websockets'; closing the last client also closes the user's own store."""
        await super().close(*args, **options)
        if self._pins.owns_store:
            await asyncio.to_thread(self._pins.lease.end)  # may wait for the disk


class _NotingSyncConnection(sync_client.ClientConnection):
    def __init__(
        self,
        pins: _Pins,
        sock: socket.socket,
        protocol: ClientProtocol,
        **options: Any,  # noqa: ANN401 - websockets' own
    ) -> None:
        self._pins = pins
        # For TLS inside TLS there is an outer object around the one that counts. It is read now: the thread that starts
        # next may wait for data that never comes, and websockets waits for that thread if the handshake fails.
        tls = sock if isinstance(sock, SocketGuard) else getattr(sock, "ssl_object", None)
        self._pin_peer = pins.before_request(protocol.uri, tls)
        super().__init__(sock, protocol, **options)

    def handshake(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - websockets' own
        """Like websockets'. The response is noted even if the handshake fails because of it."""
        try:
            super().handshake(*args, **options)
        finally:
            if self._pin_peer is not None and self.response is not None and _is_final(self.response):
                uri, fields = self.protocol.uri, _pin_fields(self.response.headers)
                note_response(self._pins.store, uri.host, self._pin_peer, *fields, port=uri.port)

    def close(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - websockets' own
        """Like websockets'; closing the last client also closes the user's own store."""
        super().close(*args, **options)
        self._pins.lease.end()


class _Connect(asyncio_client.connect):
    def __init__(self, uri: str, pins: _Pins, options: dict[str, Any]) -> None:
        self._pins = pins
        super().__init__(uri, create_connection=_made_by(pins, _NotingConnection), **options)
        self._pin_proxy: str | bool | None = self.proxy
        _end_at_violations(self)

    def __await__(self) -> Generator[Any, None, asyncio_client.ClientConnection]:
        try:
            return (yield from super().__await__())
        except (Exception, asyncio.CancelledError):
            if self._pins.owns_store:
                asyncio.get_running_loop().run_in_executor(None, self._pins.lease.end)  # may wait for the disk
            raise

    async def open_tcp_connection(self) -> asyncio_client.ClientConnection:
        """Like websockets', with contexts and a proxy that are chosen for this connection."""
        opened: Callable[[], Any] = getattr(super(), _OPEN)
        given: dict[str, Any] = getattr(self, _OPTIONS)
        token = request_site.set(None)
        try:
            fields = self.additional_headers = Headers(self.additional_headers or ())
            contexts, self.proxy = self._pins.decide(self.uri, self._pin_proxy, fields)
            for name in ("ssl", "proxy_ssl"):
                given.pop(name, None)
            given.update(contexts)
            return cast("asyncio_client.ClientConnection", await opened())
        finally:
            request_site.reset(token)


if _OPEN != "open_tcp_connection":
    setattr(_Connect, _OPEN, _Connect.open_tcp_connection)


class _Reconnect(reconnect):
    def __init__(self, uri: str, pins: _Pins, options: dict[str, Any]) -> None:
        self._pins = pins
        super().__init__(uri, create_connection=_made_by(pins, _NotingSyncConnection), **options)
        self._pin_proxy: str | bool | None = self.proxy
        _end_at_violations(self)

    def connect(self) -> sync_client.ClientConnection:
        """Like websockets'. If it fails, the user's own store is closed."""
        try:
            return super().connect()
        except BaseException:
            self._pins.lease.end()
            raise

    def open_connection(self, deadline: Deadline) -> sync_client.ClientConnection:
        """Like websockets', with contexts and a proxy that are chosen for this connection."""
        token = request_site.set(None)
        try:
            fields = self.additional_headers = Headers(self.additional_headers or ())
            contexts, self.proxy = self._pins.decide(self.uri, self._pin_proxy, fields)
            self.ssl, self.proxy_ssl = contexts.get("ssl"), contexts.get("proxy_ssl")
            return super().open_connection(deadline)
        finally:
            request_site.reset(token)


def _connect_once(uri: str, pins: _Pins, options: dict[str, Any]) -> sync_client.ClientConnection:
    """Connect before websockets 17.1, which follows no redirect in threads and does not reconnect."""
    token = request_site.set(None)
    try:
        fields = options["additional_headers"] = Headers(options.get("additional_headers") or ())
        contexts, options["proxy"] = pins.decide(uri, options.get("proxy", True), fields)
        connect = cast("Callable[..., sync_client.ClientConnection]", sync_client.connect)
        return connect(uri, create_connection=_made_by(pins, _NotingSyncConnection), **options, **contexts)
    except BaseException:
        pins.lease.end()
        raise
    finally:
        request_site.reset(token)


def _made_by(pins: _Pins, made: type[_NotingConnection | _NotingSyncConnection]) -> Any:  # noqa: ANN401 - two classes
    # websockets wants a class, and calls it. A new class for each call would be left to the garbage collector.
    return partial(made, pins)


def _end_at_violations(made: asyncio_client.connect | reconnect) -> None:
    judge: Callable[[Exception], Exception | None] = made.process_exception

    def violations_are_fatal(error: Exception) -> Exception | None:
        return error if pin_violation(error) is not None else judge(error)

    made.process_exception = violations_are_fatal


def _is_final(response: Response) -> bool:
    """Whether this is the final response. Informational ones are not noted (RFC 9110 §15.2)."""
    return response.status_code == 101 or response.status_code >= 200


def _pin_fields(headers: Headers) -> tuple[Sequence[str], Sequence[str]]:
    return headers.get_all(ENFORCE_NAME), headers.get_all(REPORT_ONLY_NAME)
