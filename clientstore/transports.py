"""What the adapters of httpx and httpx2 have in common: the two libraries differ in their names alone."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from copy import copy
from ipaddress import ip_address
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import anyio
import anyio.to_thread

from dynpin.errors import PinValidationError, UnenforceableContext
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME

from .enforcement import Peer, peer_of, request_site
from .names import Names, host_of_field, is_for
from .options import Lease, PinOptions, hardener, split_options
from .responses import note_response, note_response_async
from .store import PinStore

__all__ = ["Pinning", "TransportOptions", "pinned_client"]

_HTTPS_PORT = 443
_Limits = TypeVar("_Limits")
_Proxy = TypeVar("_Proxy")
_Value = TypeVar("_Value")
_TLS = ("https", "wss")

SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class TransportOptions(PinOptions, Generic[_Limits, _Proxy], total=False):
    """What the library's own transport takes, and :class:`~dynpin.clientstore.PinOptions`.

    Attributes:
        verify: True for the library's default roots; or an ``ssl.SSLContext`` of your own, which is hardened. With
            False, Known Pinned Hosts are refused and nothing is noted.
        cert: a client certificate, as the library has it.
        trust_env: whether ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` count.
        http1: whether HTTP/1.1 may be spoken.
        http2: whether HTTP/2 may be spoken.
        limits: how many connections are kept.
        proxy: the proxy. The TLS of an https proxy is checked against the pins of the proxy's own name.
        uds: the path of a Unix domain socket, which every request goes to; its TLS is checked against the pins of the
            URL's host.
        local_address: the address to connect from.
        retries: how often a connection that fails is tried again. A refusal is such a failure.
        socket_options: options of the sockets.
    """

    verify: ssl.SSLContext | str | bool
    cert: str | tuple[str, str] | tuple[str, str, str] | None
    trust_env: bool
    http1: bool
    http2: bool
    limits: _Limits
    proxy: _Proxy
    uds: str | None
    local_address: str | None
    retries: int
    socket_options: Iterable[SocketOption] | None


class _Request(Protocol):
    extensions: Any

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> Any: ...  # noqa: ANN401 - the library's URL, as for the ones below
    @property
    def headers(self) -> Any: ...  # noqa: ANN401


class _Response(Protocol):
    @property
    def headers(self) -> Any: ...  # noqa: ANN401
    @property
    def extensions(self) -> Any: ...  # noqa: ANN401
    def close(self) -> None: ...
    async def aclose(self) -> None: ...


_AnyRequest = TypeVar("_AnyRequest", bound=_Request)
_AnyResponse = TypeVar("_AnyResponse", bound=_Response)


class Pinning:
    """What pins one transport: its store, its contexts, and what is done before and after each request.

    All that dynpin does stands here, below the client: its hooks and its attributes are its users' to write.

    Args:
        library: the module, httpx or httpx2.
        transport: the transport.
        store: the Known Pinned Hosts; None for the user's own store.
        options: the options of the transport.

    Attributes:
        store: the Known Pinned Hosts.
        options: what the library's own transport is made with: contexts that enforce, without the options of pins.
    """

    def __init__(self, library: Any, transport: object, store: PinStore | None, options: Mapping[str, Any]) -> None:  # noqa: ANN401
        self.options = dict(options)
        pin_options = split_options(self.options)
        self._lease = Lease(store, transport)
        self.store = self._lease.store
        self._library = library
        self._names = Names(self.store, pin_options)
        harden = hardener(self.store, pin_options)
        trust_env: bool = self.options.get("trust_env", True)
        self.options["verify"] = harden(
            library.create_ssl_context(
                verify=self.options.get("verify", True), cert=self.options.pop("cert", None), trust_env=trust_env
            )
        )
        given = self.options.get("proxy")
        if given is not None:
            proxy = copy(given) if isinstance(given, library.Proxy) else library.Proxy(given)
            if proxy.url.scheme == "https":
                # Its TLS has a context of its own, which must not show the site's client certificate.
                proxy.ssl_context = harden(proxy.ssl_context or library.create_ssl_context(trust_env=trust_env))
            self.options["proxy"] = proxy

    def send(self, request: _AnyRequest, send: Callable[[_AnyRequest], _AnyResponse]) -> _AnyResponse:
        """Send a request by the library's own means, and note its response."""
        with self._site(request) as is_of_its_host:
            response = send(request)
        if is_of_its_host:
            try:
                note_response(self.store, *_seen(request, response), port=_port(request))
            except BaseException:
                response.close()  # the caller does not get it, so he cannot
                raise
        return response

    async def send_async(
        self, request: _AnyRequest, send: Callable[[_AnyRequest], Awaitable[_AnyResponse]]
    ) -> _AnyResponse:
        """:meth:`send` for an event loop, whose thread never waits for the disk or a lock."""
        with self._site(request) as is_of_its_host:
            response = await send(request)
        if is_of_its_host:
            try:
                seen = _seen(request, response)
                await note_response_async(self.store, *seen, port=_port(request), in_thread=_in_thread)
            except BaseException:  # a request that is cancelled, above all
                with anyio.CancelScope(shield=True):
                    await response.aclose()
                raise
        return response

    def end(self) -> None:
        """The transport is closed."""
        self._lease.end()

    async def end_async(self) -> None:
        """:meth:`end` for an event loop."""
        await _end(self._lease)

    @contextmanager
    def _site(self, request: _Request) -> Generator[bool]:
        """Have a report about what fails meanwhile carry the port; tell whether the answer is one of the URL's host.

        Raises:
            UnenforceableContext: with an ``sni_hostname`` of another name.
            ConnectError: the library's, where the Host field names a Known Pinned Host that is not the URL's.
        """
        host, is_tls = _host(request), request.url.scheme in _TLS
        name: object = request.extensions.get("sni_hostname")
        if name:
            # httpcore keeps its connections by the URL's origin: one whose TLS was checked against the pins of another
            # name would serve the next plain request for this host.
            if not isinstance(name, str) or not is_for(host, name):
                raise UnenforceableContext(
                    f"sni_hostname={name!r} would have the connection to {host} checked against the pins of another "
                    "name; ask for the URL of the name that TLS shall verify, and have that name resolve to the address"
                )
            # It says nothing new, and httpcore would use it for the TLS of an https proxy too.
            request.extensions = {key: value for key, value in request.extensions.items() if key != "sni_hostname"}
        fields: list[str] = request.headers.get_list("host")
        # What a proxy says to CONNECT, or to the URL of another origin as its path, does not come from the site.
        is_of_the_site = is_tls and request.method != "CONNECT"
        target: bytes = request.extensions.get("target", b"/")
        if not target.startswith(b"/"):
            parts = urlsplit(target.decode("latin-1"))
            fields = [*fields, parts.netloc]
            is_of_the_site &= parts.scheme == "https" and (parts.port or _HTTPS_PORT) == _port(request)
        if is_tls:
            try:
                self._names.hold(map(host_of_field, fields), host)
            except PinValidationError as violation:
                raise self._library.ConnectError(str(violation)) from violation
        token = request_site.set((host, _port(request)) if is_tls else None)
        try:
            yield is_of_the_site and all(is_for(host, field) for field in fields)
        finally:
            request_site.reset(token)


class OtherTransport:
    """A transport of an unknown kind, which shows no TLS connection: it may reach all but Known Pinned Hosts."""

    def __init__(self, library: Any, transport: Any, store: PinStore | None, options: PinOptions) -> None:  # noqa: ANN401
        self._library = library
        self._transport = transport
        self._lease = Lease(store, self)
        self._names = Names(self._lease.store, options)

    def handle_request(self, request: _Request) -> Any:  # noqa: ANN401 - the library's response
        """As the transport's own."""
        self._look_at(request)
        return self._transport.handle_request(request)

    async def handle_async_request(self, request: _Request) -> Any:  # noqa: ANN401 - the library's response
        """As the transport's own."""
        self._look_at(request)
        return await self._transport.handle_async_request(request)

    def _look_at(self, request: _Request) -> None:
        if request.url.scheme not in _TLS:
            return
        try:
            self._names.hold([_host(request), *map(host_of_field, request.headers.get_list("host"))], None)
        except PinValidationError as violation:
            said = (
                f"{_host(request)} is pinned, and a {type(self._transport).__name__} shows no TLS connection to check "
                "that by. No request was sent. Give a PinnedTransport, by itself or inside of it; or, for a test, "
                "MockTransport, ASGITransport or WSGITransport"
            )
            explained = PinValidationError(said, validation=violation.validation)
            raise self._library.ConnectError(said) from explained

    def close(self) -> None:
        """As the transport's own."""
        self._transport.close()
        self._lease.end()

    async def aclose(self) -> None:
        """As the transport's own."""
        await self._transport.aclose()
        await _end(self._lease)

    def __enter__(self) -> OtherTransport:
        self._transport.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._transport.__exit__(*exc_info)
        self._lease.end()

    async def __aenter__(self) -> OtherTransport:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._transport.__aexit__(*exc_info)
        await _end(self._lease)


def pinned_client(library: Any, made: type[Any], store: PinStore | None, options: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """The options of the library's own client, with which every transport is pinned, or makes no TLS connection.

    Args:
        library: the module, httpx or httpx2.
        made: the class of the pinned transports: synchronous or not, as the client is.
        store: the Known Pinned Hosts; None for the user's own store.
        options: the options of the pinned client.

    Raises:
        UnenforceableContext: with a transport of the library's own, which would connect past the pins.
        TypeError: with a pinned transport, and options that belong to it.
    """
    options = dict(options)
    pin_options = split_options(options)
    public_roots = pin_options.get("public_roots")
    if public_roots is not None:
        pin_options["public_roots"] = frozenset(public_roots)  # an iterator gives them once
    transport: Any = options.get("transport")
    mounts: Mapping[str, Any] = options.get("mounts") or {}
    if isinstance(transport, made):
        if pin_options or store not in (None, transport.pin_store):
            raise TypeError(f"transport= has a store and options of its own: give them to {made.__name__}(...) alone")
        store = transport.pin_store

    trust_env: bool = options.get("trust_env", True)
    proxies = {"all://": options.pop("proxy", None)}
    if proxies["all://"] is None:
        proxies = proxies_of_the_environment() if trust_env and transport is None else {}
    how = {name: options[name] for name in ("http1", "http2", "limits", "trust_env") if name in options} | pin_options
    verify, cert = options.pop("verify", True), options.pop("cert", None)
    if transport is None or any(proxies.values()):
        # One for all, since it takes long to make.
        how["verify"] = library.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env)

    def admitted(option: str, given: Any) -> Any:  # noqa: ANN401 - the library's transports
        # A double of a class of the user's own may pass requests on.
        if (
            given is None
            or isinstance(given, made)
            or type(given) in (library.MockTransport, library.ASGITransport, library.WSGITransport)
        ):
            return given
        if isinstance(given, (library.HTTPTransport, library.AsyncHTTPTransport)):
            raise UnenforceableContext(
                f"{option}= has a {type(given).__name__}, which connects past the pins: give a "
                f"{made.__module__}.{made.__name__}, which takes the same options"
            )
        # One that retries or caches has another one inside.
        kind = library.BaseTransport if issubclass(made, library.BaseTransport) else library.AsyncBaseTransport
        held: list[Any] = list(getattr(given, "__dict__", {}).values())
        mappings: tuple[Any, ...] = (dict,)
        collections: tuple[Any, ...] = (list, tuple, set)
        held += [one for value in held if isinstance(value, mappings) for one in value.values()]
        held += [one for value in held if isinstance(value, collections) for one in value]
        inside = [value for value in held if isinstance(value, kind)]
        if inside and all(admitted(option, value) is value for value in inside):
            return given
        return OtherTransport(library, given, store, pin_options)

    options["transport"] = made(store, **how) if transport is None else admitted("transport", transport)
    options["mounts"] = {
        pattern: None if proxy is None else made(store, **how, proxy=proxy) for pattern, proxy in proxies.items()
    } | {pattern: admitted("mounts", given) for pattern, given in mounts.items()}
    return options


def proxies_of_the_environment() -> dict[str, str | None]:
    """The proxies of the environment by the pattern under which the library mounts them; None for no proxy."""
    found = getproxies()
    exempt = [name for name in map(str.strip, found.get("no", "").split(",")) if name]
    if "*" in exempt:
        return {}
    proxies: dict[str, str | None] = {
        f"{scheme}://": url if "://" in url else f"http://{url}"
        for scheme in ("http", "https", "all")
        if (url := found.get(scheme))
    }
    return proxies | {_exempt(name): None for name in exempt}


def _exempt(name: str) -> str:
    if "://" in name:
        return name
    address, slash, prefix = name.partition("/")  # of a network the first address counts alone
    try:
        version = ip_address(address).version
    except ValueError:
        return f"all://{name}" if name.lower() == "localhost" else f"all://*{name}"
    return f"all://{name}" if version == 4 else f"all://[{address}]{slash}{prefix}"


def _seen(request: _Request, response: _Response) -> tuple[str, Peer | None, list[str], list[str]]:
    """What note_response takes: the host, the connection, the fields."""
    headers = response.headers
    # The list: headers["…"] would join several fields by a comma.
    return _host(request), _peer(response), headers.get_list(ENFORCE_NAME), headers.get_list(REPORT_ONLY_NAME)


def _peer(response: _Response) -> Peer | None:
    stream = response.extensions.get("network_stream")
    if stream is None:
        return None  # a test double's
    # Asynchronous streams, and TLS inside TLS, give the SSLObject; over a plain socket "ssl_object" is what stands
    # inside the SSLSocket, and "socket" is the SSLSocket itself.
    return peer_of(stream.get_extra_info("ssl_object")) or peer_of(stream.get_extra_info("socket"))


def _host(request: _Request) -> str:
    """The host as TLS is told it, in ASCII."""
    raw: bytes = request.url.raw_host
    return raw.decode("ascii")


def _port(request: _Request) -> int:
    port: int | None = request.url.port
    return port or _HTTPS_PORT


async def _end(lease: Lease) -> None:
    """End the lease off the event loop's thread: closing a database may wait for the disk."""
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(lease.end)


def _in_thread(function: Callable[[], _Value], /) -> Awaitable[_Value]:
    # anyio's threads are for asyncio and trio; and asyncio's own are few, and look up names as well. A request that is
    # cancelled does not wait for its noting, which goes on.
    return anyio.to_thread.run_sync(function, abandon_on_cancel=True)
