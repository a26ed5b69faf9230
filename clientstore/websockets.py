"""websockets: connections that enforce, and note what the response to the opening handshake pins."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, cast

from websockets.asyncio import client as asyncio_client
from websockets.http11 import Response
from websockets.sync import client as sync_client
from websockets.uri import WebSocketURI, parse_uri

from dynpin.errors import PinValidationError, UnenforceableContext
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME

from .enforcement import Peer, PrivateRoots, Reporter, peer_of, pin_violation, request_site
from .options import Harden, Lease, hardener
from .reports import ReportMode
from .responses import note_response, note_response_async
from .store import PinStore

if TYPE_CHECKING:
    from websockets.proxy import get_proxy
else:
    try:
        from websockets.proxy import get_proxy
    except ImportError:  # where websockets 15 has it
        from websockets.uri import get_proxy

__all__ = ["pinned_connect", "pinned_connect_sync"]


def pinned_connect(
    uri: str,
    store: PinStore | None = None,
    *,
    ssl: ssl.SSLContext | None = None,
    private_roots: PrivateRoots = "enforce",
    public_roots: Iterable[bytes] | None = None,
    on_violation: Callable[[PinValidationError], None] | None = None,
    reporter: Reporter | ReportMode | None = "all",
    **options: Any,  # noqa: ANN401 - those of websockets
) -> asyncio_client.connect:
    """:class:`websockets.asyncio.client.connect`, held against the pins, with the handshake's response noted.

    A refusal is the :class:`~dynpin.PinValidationError` itself. It ends ``async for`` too, where websockets would try
    again for ever, as it does for every OSError.

    Args:
        uri: the URI of the server; for ``ws://`` there is nothing to enforce.
        store: the Known Pinned Hosts; None for the user's own store.
        ssl: a context of your own, which is hardened; None for :func:`ssl.create_default_context`.
        private_roots: see :func:`dynpin.clientstore.enforce`, as for the three below.
        public_roots: the public roots of ``private_roots="bypass"``, DER.
        on_violation: called with each error before it is raised.
        reporter: what becomes of violation reports.
        options: everything else that websockets' ``connect`` takes, but ``create_connection``. The TLS of an https
            proxy, by ``proxy`` or the environment, is held against the pins of the proxy's own name.
    """

    class Noting(_NotingConnection):
        pass

    pins = Noting.pin_store = Lease(store, Noting).store
    harden = hardener(
        pins,
        {
            "private_roots": private_roots,
            "public_roots": public_roots,
            "on_violation": on_violation,
            "reporter": reporter,
        },
    )
    _harden(parse_uri(uri), ssl, options, harden)
    made = _Connect(uri, create_connection=Noting, **options)
    judge: Callable[[Exception], Exception | None] = made.process_exception

    def violations_are_fatal(error: Exception) -> Exception | None:
        return error if pin_violation(error) is not None else judge(error)

    made.process_exception = violations_are_fatal
    return made


def pinned_connect_sync(
    uri: str,
    store: PinStore | None = None,
    *,
    ssl: ssl.SSLContext | None = None,
    private_roots: PrivateRoots = "enforce",
    public_roots: Iterable[bytes] | None = None,
    on_violation: Callable[[PinValidationError], None] | None = None,
    reporter: Reporter | ReportMode | None = "all",
    **options: Any,  # noqa: ANN401 - those of websockets
) -> sync_client.ClientConnection:
    """:func:`websockets.sync.client.connect`; everything is as in :func:`pinned_connect`."""

    class Noting(_NotingSyncConnection):
        pass

    pins = Noting.pin_store = Lease(store, Noting).store
    harden = hardener(
        pins,
        {
            "private_roots": private_roots,
            "public_roots": public_roots,
            "on_violation": on_violation,
            "reporter": reporter,
        },
    )
    parsed = parse_uri(uri)
    _harden(parsed, ssl, options, harden)
    token = request_site.set((parsed.host, parsed.port))
    try:
        # websockets' overloads leave it open for options that are passed on.
        return cast("sync_client.ClientConnection", sync_client.connect(uri, create_connection=Noting, **options))
    finally:
        request_site.reset(token)


class _Connect(asyncio_client.connect):
    def __await__(self) -> Generator[Any, None, asyncio_client.ClientConnection]:
        # Each connection that is made on the way, redirects included, tells its port.
        token = request_site.set(None)
        try:
            return (yield from super().__await__())
        finally:
            request_site.reset(token)


class _NotingConnection(asyncio_client.ClientConnection):
    pin_store: PinStore

    def __init__(self, protocol: Any, **options: Any) -> None:  # noqa: ANN401 - websockets' own
        super().__init__(protocol, **options)
        # asyncio asks for this object before it starts TLS.
        request_site.set((self.protocol.uri.host, self.protocol.uri.port))

    async def handshake(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - websockets' own
        """As websockets'; the response is noted where the handshake fails on it, too."""
        peer = peer_of(self.transport.get_extra_info("ssl_object"))
        _refuse_unenforced(self.protocol.uri, peer)
        try:
            await super().handshake(*args, **options)
        finally:
            noted = _response_to_note(self.pin_store, self.protocol.uri, peer, self.response)
            if noted is not None:
                await note_response_async(*noted, port=self.protocol.uri.port)


class _NotingSyncConnection(sync_client.ClientConnection):
    pin_store: PinStore

    def handshake(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - websockets' own
        """As websockets'; the response is noted where the handshake fails on it, too."""
        # Where a redirect leads is known when TLS has been spoken there: its report has no port.
        request_site.set(None)
        # TLS inside TLS has an object of its own around the one that counts.
        peer = peer_of(self.socket) or peer_of(getattr(self.socket, "ssl_object", None))
        _refuse_unenforced(self.protocol.uri, peer)
        try:
            super().handshake(*args, **options)
        finally:
            noted = _response_to_note(self.pin_store, self.protocol.uri, peer, self.response)
            if noted is not None:
                note_response(*noted, port=self.protocol.uri.port)


def _refuse_unenforced(uri: WebSocketURI, peer: Peer | None) -> None:
    # Nothing has been sent yet. websockets makes a context of its own for a redirect from ws:// to wss://.
    if uri.secure and peer is None:
        raise UnenforceableContext(
            f"the connection to {uri.host} is not held against the pins: a ws:// URI was redirected to wss://, "
            "for which websockets makes a context of its own; connect to the wss:// URI"
        )


def _response_to_note(
    store: PinStore, uri: WebSocketURI, peer: Peer | None, response: Response | None
) -> tuple[PinStore, str, Peer | None, list[str], list[str]] | None:
    """What note_response takes; None where there is nothing to note."""
    if not uri.secure or response is None:
        return None
    headers = response.headers
    return store, uri.host, peer, headers.get_all(ENFORCE_NAME), headers.get_all(REPORT_ONLY_NAME)


def _harden(
    uri: WebSocketURI,
    context: ssl.SSLContext | None,
    options: dict[str, Any],
    harden: Harden,
) -> None:
    """Put hardened contexts into the options of ``connect``: for the server, and for an https proxy on the way."""
    if uri.secure:
        options["ssl"] = harden(context or ssl.create_default_context())
    elif context is not None:
        options["ssl"] = context  # websockets refuses it for ws://
    proxy: object = options.get("proxy", True)
    if options.get("sock") is not None:
        proxy = None
    elif proxy is True:
        proxy = get_proxy(uri)
    # websockets refuses the option with any other proxy.
    if isinstance(proxy, str) and proxy.lower().startswith("https:"):
        given = options.get("proxy_ssl")
        options["proxy_ssl"] = harden(given if isinstance(given, ssl.SSLContext) else ssl.create_default_context())
